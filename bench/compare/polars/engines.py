"""Polars, the expression library whose manner of writing ours follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from engine import Call, Engine, package
from expressions import BOUNDARIES, DTYPES, EARTH_KM, HOME, RISK, RISK_ELSEWHERE, TURN, ZONE, matrix
from headrace_engines import HeadraceExpressions
from inputs import Array, ExpressionInputs, Inputs


class Polars(Engine):
    """`DataFrame.select` of the twelve features."""

    wants = "rows"
    note = "DataFrame.select of a slice; POLARS_MAX_THREADS=1; its optimiser shares common parts"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, ExpressionInputs)
        polars = package("polars")
        self.version = polars.__version__
        self.frame = polars.DataFrame(inputs.columns).with_columns(
            *(
                polars.col(name).cast(polars.Datetime("us", "UTC"))
                for name, kind in DTYPES.items()
                if kind == "timestamp"
            )
        )
        self.features = features(polars)

    def caller(self, rows: int) -> Call:
        frame, wanted = self.frame, self.features
        return lambda asked: frame.slice(asked[0], len(asked)).select(wanted)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(matrix(self.caller(rows)(asked).to_dict(as_series=False)))  # type: ignore[attr-defined]


def features(pl: Any) -> list[Any]:
    """The features as expressions of Polars."""
    amount, at = pl.col("amount"), pl.col("at")
    country = pl.col("country").str.strip_chars().str.to_lowercase()
    degree = np.pi / 180
    start, end = pl.col("lat") * degree, pl.col("to_lat") * degree
    across = (pl.col("to_lon") - pl.col("lon")) * degree
    chord = ((end - start) / 2).sin() ** 2 + start.cos() * end.cos() * (across / 2).sin() ** 2
    ages = pl.lit(pl.Series(BOUNDARIES))
    wanted = {
        "log_amount": amount.fill_null(0.0).log1p(),
        "hour_sin": (at.dt.hour() * TURN).sin(),
        "hour_cos": (at.dt.hour() * TURN).cos(),
        "distance": 2 * EARTH_KM * chord.clip(upper_bound=1.0).sqrt().arcsin(),
        "age_bucket": ages.search_sorted(pl.col("age").cast(pl.Float64), side="right"),
        "per_item": amount / (pl.col("count") + 1),
        "is_weekend": at.dt.convert_time_zone(ZONE).dt.weekday() >= 6,
        "is_home": country.is_in(HOME),
        "tier": pl.when(amount.is_null())
        .then(None)
        .when(amount > 1000.0)
        .then(3)
        .when(amount > 100.0)
        .then(2)
        .otherwise(1),
        "scaled": ((amount - 80.0) / 120.0).clip(-3.0, 3.0),
        "days_known": (at - pl.col("since")).dt.total_microseconds() / 86_400_000_000,
        "risk": country.replace_strict(RISK, default=RISK_ELSEWHERE),
    }
    return [feature.alias(name) for name, feature in wanted.items()]


ENGINES: dict[str, type[Engine]] = {"headrace": HeadraceExpressions, "polars": Polars}
JOBS: dict[str, Any] = {}
