"""The safetensors format: the length of a JSON header (8 bytes, little-endian), the header, the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.export.exported import replacing

DTYPES = {"f8": "F64", "i8": "I64", "u4": "U32", "u1": "U8"}


def write_safetensors(file: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Writes tensors of float64, int64, uint32 and uint8, widest first, so that each is aligned."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset, data = 0, []
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        content = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).tobytes()
        kind = DTYPES[tensor.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
        data.append(content)
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(file) as aside:
        aside.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))
