"""What a run found, in the form that the table, the plot and `--json` share."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

OPERATORS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Result:
    """One engine at one point.

    Attributes:
        case: what is done, such as `xgboost-500x8`.
        rows: rows or keys in one call.
        median_us: median over the repeats of each repeat's median call.
        p99_us: 99th percentile of all timed calls.
        rows_per_s: rows of one call over its median time.
    """

    engine: str
    version: str
    case: str
    rows: int
    median_us: float
    p99_us: float
    rows_per_s: float


@dataclass(frozen=True)
class Bar:
    """A figure that has to hold. `value` is `None` when what it needs was asked for and could not be measured."""

    name: str
    value: float | None
    target: float
    op: str

    @property
    def holds(self) -> bool:
        return self.value is not None and OPERATORS[self.op](self.value, self.target)

    def summary(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "holds": self.holds}


@dataclass(frozen=True)
class Measured:
    """The results of a run, by engine and point."""

    results: Sequence[Result]

    def find(self, engine: str, case: str, rows: int) -> Result | None:
        wanted = (engine, case, rows)
        return next((one for one in self.results if (one.engine, one.case, one.rows) == wanted), None)

    def median_us(self, engine: str, case: str, rows: int) -> float | None:
        """The median of an engine; of `a|b` the smaller of the two that were measured."""
        return self.figure("median_us", engine, case, rows)

    def figure(self, name: str, engine: str, case: str, rows: int) -> float | None:
        """A figure of an engine, such as `p99_us`; of `a|b` the better of the two that were measured."""
        found = [self.find(one, case, rows) for one in engine.split("|")]
        best = max if name == "rows_per_s" else min
        return best((getattr(one, name) for one in found if one is not None), default=None)


@dataclass(frozen=True)
class BarRule:
    """How a bar is computed: a figure of `engine`, or the ratio of this figure of `engine` and `to`.

    Attributes:
        engine: numerator; `a|b` is the faster of the two.
        to: denominator, or `None` for an absolute bar in `unit`.
        unit: what one unit is in microseconds, for an absolute bar on a time.
        figure: `median_us`, `p99_us` or `rows_per_s`.
        to_case: the denominator's case, where it is another one.
    """

    name: str
    target: float
    op: str
    case: str
    rows: int
    engine: str
    to: str | None = None
    unit_us: float = 1.0
    figure: str = "median_us"
    to_case: str | None = None

    @property
    def engines(self) -> set[str]:
        return set(self.engine.split("|")) | set((self.to or "").split("|")) - {""}

    def judge(self, measured: Measured) -> Bar:
        value = measured.figure(self.figure, self.engine, self.case, self.rows)
        if value is not None:
            if self.to is None:
                value /= self.unit_us
            else:
                below = measured.figure(self.figure, self.to, self.to_case or self.case, self.rows)
                value = None if below is None else value / below
        return Bar(self.name, value, self.target, self.op)

    def limit_us(self, measured: Measured, ours: str) -> float | None:
        """The median that our engine must reach for the bar to hold, in the time of this run."""
        if self.to is None:
            return self.target * self.unit_us
        peer_us = measured.median_us(self.to if self.engine == ours else self.engine, self.case, self.rows)
        if peer_us is None:
            return None
        return peer_us * self.target if self.engine == ours else peer_us / self.target


@dataclass
class Report:
    """A whole run of one area. `as_json` is the format of DESIGN's bench contract."""

    area: str
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(bar.holds for bar in self.bars)

    def as_json(self) -> dict[str, Any]:
        return {
            "area": self.area,
            "machine": self.machine,
            "results": [_rounded(dataclasses.asdict(result)) for result in self.results],
            "bars": [_rounded(bar.summary()) for bar in self.bars],
        }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Six significant digits: more than any timing has."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}
