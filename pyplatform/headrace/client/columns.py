"""Columns of a request, from what callers have: lists, NumPy arrays, frames of pandas, Polars or Arrow."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.errors import make_error

Columns = Mapping[str, Any]
"""Name -> values, or a frame."""

Mapped = dict[str, list[Any]]
"""Name -> values of None, bool, int, float, str, bytes, datetime and lists of these only."""

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def plain_columns(what: str, given: Any) -> Mapped:
    """The columns as lists of plain values.

    Raises:
        InputError: `type_mismatch`.
    """
    if given is None:
        return {}
    return {str(name): plain_values(f"{what}[{name!r}]", values) for name, values in columns_of(what, given)}


def columns_of(what: str, given: Any) -> Iterable[tuple[Any, Any]]:
    """Name and values of each column."""
    if isinstance(given, Mapping):
        return given.items()
    if hasattr(given, "column_names") and hasattr(given, "column"):  # Arrow
        return [(name, given.column(name).to_pylist()) for name in given.column_names]
    if hasattr(given, "columns") and hasattr(given, "__getitem__"):  # pandas and Polars
        return [(name, given[name].to_list()) for name in given.columns]
    raise make_error(
        "type_mismatch", f"{what} is {type(given).__name__}, not columns", "give a dict of lists, or a frame"
    )


def plain_values(what: str, values: Any) -> list[Any]:
    """One column's values.

    Raises:
        InputError: `type_mismatch`.
    """
    if isinstance(values, np.ndarray):
        if values.ndim not in (1, 2):
            raise make_error(
                "type_mismatch", f"{what} has {values.ndim} dimensions", "give a value or list for each row"
            )
        if values.dtype.kind == "M" and values.ndim == 1:
            return [
                None if np.isnat(time) else EPOCH + dt.timedelta(microseconds=int(us))
                for time, us in zip(values, values.astype("datetime64[us]").astype(np.int64), strict=True)
            ]
        values = values.tolist()
    elif hasattr(values, "to_list") and not isinstance(values, Sequence):  # a series
        values = values.to_list()
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise make_error("type_mismatch", f"{what} is {values!r:.100}, not a list", "give one value for each row")
    return [plain_value(what, value) for value in values]


def plain_value(what: str, value: Any) -> Any:
    if value is None or type(value) in (bool, int, str, bytes):
        return value
    if isinstance(value, str):  # NumPy's texts are of subclasses
        return str(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, np.generic):
        return plain_value(what, value.item())
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, dt.datetime):
        if value != value:  # pandas' NaT
            return None
        since = (value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value) - EPOCH
        return EPOCH + dt.timedelta(since.days, since.seconds, since.microseconds)  # no longer pandas' own type
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_item(what, item) for item in value]
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' missing values, which is not imported for them
        return None
    raise make_error(
        "type_mismatch", f"{what} holds {value!r:.100}", "give numbers, texts, bytes, bools, datetimes, lists, None"
    )


def plain_item(what: str, item: Any) -> Any:
    """A value of a list, which is no list."""
    if isinstance(item, list | tuple | np.ndarray):
        raise make_error("type_mismatch", f"{what} holds lists of lists", "give a list of values for each row")
    return plain_value(what, item)


def time_text(time: dt.datetime) -> str:
    """RFC 3339, in UTC."""
    return time.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def time_us(time: dt.datetime) -> int:
    """Microseconds since 1970."""
    return (time - EPOCH) // dt.timedelta(microseconds=1)


def told_time(us: int) -> str:
    """As the server writes a timestamp in JSON: no more digits of a second than it needs, in threes."""
    time = (EPOCH + dt.timedelta(microseconds=us)).replace(tzinfo=None)
    digits = "seconds" if us % 1_000_000 == 0 else "milliseconds" if us % 1000 == 0 else "microseconds"
    return time.isoformat(timespec=digits) + "Z"


def json_value(value: Any) -> Any:
    """What JSON has no form for, for `json.dumps`."""
    if isinstance(value, dt.datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def told_number(value: float) -> float | None:
    """A number as JSON tells it, which has none that are not finite."""
    return value if math.isfinite(value) else None
