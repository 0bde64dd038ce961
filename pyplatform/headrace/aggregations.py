"""Functions over windows of time: the features of a view whose rows are events."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from headrace.digests import digest_json
from headrace.dtypes import DType
from headrace.errors import DefinitionError, nearest_hint
from headrace.expression_nodes import for_plan

if TYPE_CHECKING:
    from headrace.definitions import Field
    from headrace.expressions import Expr

WindowKind = Literal["sawtooth", "tumbling", "hopping"]

FUNCTIONS = ("count", "count_distinct", "sum", "mean", "var", "std", "min", "max", "first", "last", "last_K", "pNN")
_PLAIN = FUNCTIONS[:-2]
_LAST_K = re.compile(r"last_([1-9][0-9]*)")
_QUANTILE = re.compile(r"p([0-9]+(?:\.[0-9]+)?)")
# What the plan calls the secondary keys themselves.
_GROUPS = "groups"
_LIMIT = 100
_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us"))


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Functions of a column of events over windows: `Aggregation("delay", ["mean", "max"], [hour, week])`.

    It gives one feature for each function and window, named `delay_mean_1h`. A window at time t never contains an event
    of t itself. Null values are passed over. Over no events `count`, `count_distinct` and `sum` are 0 and the others
    null; a key that has never had an event is NOT_FOUND.

    With `by`, each feature is a list with one value for each group of the window, named `amount_sum_by_offer_7d`; for
    each window the groups themselves are the feature `amount_offer_keys_7d`, in the same order, which is ascending.
    Over no events the lists are empty.

    Args:
        column: the column of the view's schema; only `count` may go without one, and counts events then.
        functions: "count", "sum", "mean", "var", "std" (of a sample), "min", "max", "first", "last"; "last_5": a list
            of the last 5, the newest first; "count_distinct": how many different values, exact up to 512 and with a
            standard error of 1.6 % from there on; "p50", "p99", "p99.9": the value below which so many percent lie,
            within 1/128 of the exact one (that of rank `floor(q * (count - 1))`).
        windows: how far back to look.
        name: stands for the column in the features' names.
        where: only events for which this is true count; an expression over the view's columns.
        kind: "sawtooth" is exact at its head and rounded out to a hop at its tail; "tumbling" is the last complete
            window; "hopping" is a window that moves by hops.
        hop: by default 5 minutes for windows below 12 hours, an hour below 12 days, else a day.
        by: a secondary key: the column of the schema by which a key's events are grouped. Events where it is null
            belong to no group.
        limit: the groups of a window that are given: the smallest, so that all paths give the same ones.
    """

    column: str | None
    functions: str | Sequence[str]
    windows: dt.timedelta | Sequence[dt.timedelta]
    name: str | None = None
    where: Expr | None = None
    kind: WindowKind = "sawtooth"
    hop: dt.timedelta | None = None
    by: str | None = None
    limit: int = _LIMIT

    def features(self, owner: str, schema: Sequence[Field]) -> Iterator[tuple[str, DType, dict[str, Any]]]:
        """(name, type, plan JSON) of each feature.

        Args:
            owner: the view, for messages.
            schema: the columns of its events.

        Raises:
            DefinitionError: `invalid_definition`.
        """
        from headrace.definitions import duration_us

        column = self._dtype_of(owner, schema, self.column)
        group = self._dtype_of(owner, schema, self.by)
        functions = [self.functions] if isinstance(self.functions, str) else list(self.functions)
        windows = [self.windows] if isinstance(self.windows, dt.timedelta) else list(self.windows)
        if not functions or not windows:
            message = f"{owner}: the aggregation of {self.column!r} has no function or no window"
            raise DefinitionError("invalid_definition", message, "give at least one of each")
        hop_us = duration_us(owner, "hop", self.hop)
        for function in [*functions, *([_GROUPS] if self.by else [])]:
            for window in windows:
                window_us = duration_us(owner, "window", window)
                if not window_us:
                    message = f"{owner}: an aggregation has the window {window!r}"
                    raise DefinitionError("invalid_definition", message, "give a positive timedelta")
                json: dict[str, Any] = {
                    "name": self._name(function, window_us),
                    "column": self.column,
                    "window_us": window_us,
                    "kind": self.kind,
                    "hop_us": hop_us,
                    "where": None if self.where is None else for_plan(self.where.node),
                    **_function(owner, function),
                    **({"by": {"column": self.by, "limit": self.limit}} if self.by else {}),
                }
                yield json["name"], result_dtype(owner, function, column, group), json

    def _name(self, function: str, window_us: int) -> str:
        of_function = [function.replace(".", "_"), *(["by", self.by] if self.by else [])]
        parts = [self.by, "keys"] if function == _GROUPS else of_function
        return "_".join(part for part in [self.name or self.column, *parts, window_text(window_us)] if part)

    def _dtype_of(self, owner: str, schema: Sequence[Field], column: str | None) -> DType | None:
        if column is None:
            return None
        for field in schema:
            if field.name == column:
                return field.dtype
        raise DefinitionError(
            "invalid_definition",
            f"{owner}: an aggregation is of the column '{column}', which its schema does not have",
            nearest_hint(column, [field.name for field in schema], "columns"),
        )


def _function(owner: str, function: str) -> dict[str, Any]:
    """The members of the plan's JSON that say what is computed."""
    if match := _LAST_K.fullmatch(function):
        return {"function": "last_k", "k": int(match[1])}
    if match := _QUANTILE.fullmatch(function):
        return {"function": "quantile", "k": None, "q": float(Decimal(match[1]) / 100)}
    if function not in _PLAIN and function != _GROUPS:
        message = f"{owner}: there is no function '{function}' for windows"
        raise DefinitionError("invalid_definition", message, nearest_hint(function, FUNCTIONS, "functions"))
    return {"function": function, "k": None}


def result_dtype(owner: str, function: str, column: DType | None, group: DType | None = None) -> DType:
    """The type of a feature; what cannot be computed is refused by the engine, which knows why.

    Args:
        owner: the view, for messages.
        function: as it is written in an `Aggregation`, or as the plan has it.
        column: the type of the column that is aggregated.
        group: the type of the secondary key where there is one: then the feature is a list.

    Raises:
        DefinitionError: `invalid_definition` for a function that needs a column and has none.
    """
    if group is not None:
        return DType(f"list<{group if function == _GROUPS else result_dtype(owner, function, column).element}>")
    if function == "count":
        return DType("int64")
    if column is None:
        message = f"{owner}: '{function}' over windows names no column"
        raise DefinitionError("invalid_definition", message, "name the column; only count may go without")
    if function == "count_distinct":
        return DType("int64")
    if function in ("mean", "var", "std", "quantile") or _QUANTILE.fullmatch(function):
        return DType("float64")
    if function == "sum":
        return DType("float64" if column.is_float else "int64")
    return DType(f"list<{column}>") if function == "last_k" or _LAST_K.fullmatch(function) else column


def planned_dtype(aggregation: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> DType:
    """The type of an aggregate of a plan document, of a view with these fields."""
    dtypes = {field["name"]: DType(field["dtype"]) for field in fields}
    by = aggregation.get("by")
    group = dtypes[by["column"]] if by else None
    return result_dtype(aggregation["name"], aggregation["function"], dtypes.get(aggregation["column"]), group)


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
