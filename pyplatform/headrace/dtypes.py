"""The types of values, by the names that the plan, the engine and every transport use."""

from __future__ import annotations

import datetime as dt
from typing import Any, Self

from headrace.errors import make_error

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_SCALARS = ("bool", *_INTEGERS, "float32", "float64", "string", "bytes", "timestamp")
_HINT = f"use one of {', '.join(_SCALARS)}, or list<one of these>"


class DType(str):
    """A type: its name, checked. `DType("list<float32>")` and `List(Float32)` are the same."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        is_list = name.startswith("list<") and name.endswith(">")
        if (name[5:-1] if is_list else name) not in _SCALARS:
            raise make_error("unknown_dtype", f"'{name}' is not a type", _HINT)
        return super().__new__(cls, name)

    @property
    def is_list(self) -> bool:
        return self.startswith("list<")

    @property
    def element(self) -> DType:
        """The type of one element of a list; of anything else, the type itself."""
        return DType(self[5:-1]) if self.is_list else self

    @property
    def is_integer(self) -> bool:
        return self in _INTEGERS

    @property
    def is_float(self) -> bool:
        return self in ("float32", "float64")


Bool = DType("bool")
Int8 = DType("int8")
Int16 = DType("int16")
Int32 = DType("int32")
Int64 = DType("int64")
UInt8 = DType("uint8")
UInt16 = DType("uint16")
UInt32 = DType("uint32")
UInt64 = DType("uint64")
Float32 = DType("float32")
Float64 = DType("float64")
String = DType("string")
Bytes = DType("bytes")
Timestamp = DType("timestamp")


def List(element: DTypeLike) -> DType:  # noqa: N802 (a type is named like a type)
    """The type of a list of `element`s, which must not be lists themselves."""
    return DType(f"list<{as_dtype(element)}>")


_OF_PYTHON: dict[type, DType] = {
    bool: Bool,
    int: Int64,
    float: Float64,
    str: String,
    bytes: Bytes,
    dt.datetime: Timestamp,
}

type_of_python = _OF_PYTHON.get
DTypeLike = DType | str | type


def as_dtype(like: Any) -> DType:
    """A type from its name, from one of the constants of this module, or from a Python type (`float` is float64).

    Raises:
        UnknownNameError: `unknown_dtype`.
    """
    if isinstance(like, DType):
        return like
    if isinstance(like, str):
        return DType(like)
    if isinstance(like, type) and like in _OF_PYTHON:
        return _OF_PYTHON[like]
    raise make_error("unknown_dtype", f"{like!r} is not a type", _HINT)
