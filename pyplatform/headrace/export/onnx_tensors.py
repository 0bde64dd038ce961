"""ONNX models of tensors: any inputs and outputs, as the file has them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import ExportedModel, GoldenRows, TensorPart, library, replacing
from headrace.export.onnx import model_bytes, onnx_session

TASKS = ("tensors", "seq2seq")
DATATYPES = {
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(string)": ("BYTES", np.object_),
}


def export_onnx_tensors(
    model: Any,
    path: str | Path,
    golden: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    task: str = "tensors",
    batch_max: int = 0,
    labels: Mapping[str, Sequence[str]] | None = None,
    library_name: str = "onnx",
    library_version: str = "",
) -> ExportedModel:
    """Writes an ONNX model that takes and gives tensors, and has `onnxruntime` answer its golden inputs.

    Args:
        model: a path, the bytes of a file, or an `onnx.ModelProto`; names, types and shapes are read from it.
        path: the file to write.
        golden: an array for each input by its name, or several such calls. The engine must answer them as onnxruntime
            does.
        task: `tensors`; `seq2seq` of a model whose tensors have the names of core/models/runtimes.md, which the Common
            API answers, too.
        batch_max: rows that one request may have, where the first dimension of all inputs and outputs is a free batch;
            0 where it is not.
        labels: output -> names for the places of its last dimension, which the classification extension tells.
        library_name: the library that made it, for the manifest.
        library_version: its version.

    Raises:
        HeadraceError: `unavailable` without onnxruntime; `invalid_argument` for what is no model, and golden inputs
            that it does not take; `unsupported_model` for inputs and outputs that are no tensors of the protocol.
    """
    if task not in TASKS:
        raise make_error("invalid_argument", f"'{task}' is no task of tensors", f"use one of {', '.join(TASKS)}")
    onnxruntime = library("onnxruntime")
    data = model_bytes(model)
    session = onnx_session(onnxruntime, data)
    inputs = [_info(value, None) for value in session.get_inputs()]
    outputs = [_info(value, (labels or {}).get(value.name)) for value in session.get_outputs()]
    calls = [golden] if isinstance(golden, Mapping) else list(golden)
    if not calls:
        raise make_error("invalid_argument", "there are no golden inputs", "give an array for each input")
    answered = [_call(session, call) for call in calls]
    file = Path(path)
    with replacing(file) as aside:
        aside.write_bytes(data)
    return ExportedModel(
        file=file,
        format="onnx",
        task=task,
        labels=None,
        features=None,
        golden=GoldenRows(features=[], margins=[], scores=[]),
        library=library_name,
        library_version=library_version or onnxruntime.__version__,
        tensors=TensorPart(signature={"inputs": inputs, "outputs": outputs, "batch_max": batch_max}, calls=answered),
    )


def _info(value: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    if value.type not in DATATYPES:
        message = f"'{value.name}' is a {value.type}"
        raise make_error("unsupported_model", message, f"export it with one of {', '.join(DATATYPES)}")
    shape = [dim if isinstance(dim, int) else -1 for dim in value.shape]
    info = {"name": value.name, "datatype": DATATYPES[value.type][0], "shape": shape}
    return info | ({"labels": list(labels)} if labels else {})


def _call(session: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {value.name: value for value in session.get_inputs()}
    if set(call) != set(wanted):
        message = f"the golden inputs are {', '.join(sorted(call))}"
        raise make_error("invalid_argument", message, f"give {', '.join(wanted)}")
    feed: dict[str, Any] = {
        name: np.ascontiguousarray(call[name], DATATYPES[value.type][1]) for name, value in wanted.items()
    }
    names = [value.name for value in session.get_outputs()]
    try:
        answers = session.run(names, feed)
    except Exception as error:  # the classes of its exceptions are not part of its API
        raise make_error("invalid_argument", f"onnxruntime does not run the model: {error}", "check it") from error
    types = {value.name: value.type for value in session.get_outputs()}
    return {
        "inputs": [_golden(name, DATATYPES[wanted[name].type][0], values) for name, values in feed.items()],
        "outputs": [
            _golden(name, DATATYPES[types[name]][0], np.asarray(values))
            for name, values in zip(names, answers, strict=True)
        ],
    }


def _golden(name: str, datatype: str, values: Any) -> dict[str, Any]:
    if datatype == "BYTES":
        elements = [value if isinstance(value, bytes) else str(value).encode() for value in values.ravel()]
        data = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    else:
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": base64.b64encode(data).decode()}
