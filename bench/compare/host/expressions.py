"""The expression area: columns made from a seed, and the twelve features as each engine's users would write them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ZONE = "America/New_York"
BOUNDARIES = [18.0, 25.0, 35.0, 50.0, 65.0]
HOME = ["us", "ca", "gb", "de"]
RISK = {"us": 0.1, "ca": 0.15, "gb": 0.2, "de": 0.25, "fr": 0.3, "br": 0.5, "in": 0.45, "jp": 0.05}
RISK_ELSEWHERE = 0.6
COUNTRIES = ["US", " us", "ca ", "GB", "De", "fr", "br", "in", "jp", "se", "NO ", "pl"]
EARTH_KM = 6371.0088
TURN = 2 * math.pi / 24

DTYPES = {
    "amount": "float64",
    "count": "int64",
    "age": "int64",
    "lat": "float64",
    "lon": "float64",
    "to_lat": "float64",
    "to_lon": "float64",
    "at": "timestamp",
    "since": "timestamp",
    "country": "string",
}
"""The input columns. One amount in twenty is null."""

FEATURES = {
    "log_amount": "float64",
    "hour_sin": "float64",
    "hour_cos": "float64",
    "distance": "float64",
    "age_bucket": "int64",
    "per_item": "float64",
    "is_weekend": "bool",
    "is_home": "bool",
    "tier": "int64",
    "scaled": "float64",
    "days_known": "float64",
    "risk": "float64",
}


def columns(rows: int, seed: int) -> dict[str, Any]:
    """Numpy arrays, times as int64 microseconds, and lists where there are nulls or strings."""
    rng = np.random.default_rng([seed, 4])
    amounts = rng.lognormal(4.0, 1.5, rows)
    is_null = rng.random(rows) < 0.05
    at = rng.integers(1_600_000_000, 1_700_000_000, rows) * 1_000_000
    return {
        "amount": [None if null else float(amount) for amount, null in zip(amounts, is_null, strict=True)],
        "count": rng.integers(0, 20, rows),
        "age": rng.integers(0, 100, rows),
        "lat": rng.uniform(-60, 60, rows),
        "lon": rng.uniform(-180, 180, rows),
        "to_lat": rng.uniform(-60, 60, rows),
        "to_lon": rng.uniform(-180, 180, rows),
        "at": at,
        "since": at - rng.integers(0, 10**9, rows) * 1_000,
        "country": [COUNTRIES[index] for index in rng.integers(0, len(COUNTRIES), rows)],
    }


def headrace_features() -> dict[str, Any]:
    """The features as expressions of headrace."""
    from headrace import col, haversine, when

    amount, at = col("amount"), col("at")
    country = col("country").str.strip().str.lower()
    return {
        "log_amount": amount.fill_null(0.0).log1p(),
        "hour_sin": (at.dt.hour() * TURN).sin(),
        "hour_cos": (at.dt.hour() * TURN).cos(),
        "distance": haversine(col("lat"), col("lon"), col("to_lat"), col("to_lon")),
        "age_bucket": col("age").bucketize(BOUNDARIES),
        "per_item": amount / (col("count") + 1),
        "is_weekend": at.dt.day_of_week(ZONE) >= 5,
        "is_home": country.is_in(HOME),
        "tier": when(amount > 1000.0).then(3).when(amount > 100.0).then(2).otherwise(1),
        "scaled": ((amount - 80.0) / 120.0).clip(-3.0, 3.0),
        "days_known": (at - col("since")) / 86_400_000_000,
        "risk": country.lookup(RISK, default=RISK_ELSEWHERE),
    }


def matrix(values: dict[str, list[Any]]) -> Any:
    """The features of some rows as float64 [rows, features]; null as -1."""
    filled = [[-1.0 if value is None else float(value) for value in values[name]] for name in FEATURES]
    return np.array(filled).T
