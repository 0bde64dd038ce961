"""One worker of a Python model: makes the class, then answers batches that lie in shared memory.

The engine starts this file as a program, in any Python that has numpy and pyarrow; it imports nothing of headrace.

```text
python model_worker.py SOCKET MEMORY     descriptors; on stdin JSON: folder, module, class, files, columns, outputs,
                                         bytes; messages of the socket are a u32 of their length, then
  in   u64 batch, u32 rows, a bit for each column that holds nulls      columns lie in the memory
  out  u64 batch, u32 status (0 answered, 1 failed), text               scores lie in the memory
python model_worker.py ANSWER            JSON with `rows` on stdin, {"scores": ..} or {"error": ..} on the descriptor
```
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import json
import mmap
import os
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ALIGNMENT = 64
"""What every column begins at a multiple of; as native/workers/src/layout.rs."""
TEXT_CHARS_MAX = 4_000
TRACEBACK_LINES_MAX = 12
KEPT_BATCHES_MAX = 64
"""Batches without nulls that are kept by their number of rows: the next one of as many rows lies in the same place."""
ANSWERED, FAILED = 0, 1
TYPES: dict[str, Any] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}

Predict = Callable[[Any], Any]


def make_predict(start: dict[str, Any]) -> Predict:
    """Checks the files, imports the class and makes one object of it."""
    folder = Path(start["folder"])
    for name, digest in start["files"]:
        with (folder / name).open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise RuntimeError(f"file '{name}' has changed: its digest is {found}, the manifest says {digest}")
    sys.path.insert(0, str(folder))
    module = importlib.import_module(start["module"])
    kind = getattr(module, start["class"], None)
    if kind is None:
        raise AttributeError(f"module '{start['module']}' has no class '{start['class']}'")
    model = kind(folder) if takes_folder(kind) else kind()
    predict: Predict = model.predict
    return predict


def takes_folder(kind: type) -> bool:
    """Whether `__init__` has a place for the folder."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.kind in positional for parameter in parameters)


def scores_of(answer: Any, rows: int, outputs: int | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What `predict` returned as float64 [rows, outputs]."""
    if isinstance(answer, pa.Array | pa.ChunkedArray):
        answer = answer.to_numpy(zero_copy_only=False)
    scores = np.asarray(answer, dtype=np.float64)
    if scores.ndim == 1:
        scores = scores.reshape(-1, 1)
    if scores.ndim != 2 or scores.shape[0] != rows or outputs not in (None, scores.shape[1]):
        wanted = f"({rows},) or ({rows}, 1)" if outputs == 1 else f"({rows}, {outputs or 'outputs'})"
        raise ValueError(f"predict returned scores of shape {np.shape(answer)}, the batch needs {wanted}")
    return scores


def described(error: BaseException) -> str:
    """An exception's text and the end of its traceback, shortened."""
    lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()[-TRACEBACK_LINES_MAX:]
    try:
        said = str(error)
    except BaseException as another:
        said = f"(its text cannot be told: {type(another).__name__})"
    text = f"{type(error).__name__}: {said}"[: TEXT_CHARS_MAX // 2]
    return "\n".join([text, *lines])[:TEXT_CHARS_MAX]


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Batches:
    """The batches in the shared memory. A batch is valid until `predict` returns: the next one takes its place."""

    def __init__(self, memory: mmap.mmap, columns: Sequence[tuple[str, str]], outputs: int) -> None:
        self._memory = memory
        self._buffer = pa.py_buffer(memory)
        self._types = [TYPES[dtype] for _, dtype in columns]
        self._schema = pa.schema([(name, TYPES[dtype]) for name, dtype in columns])
        self._outputs = outputs
        self._kept: dict[int, tuple[Any, Any]] = {}

    def batch(self, rows: int, nulls: bytes) -> tuple[Any, Any]:
        """The record batch, and the place of its scores."""
        kept = self._kept.get(rows) if not any(nulls) else None
        if kept is not None:
            return kept
        made = self._make(rows, nulls)
        if not any(nulls):
            if len(self._kept) >= KEPT_BATCHES_MAX:
                self._kept.clear()
            self._kept[rows] = made
        return made

    def _make(self, rows: int, nulls: bytes) -> tuple[Any, Any]:
        arrays = []
        place = 0
        bitmap_bytes = -(-rows // 8)
        for index, kind in enumerate(self._types):
            is_float = pa.types.is_floating(kind)
            values_bytes = -(-rows * kind.bit_width // 8)
            values = self._buffer.slice(place, values_bytes)
            place += aligned(values_bytes)
            validity = None
            if not is_float:
                if nulls[index // 8] >> (index % 8) & 1:
                    validity = self._buffer.slice(place, bitmap_bytes)
                place += aligned(bitmap_bytes)
            arrays.append(pa.Array.from_buffers(kind, rows, [validity, values], 0 if validity is None else -1))
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        scores = np.frombuffer(self._memory, np.float64, rows * self._outputs, place).reshape(rows, self._outputs)
        return batch, scores


def receive(connection: socket.socket) -> bytes:
    """The next message; empty when the engine has gone."""
    data = connection.recv(65536)
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        more = connection.recv(1 << 20)
        if not more:
            return b""
        data += more
    return data[4:]


def send(connection: socket.socket, batch: int, status: int, text: str = "") -> None:
    body = struct.pack("<QI", batch, status) + text.encode("utf-8", "replace")
    connection.sendall(len(body).to_bytes(4, "little") + body)


def serve(connection: socket.socket, memory_descriptor: int) -> None:
    """Answers batches until the engine closes the socket."""
    start = json.load(sys.stdin.buffer)
    memory = mmap.mmap(memory_descriptor, start["bytes"])
    os.close(memory_descriptor)
    try:
        predict = make_predict(start)
    except BaseException as error:
        send(connection, 0, FAILED, described(error))
        return
    batches = Batches(memory, start["columns"], start["outputs"])
    send(connection, 0, ANSWERED)
    while message := receive(connection):
        batch, rows = struct.unpack_from("<QI", message)
        try:
            columns, scores = batches.batch(rows, message[12:])
            scores[:] = scores_of(predict(columns), rows, start["outputs"])
        except BaseException as error:
            send(connection, batch, FAILED, described(error))
        else:
            send(connection, batch, ANSWERED)


def answer_once(descriptor: int) -> None:
    """Scores of some rows, for golden rows: JSON in, JSON out."""
    start = json.load(sys.stdin)
    try:
        rows = np.asarray(start["rows"], dtype=np.float64)
        arrays = []
        for index, (_, dtype) in enumerate(start["columns"]):
            values, kind = rows[:, index], TYPES[dtype]
            mask = None if pa.types.is_floating(kind) else np.isnan(values)
            held = values if mask is None else np.where(mask, 0, values)
            arrays.append(pa.array(held.astype(kind.to_pandas_dtype()), type=kind, mask=mask))
        batch = pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in start["columns"]])
        scores = scores_of(make_predict(start)(batch), len(rows), None)
        answer: dict[str, Any] = {
            "scores": [[None if value != value else value for value in row] for row in scores.tolist()]
        }
    except BaseException as error:
        answer = {"error": described(error)}
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(answer, out)


def main() -> None:
    if len(sys.argv) == 2:
        answer_once(int(sys.argv[1]))
        return
    connection = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(connection, int(sys.argv[2]))


if __name__ == "__main__":
    main()
