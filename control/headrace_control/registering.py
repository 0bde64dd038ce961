"""What `headrace register` does: rows, the library's answers to them, and a version that gives the same."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace import FeatureStore
from headrace_control.errors import ControlError
from headrace_control.model_files import OpenedModel, open_model_file
from headrace_control.projects import open_applied, open_store
from headrace_control.row_files import RowFile

GOLDEN_ROWS_MAX = 64
TENSOR_TASKS = ("tensors", "seq2seq")


@dataclass(frozen=True)
class RegisteredModel:
    """A version that was made.

    Attributes:
        features: in the model's order; of a model of tensors its inputs.
        golden_rows: rows, or calls, that the engine answers as the library does.
    """

    name: str
    version: int
    folder: Path
    digest: str
    features: tuple[str, ...]
    golden_rows: int


def register_file(
    project: Path,
    name: str,
    model_file: Path,
    rows: Path,
    service: str | None = None,
    features: tuple[str, ...] = (),
    task: str | None = None,
    labels: tuple[str, ...] = (),
    *,
    batch_max: int = 0,
) -> RegisteredModel:
    """Registers a model file.

    Args:
        project: the project's folder.
        name: the model's.
        model_file: as `open_model_file` takes it.
        rows: a file with a column for each feature; its first rows become the golden rows.
        service: whose features the model takes.
        features: their names in the model's order; by default the model's own, then the service's.
        task: by default the model's own.
        labels: likewise.
        batch_max: rows of a batch, of a model of tensors.

    Raises:
        ControlError: `not_a_project`, `not_applied`, `invalid_argument`, `missing_package`, `missing_column`,
            `type_mismatch`, `io`.
        headrace.HeadraceError: as `FeatureStore.register_model`.
    """
    if task in TENSOR_TASKS:
        return _register_tensors(project, name, model_file, rows, task, batch_max)
    opened = open_model_file(model_file, task, labels)
    with open_store(project) if service is None else open_applied(project) as store:
        names = features or _names(opened, store, service, rows)
        golden = RowFile(rows, names).first(GOLDEN_ROWS_MAX)
        if not len(golden):
            raise ControlError("invalid_argument", f"{rows} has no rows", "give some rows of the training set")
        if features and hasattr(golden, "to_numpy"):
            golden = golden.to_numpy(dtype=object)  # columns in the model's order, by names that it need not know
        with tempfile.TemporaryDirectory() as folder:
            exported = opened.export(Path(folder) / "model", golden)
            lineage = {"file": str(model_file.resolve()), "rows": str(rows.resolve())}
            model = store.register_model(
                name, exported, service, features=names, task=task, labels=labels or None, lineage=lineage
            )
        version, digest = int(model.version or 0), str(model.digest)
        place = store.config.state / "models" / name / str(version)
    return RegisteredModel(name, version, place, digest, tuple(names), len(golden))


def _register_tensors(
    project: Path, name: str, model_file: Path, arrays: Path, task: str, batch_max: int
) -> RegisteredModel:
    """An ONNX file of any signature; `arrays` is an .npz file with an array for each of its inputs."""
    import numpy as np

    from headrace.export import export_onnx_tensors

    if model_file.suffix != ".onnx":
        raise ControlError("invalid_argument", f"{model_file} is no ONNX file", "a model of tensors is an .onnx file")
    try:
        with np.load(arrays, allow_pickle=False) as given:
            golden = {key: given[key] for key in given.files}
    except (ValueError, OSError, AttributeError) as error:
        message = f"{arrays} is no file of arrays: {error}"
        raise ControlError("invalid_argument", message, "write it with numpy.savez, an array for each input") from error
    with open_store(project) as store, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        exported = export_onnx_tensors(model_file, file, golden, task=task, batch_max=batch_max)
        lineage = {"file": str(model_file.resolve()), "rows": str(arrays.resolve())}
        model = store.register_model(name, exported, lineage=lineage)
        version, digest = int(model.version or 0), str(model.digest)
        place = store.config.state / "models" / name / str(version)
    return RegisteredModel(name, version, place, digest, tuple(golden), 1)


def _names(opened: OpenedModel, store: FeatureStore, service: str | None, rows: Path) -> tuple[str, ...]:
    if opened.features:
        return opened.features
    if service is not None:
        compiled = json.loads(store.applied.service(service))
        return tuple(feature["name"] for feature in compiled["features"])
    raise ControlError(
        "invalid_argument", "the model file does not know the names of its features", f"give --features, as in {rows}"
    )
