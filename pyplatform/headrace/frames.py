"""Frames in, Arrow out: what users hand over (pyarrow, pandas, Polars, dicts) becomes columns of defined types.

Values are never changed silently: text is not a number, a number that would lose digits is refused. Times without a
zone
are UTC; every other zone is turned into UTC. NaN stays NaN. A pandas column of NumPy floats cannot tell NaN from null:
there NaN is null, as pandas reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.dtypes import DType
from headrace.errors import HeadraceError, make_error, nearest_hint

TIMESTAMP = pa.timestamp("us", tz="UTC")
_ARROW_TYPES = {
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
    "string": pa.string(),
    "bytes": pa.binary(),
    "timestamp": TIMESTAMP,
}


def arrow_type(dtype: DType) -> pa.DataType:
    """The Arrow type in which the engine takes values of a type."""
    element = _ARROW_TYPES[dtype.element]
    return pa.list_(element) if dtype.is_list else element


def to_table(frame: Any, place: str) -> pa.Table:
    """A frame as an Arrow table.

    Args:
        frame: a pyarrow Table, RecordBatch or reader, a pandas or Polars DataFrame, anything with `__arrow_c_stream__`,
            or a mapping from column names to sequences.
        place: what the frame is, for messages.

    Raises:
        InputError: `type_mismatch`, it is none of these, or a column holds values of several types.
    """
    try:
        if isinstance(frame, pa.Table):
            return frame
        if isinstance(frame, pa.RecordBatch):
            return pa.Table.from_batches([frame])
        if isinstance(frame, pa.RecordBatchReader):
            return frame.read_all()
        module, kind = type(frame).__module__.partition(".")[0], type(frame).__name__
        if module == "pandas" and kind == "DataFrame":
            return pa.Table.from_pandas(frame, preserve_index=False)
        if module == "polars" and kind == "LazyFrame":
            raise make_error("type_mismatch", f"{place} is a Polars LazyFrame", "call .collect() on it first")
        if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
            return pa.table(frame)
        if isinstance(frame, Mapping):
            return pa.table({name: _column(name, values) for name, values in frame.items()})
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, HeadraceError):
            raise
        raise make_error(
            "type_mismatch", f"{place}: {error}", "give each column values of one type and equal length"
        ) from error
    raise make_error(
        "type_mismatch",
        f"{place} is a {type(frame).__name__}",
        "give a pyarrow Table, a pandas or Polars DataFrame, or a dict of columns",
    )


def _column(name: str, values: Any) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise make_error("type_mismatch", f"column '{name}' is {values!r}", f"give a sequence: {{'{name}': [..]}}")
    try:
        return pa.array(values)
    except OverflowError:
        return pa.array(values, pa.uint64())


def take_columns(table: pa.Table, names: Sequence[str], place: str) -> pa.Table:
    """The columns of these names, in this order.

    Raises:
        InputError: `missing_column`, naming the place, what is missing and what there is.
    """
    found = table.column_names  # made anew each time it is asked for
    for name in names:
        count = found.count(name)
        if count == 0:
            raise make_error("missing_column", f"{place} has no column '{name}'", nearest_hint(name, found, "columns"))
        if count > 1:
            raise make_error(
                "invalid_argument", f"{place} has {count} columns named '{name}'", "rename or drop all but one"
            )
    return table.select(list(names))


def take_keys(table: pa.Table, keys: Sequence[str], place: str) -> pa.Table:
    """As `take_columns`, of join keys, which the error names."""
    found = table.column_names
    missing = [name for name in keys if name not in found]
    if missing:
        hint = f"give the join keys: {', '.join(keys)}; its columns: {', '.join(found) or 'none'}"
        raise make_error("missing_column", f"{place} has no column '{missing[0]}'", hint)
    return take_columns(table, keys, place)


def cast_column(column: pa.ChunkedArray, dtype: DType, place: str) -> pa.ChunkedArray:
    """A column as exactly a type of headrace.

    Args:
        column: any Arrow column.
        dtype: what it should be.
        place: the column and where it is, for messages.

    Raises:
        InputError: `type_mismatch`.
    """
    target = arrow_type(dtype)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type == target:
        return column
    if pa.types.is_null(column.type):
        return column.cast(target)
    if not len(column) and pa.types.is_floating(column.type):  # pandas makes an empty column one of floats
        return pa.chunked_array([], target)
    try:
        if dtype == "timestamp":
            return _timestamps(column, place)
        if not _may_become(column.type, dtype):
            raise make_error(
                "type_mismatch", f"{place} holds {column.type}, not {dtype}", _cast_hint(column.type, dtype)
            )
        # Fewer digits in a float32 are what its name promises; every other loss is refused.
        safe = not (dtype.element == "float32" and not dtype.is_list and pa.types.is_floating(column.type))
        return column.cast(target, safe=safe)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise make_error(
            "type_mismatch", f"{place} holds {column.type}, not {dtype}: {reason}", "correct the values"
        ) from error


def _may_become(source: Any, dtype: DType) -> bool:
    is_ = pa.types
    if dtype.is_list:
        if not (is_.is_list(source) or is_.is_large_list(source) or is_.is_fixed_size_list(source)):
            return False
        element = source.value_type
        return bool(is_.is_null(element)) or element == arrow_type(dtype.element) or _may_become(element, dtype.element)
    if dtype.is_integer:  # whole floats are what pandas makes of integers beside nulls
        checks = [is_.is_integer, is_.is_floating]
    elif dtype.is_float:
        checks = [is_.is_integer, is_.is_floating, is_.is_decimal]
    elif dtype == "string":
        checks = [is_.is_string, is_.is_large_string, is_.is_string_view]
    elif dtype == "bytes":
        checks = [is_.is_binary, is_.is_large_binary, is_.is_fixed_size_binary]
    else:
        checks = [is_.is_boolean] if dtype == "bool" else []
    return any(check(source) for check in checks)


def _cast_hint(source: pa.DataType, dtype: DType) -> str:
    if pa.types.is_string(source) or pa.types.is_large_string(source):
        return f"turn the text into {dtype} first"
    return f"give values of type {dtype}, or change the definition's dtype"


_HAS_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"


def _timestamps(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("ms")).cast(TIMESTAMP)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = column.cast(pa.string())
        zoned = pc.match_substring_regex(text, _HAS_ZONE)
        nothing = pa.scalar(None, pa.string())
        with_zone = pc.if_else(zoned, text, nothing).cast(TIMESTAMP)
        without = pc.if_else(zoned, nothing, text).cast(pa.timestamp("us"))
        return pc.coalesce(with_zone, without.cast(TIMESTAMP))
    if not pa.types.is_timestamp(kind):
        raise make_error(
            "type_mismatch",
            f"{place} holds {kind}, not timestamps",
            "give timestamps (of any zone; without one they are UTC), dates, or ISO 8601 text",
        )
    if kind.unit == "ns":
        return _floor_1000(column.cast(pa.int64())).cast(TIMESTAMP)
    return column.cast(pa.timestamp("us", tz=kind.tz or "UTC")).cast(TIMESTAMP)


def _floor_1000(nanoseconds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole microseconds, rounded towards the past: Arrow's own division rounds towards 1970."""
    quotient = pc.divide(nanoseconds, 1000)
    remainder = pc.subtract(nanoseconds, pc.multiply(quotient, 1000))
    return pc.subtract(quotient, pc.less(remainder, 0).cast(pa.int64()))
