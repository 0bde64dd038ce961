"""ONNX: a model file of any exporter, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import ExportedModel, Matrix, golden_matrix, golden_rows, label_names, library, replacing

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
PROBABILITY_TASKS = ("classification", "multi_label")


def export_onnx(
    model: Any,
    path: str | Path,
    golden: Any,
    *,
    task: str,
    labels: Sequence[Any] | None = None,
    features: Sequence[str] | None = None,
    output: str | None = None,
    logits: bool = False,
    library_name: str = "onnx",
    library_version: str = "",
) -> ExportedModel:
    """Writes an ONNX model and computes its golden rows with the Python package `onnxruntime`.

    Args:
        model: a path, the bytes of a file, or an `onnx.ModelProto`. Its inputs are one matrix [N, features], or several
            of [N, 1] or [N, k] that take the features in order; N is free, or 1.
        path: the file to write.
        golden: rows of shape (rows, features), in the order of the inputs.
        task: `classification`, `regression`, `multi_label` or `ranking`.
        labels: the names of the classes in the order of the probabilities.
        features: the names of the features in the model's order.
        output: the output with the scores; by default the only one of floats, or that of probabilities.
        logits: whether that output holds logits, which a logistic function (one column, or several labels) or a softmax
            turns into probabilities.
        library_name: the library that trained it, for the manifest.
        library_version: its version.

    Raises:
        HeadraceError: `unavailable` without onnxruntime; `invalid_argument` for what is no model and for probabilities
            that are none; `unsupported_model` (inputs and outputs that are no matrices of numbers), `length_mismatch`
            (golden rows).
    """
    onnxruntime = library("onnxruntime")
    data = model_bytes(model)
    session = onnx_session(onnxruntime, data)
    rows = golden_matrix(golden, _features_count(session, golden))
    name = output or _output_name(session)
    margins = _run(session, name, rows)
    scores = scores_of_margins(margins, task, logits)
    file = Path(path)
    with replacing(file) as aside:
        aside.write_bytes(data)
    settings: dict[str, Any] = {"output": name}
    if task in PROBABILITY_TASKS:
        settings["answers"] = "logit" if logits else "probability"
    return ExportedModel(
        file=file,
        format="onnx",
        task=task,
        labels=label_names(labels),
        features=label_names(features),
        golden=golden_rows(rows, margins, scores),
        library=library_name,
        library_version=library_version or onnxruntime.__version__,
        settings=settings,
    )


def model_bytes(model: Any) -> bytes:
    """The bytes of a model's file, of whatever form the caller has it in."""
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, str | Path):
        return Path(model).read_bytes()
    if hasattr(model, "SerializeToString"):
        return bytes(model.SerializeToString())
    message = f"a {type(model).__module__}.{type(model).__qualname__} is no ONNX model"
    raise make_error("invalid_argument", message, "give a path, bytes or an onnx.ModelProto")


def onnx_session(onnxruntime: Any, data: bytes) -> Any:
    """A session of one thread on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes of its exceptions are not part of its API
        raise make_error("invalid_argument", f"onnxruntime does not load the model: {error}", "check it") from error


def _widths(session: Any, features_count: int) -> list[int]:
    """How many features each input takes."""
    inputs = session.get_inputs()
    widths = []
    for value in inputs:
        shape = list(value.shape)
        if value.type not in DTYPES or len(shape) not in (1, 2):
            message = f"input '{value.name}' is a {value.type} of shape {shape}"
            raise make_error("unsupported_model", message, "export it with inputs [N, features] of numbers")
        width = shape[1] if len(shape) == 2 else 1
        if not isinstance(width, int):
            if len(inputs) > 1:
                message = f"input '{value.name}' does not say how many features it takes"
                raise make_error("unsupported_model", message, "export it with a fixed second dimension")
            width = features_count
        widths.append(width)
    return widths


def _features_count(session: Any, golden: Any) -> int:
    return sum(_widths(session, np.shape(golden)[-1] if np.ndim(golden) else 0))


def _output_name(session: Any) -> str:
    """The output that the engine takes, too, when none is named."""
    outputs = session.get_outputs()
    found = [value.name for value in outputs if value.type in ("tensor(float)", "tensor(double)")]
    if len(found) > 1:
        found = [name for name in found if "prob" in name.lower()]
    if len(found) == 1:
        return str(found[0])
    maps = [value.name for value in outputs if value.type.startswith(("seq(", "map("))]
    if maps:
        message = f"output '{maps[0]}' is a sequence of maps"
        raise make_error("unsupported_model", message, "convert the model with options={'zipmap': False}")
    names = ", ".join(f"'{value.name}'" for value in outputs)
    message = f"which of the outputs {names} holds the scores cannot be told"
    raise make_error("unsupported_model", message, 'name it: export_onnx(.., output="NAME")')


def _run(session: Any, output: str, rows: Matrix) -> Matrix:
    inputs = session.get_inputs()
    widths = _widths(session, rows.shape[1])
    starts = np.cumsum([0, *widths])
    is_one_row = any(value.shape[0] == 1 for value in inputs)
    batches = [rows[row : row + 1] for row in range(len(rows))] if is_one_row else [rows]
    answers = []
    for batch in batches:
        feed = {}
        for value, start, width in zip(inputs, starts, widths, strict=False):
            columns: Any = np.ascontiguousarray(batch[:, start : start + width]).astype(DTYPES[value.type])
            feed[value.name] = columns[:, 0] if len(value.shape) == 1 else columns
        try:
            (answer,) = session.run([output], feed)
        except Exception as error:  # as above
            raise make_error("unsupported_model", f"onnxruntime does not run the model: {error}", "check it") from error
        if not isinstance(answer, np.ndarray) or answer.ndim not in (1, 2) or len(answer) != len(batch):
            message = f"output '{output}' is no matrix with one row for each row that goes in"
            raise make_error("unsupported_model", message, "name another output, or export the model anew")
        answers.append(np.asarray(answer, dtype=np.float64).reshape(len(batch), -1))
    return np.concatenate(answers)


def scores_of_margins(margins: Matrix, task: str, logits: bool) -> Matrix:
    """What the engine makes of a model's outputs.

    Raises:
        HeadraceError: `invalid_argument`, a probability is none.
    """
    if task not in PROBABILITY_TASKS:
        return margins
    if not logits:
        if (margins < 0).any() or (margins > 1.0001).any():
            message = f"the scores of the golden rows run from {np.nanmin(margins)} to {np.nanmax(margins)}"
            raise make_error("invalid_argument", message, "give logits=True, or name the output with the probabilities")
        return margins
    with np.errstate(over="ignore"):
        if margins.shape[1] == 1 or task == "multi_label":
            return np.asarray(1.0 / (1.0 + np.exp(-margins)))
        raised = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
