"""Functions over windows of time: the features of a view whose rows are events."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace.digests import digest_json
from headrace.dtypes import DType
from headrace.errors import DefinitionError, nearest_hint
from headrace.expression_nodes import for_plan

if TYPE_CHECKING:
    from headrace.definitions import Field
    from headrace.expressions import Expr

WindowKind = Literal["sawtooth", "tumbling", "hopping"]

FUNCTIONS = ("count", "sum", "mean", "var", "std", "min", "max", "first", "last", "last_K")
_LAST_K = re.compile(r"last_([1-9][0-9]*)")
_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us"))


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Functions of a column of events over windows: `Aggregation("delay", ["mean", "max"], [hour, week])`.

    It gives one feature for each function and window, named `delay_mean_1h`. A window at time t never contains an event
    of t itself. Null values are passed over. Over no events `count` and `sum` are 0 and the others null; a key that has
    never had an event is NOT_FOUND.

    Args:
        column: the column of the view's schema; only `count` may go without one, and counts events then.
        functions: "count", "sum", "mean", "var", "std" (of a sample), "min", "max", "first", "last", or "last_5": a
            list of the last 5, the newest first.
        windows: how far back to look.
        name: stands for the column in the features' names.
        where: only events for which this is true count; an expression over the view's columns.
        kind: "sawtooth" is exact at its head and rounded out to a hop at its tail; "tumbling" is the last complete
            window; "hopping" is a window that moves by hops.
        hop: by default 5 minutes for windows below 12 hours, an hour below 12 days, else a day.
    """

    column: str | None
    functions: str | Sequence[str]
    windows: dt.timedelta | Sequence[dt.timedelta]
    name: str | None = None
    where: Expr | None = None
    kind: WindowKind = "sawtooth"
    hop: dt.timedelta | None = None

    def features(self, owner: str, schema: Sequence[Field]) -> Iterator[tuple[str, DType, dict[str, Any]]]:
        """(name, type, plan JSON) of each feature.

        Args:
            owner: the view, for messages.
            schema: the columns of its events.

        Raises:
            DefinitionError: `invalid_definition`.
        """
        from headrace.definitions import duration_us

        column = self._column(owner, schema)
        functions = [self.functions] if isinstance(self.functions, str) else list(self.functions)
        windows = [self.windows] if isinstance(self.windows, dt.timedelta) else list(self.windows)
        if not functions or not windows:
            message = f"{owner}: the aggregation of {self.column!r} has no function or no window"
            raise DefinitionError("invalid_definition", message, "give at least one of each")
        for function in functions:
            for window in windows:
                window_us = duration_us(owner, "window", window)
                if not window_us:
                    message = f"{owner}: an aggregation has the window {window!r}"
                    raise DefinitionError("invalid_definition", message, "give a positive timedelta")
                parts = (self.name or self.column, function, window_text(window_us))
                json: dict[str, Any] = {
                    "name": "_".join(part for part in parts if part),
                    "column": self.column,
                    "window_us": window_us,
                    "kind": self.kind,
                    "hop_us": duration_us(owner, "hop", self.hop),
                    "where": None if self.where is None else for_plan(self.where.node),
                    **_function(owner, function),
                }
                yield json["name"], result_dtype(owner, function, column), json

    def _column(self, owner: str, schema: Sequence[Field]) -> DType | None:
        if self.column is None:
            return None
        for field in schema:
            if field.name == self.column:
                return field.dtype
        raise DefinitionError(
            "invalid_definition",
            f"{owner}: an aggregation is of the column '{self.column}', which its schema does not have",
            nearest_hint(self.column, [field.name for field in schema], "columns"),
        )


def _function(owner: str, function: str) -> dict[str, Any]:
    """The members of the plan's JSON that say what is computed."""
    if match := _LAST_K.fullmatch(function):
        return {"function": "last_k", "k": int(match[1])}
    if function not in FUNCTIONS[:-1]:
        message = f"{owner}: there is no function '{function}' for windows"
        raise DefinitionError("invalid_definition", message, nearest_hint(function, FUNCTIONS, "functions"))
    return {"function": function, "k": None}


def result_dtype(owner: str, function: str, column: DType | None) -> DType:
    """The type of a feature; what cannot be computed is refused by the engine, which knows why."""
    if function == "count":
        return DType("int64")
    if column is None:
        message = f"{owner}: '{function}' over windows names no column"
        raise DefinitionError("invalid_definition", message, "name the column; only count may go without")
    if function in ("mean", "var", "std"):
        return DType("float64")
    if function == "sum":
        return DType("float64" if column.is_float else "int64")
    return DType(f"list<{column}>") if _LAST_K.fullmatch(function) else column


def window_text(window_us: int) -> str:
    """A window as a part of a name: "90m", "1h", "7d"."""
    for unit_us, unit in _UNITS:
        if window_us % unit_us == 0:
            return f"{window_us // unit_us}{unit}"
    raise AssertionError("a microsecond divides every window")


def aggregates_digest(view: Mapping[str, Any]) -> str | None:
    """Names what a view of a plan document aggregates, and from what; None for a plain view."""
    if not view.get("aggregations"):
        return None
    columns = [[field["name"], field["dtype"]] for field in view["fields"]]
    return digest_json(json.dumps([columns, view["aggregations"]]))
