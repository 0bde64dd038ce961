"""Python classes: any class with `predict(batch)`, as source files that worker processes of the engine import."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace import _native
from headrace.config import ModelsSection
from headrace.errors import make_error
from headrace.export.exported import ExportedModel, golden_matrix, golden_rows, label_names
from headrace.export.onnx import scores_of_margins
from headrace.runtimes import Runtimes, find_runtimes

ERROR_BYTES_MAX = 2_000
"""The last bytes of what a failed process has said that its error quotes."""


def export_python_class(
    source: str | os.PathLike[str],
    golden: Any,
    features: Mapping[str, str],
    *,
    task: str,
    name: str = "Model",
    files: Sequence[str | os.PathLike[str]] = (),
    labels: Sequence[Any] | None = None,
    logits: bool = False,
    tolerance: float = 0.0,
    settings: ModelsSection | None = None,
) -> ExportedModel:
    """Runs a class over the golden rows, in a process of its own, and tells what its model version is made of.

    The class has `predict(self, batch)`, which takes a `pyarrow.RecordBatch` with the features as columns and returns
    scores of shape (rows,) or (rows, outputs); its `__init__` may take the folder of its files as a `Path`. The batch
    lies in memory that the next one will use again: copy what is to be kept. Missing numbers are NaN in float columns,
    null in others.

    Args:
        source: the `.py` file of the class.
        golden: rows of shape (rows, features), NaN where a value is missing.
        features: the names of the features in the model's order, and their dtypes.
        task: `classification`, `regression`, `multi_label` or `ranking`.
        name: the class.
        files: further files that the class reads or imports; they lie beside the source, under their own names.
        labels: the names of the classes in the order of the scores.
        logits: whether the scores are logits, which a logistic function or a softmax turns into probabilities.
        tolerance: what golden values may be off when the version is loaded, relative to the largest of their output.
        settings: the section `models` of headrace.toml, which may name another Python.

    Raises:
        HeadraceError: `model_failed` with the class's exception, `deadline_exceeded`, `unavailable` (Python cannot be
            started), `invalid_argument` (no module, no feature, or files in several folders), `length_mismatch`
            (golden rows).
    """
    file = Path(source)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise make_error("invalid_argument", f"'{file}' is no module", "name a .py file whose name is an identifier")
    if not features:
        message = f"class '{name}' takes no feature"
        raise make_error("invalid_argument", message, "name at least one: a batch has the rows of its columns")
    rows = golden_matrix(golden, len(features))
    beside = tuple(Path(path) for path in files)
    chosen = settings or ModelsSection()
    margins = _run(file, name, beside, rows, features, find_runtimes(chosen), chosen.start_seconds)
    values = np.array([[np.nan if value is None else value for value in row] for row in margins])
    told: dict[str, Any] = {"module": file.stem, "class": name, "outputs": values.shape[1]}
    if tolerance:
        told["tolerance"] = tolerance
    if logits:
        told["answers"] = "logit"
    return ExportedModel(
        file=file,
        format="python-class",
        task=task,
        labels=label_names(labels),
        features=tuple(features),
        golden=golden_rows(rows, values, scores_of_margins(values, task, logits)),
        library="python",
        library_version=platform.python_version(),
        settings=told,
        files=tuple((path.name, path) for path in beside),
    )


def _run(
    source: Path,
    name: str,
    files: Sequence[Path],
    rows: Any,
    features: Mapping[str, str],
    runtimes: Runtimes,
    timeout_seconds: float,
) -> list[list[float | None]]:
    """The scores of the rows, as a worker computes them."""
    folders = {path.resolve().parent for path in (source, *files)}
    if len(folders) > 1:
        message = f"the files of the class lie in {len(folders)} folders"
        raise make_error(
            "invalid_argument", message, "put them beside the source: so they will lie in the version's folder"
        )
    start = {
        "folder": str(source.resolve().parent),
        "module": source.stem,
        "class": name,
        "files": [(path.name, _native.digest_file(path)) for path in (source, *files)],
        "columns": list(features.items()),
        "rows": rows.tolist(),
    }
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as said:
        # Files, not pipes: an answer of any size fits, and what the class has started cannot hold their end open.
        asked.write(json.dumps(start).encode())
        asked.seek(0)
        descriptor = answered.fileno()
        command = [runtimes["python"], "-I", "-B", "-X", "faulthandler", runtimes["worker_file"], str(descriptor)]
        try:
            process = subprocess.Popen(
                command,
                stdin=asked,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[descriptor],
                env=dict(runtimes["environment"]),
                start_new_session=True,
            )
        except OSError as error:
            message = f"Python '{runtimes['python']}' cannot be started: {error.strerror}"
            raise make_error("unavailable", message, "check [models] python in headrace.toml") from None
        try:
            process.wait(timeout_seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            hint = "make it faster, or raise [models] start_seconds"
            message = f"class '{name}' did not answer the golden rows within {timeout_seconds} s"
            raise make_error("deadline_exceeded", message, hint) from None
        answered.seek(0)
        text = answered.read()
        said.seek(max(0, said.seek(0, os.SEEK_END) - ERROR_BYTES_MAX))
        errors = said.read().decode(errors="replace")
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        answer = {"error": f"its process ended with {process.returncode}. {errors}"}
    if "error" in answer:
        message = f"class '{name}' in '{source}': {answer['error']}"
        raise make_error("model_failed", message, "correct the class")
    scores: list[list[float | None]] = answer["scores"]
    return scores
