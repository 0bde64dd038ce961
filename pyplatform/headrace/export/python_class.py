"""Python classes: any class with `predict(batch)`, as source files that worker processes of the engine import."""

from __future__ import annotations

import json
import os
import platform
import subprocess
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
        HeadraceError: `model_failed` with the class's exception, `deadline_exceeded`, `invalid_argument` (no module, or
            files in several folders), `length_mismatch` (golden rows).
    """
    file = Path(source)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise make_error("invalid_argument", f"'{file}' is no module", "name a .py file whose name is an identifier")
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
    reader, writer = os.pipe()
    command = [runtimes["python"], "-I", "-B", "-X", "faulthandler", runtimes["worker_file"], str(writer)]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[writer],
            env=dict(runtimes["environment"]),
            text=True,
        ) as process:
            os.close(writer)
            try:
                _, errors = process.communicate(json.dumps(start), timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                hint = "make it faster, or raise [models] start_seconds"
                message = f"class '{name}' did not answer the golden rows within {timeout_seconds} s"
                raise make_error("deadline_exceeded", message, hint) from None
        with os.fdopen(reader, encoding="utf-8", closefd=False) as answers:
            text = answers.read()
    finally:
        os.close(reader)
    answer: dict[str, Any] = (
        json.loads(text) if text else {"error": f"its process ended with {process.returncode}. {errors[-2000:]}"}
    )
    if "error" in answer:
        message = f"class '{name}' in '{source}': {answer['error']}"
        raise make_error("model_failed", message, "correct the class")
    scores: list[list[float | None]] = answer["scores"]
    return scores
