"""NumPy arrays as the binary tensors of the Open Inference Protocol, and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import make_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "UINT8": "u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def encoded(name: str, given: Any) -> tuple[str, list[int], bytes]:
    """Datatype, shape and bytes of an input. Times become microseconds since 1970, texts UTF-8.

    Raises:
        InputError: `type_mismatch`.
    """
    array = np.asarray(given)
    if array.dtype.kind == "M":
        array = array.astype("datetime64[us]").astype(np.int64)
    shape = list(array.shape)
    if array.dtype.kind in "OUS":
        return "BYTES", shape, b"".join(_element(name, element) for element in array.ravel())
    dtype = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
    if dtype not in NAMES:
        hint = "give bools, integers, float16 to float64, texts or bytes"
        raise make_error("type_mismatch", f"input '{name}' is an array of {array.dtype}", hint)
    return NAMES[dtype], shape, np.ascontiguousarray(array, dtype).tobytes()


def _element(name: str, element: Any) -> bytes:
    if isinstance(element, str):
        element = element.encode()
    if not isinstance(element, bytes):
        raise make_error("type_mismatch", f"input '{name}' holds {element!r:.100}", "give texts or bytes")
    return struct.pack("<I", len(element)) + element


def decoded(datatype: str, shape: Sequence[int], data: bytes | memoryview) -> NDArray[Any]:
    """The array of an output. It may be read only: it lies in the answer's memory.

    Raises:
        ValueError: bytes and shape do not fit each other, or no such datatype.
    """
    count = count_of(shape)
    if datatype == "BYTES":
        return _texts(count, data).reshape(shape)
    if datatype == "BF16":
        halves = _numbers(np.dtype("<u2"), count, data)
        widened: NDArray[Any] = (halves.astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return widened
    if datatype not in DTYPES:
        raise ValueError(f"the datatype {datatype!r:.40} is not known")
    return _numbers(DTYPES[datatype], count, data).reshape(shape)


def count_of(shape: Sequence[int]) -> int:
    """Elements of a shape.

    Raises:
        ValueError: it is none.
    """
    if len(shape) > 32 or any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in shape):
        raise ValueError("a tensor's shape is not a list of sizes")
    return math.prod(shape)


def _numbers(dtype: np.dtype[Any], count: int, data: bytes | memoryview) -> NDArray[Any]:
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"a tensor has {len(data)} bytes, its shape asks for {count * dtype.itemsize}")
    return np.frombuffer(data, dtype)


def _texts(count: int, data: bytes | memoryview) -> NDArray[Any]:
    texts, place = [], 0
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + size > len(data):
            raise ValueError("a text of a tensor is longer than the tensor")
        texts.append(bytes(data[place : place + size]))
        place += size
    return object_array(texts, count)


def object_array(elements: Sequence[Any], count: int) -> NDArray[Any]:
    """A flat array of so many objects.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(elements) != count:
        raise ValueError(f"a tensor has {len(elements)} elements, its shape asks for {count}")
    array: NDArray[Any] = np.empty(count, object)
    array[:] = elements
    return array


def of_json(datatype: str, shape: Sequence[int], data: Any) -> NDArray[Any]:
    """The array of an output that was told as JSON, a flat list.

    Raises:
        ValueError, TypeError: as `decoded`.
    """
    count = count_of(shape)
    if not isinstance(data, list) or len(data) != count:
        raise ValueError("a tensor has not as many values as its shape says")
    if datatype == "BYTES":
        return object_array([str(text).encode() for text in data], count).reshape(shape)
    if datatype not in DTYPES:
        raise ValueError(f"the datatype {datatype!r:.40} is not known")
    dtype = DTYPES[datatype]
    values = [math.nan if value is None else value for value in data] if dtype.kind == "f" else data
    return np.array(values, dtype).reshape(shape)
