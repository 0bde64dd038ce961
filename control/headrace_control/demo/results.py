"""What the demo found, in the form that the table, the report and `--json` share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """How long calls took, in microseconds."""

    samples_us: list[float] = field(repr=False)

    @property
    def p50_us(self) -> float:
        return float(np.percentile(self.samples_us, 50))

    @property
    def p99_us(self) -> float:
        return float(np.percentile(self.samples_us, 99))

    def summary(self) -> dict[str, Any]:
        return {"calls": len(self.samples_us), "p50_us": round(self.p50_us, 2), "p99_us": round(self.p99_us, 2)}


@dataclass(frozen=True)
class Data:
    """The source files and the plan that was applied over them."""

    rows: dict[str, int]
    plan_digest: str
    features: int
    prepared: bool
    seconds: float


@dataclass(frozen=True)
class TrainingData:
    """The training set, as the point-in-time join made it."""

    rows: int
    joined_rows: int
    features: int
    views: int
    join_seconds: float
    parts: dict[str, int]


@dataclass(frozen=True)
class TrainedModel:
    """One model, its test scores, and how far the engine is from the library that trained it.

    Attributes:
        difference: largest distance of the engine's margin or score from the library's.
        bound: what `difference` may be at most, by the design.
    """

    name: str
    version: int
    library: str
    reused: bool
    seconds: float
    auc: float
    auc_validate: float
    test_scores: Floats = field(repr=False)
    importance: dict[str, float] = field(repr=False)
    digest: str = ""

    def summary(self) -> dict[str, Any]:
        hidden = ("test_scores", "importance")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in hidden}


@dataclass(frozen=True)
class Materialized:
    """What went into the online table, and what a new process found there.

    Attributes:
        rows: rows of each view's source that were written.
        keys: keys in each table afterwards, named by the join keys.
        reopened_keys: the same, as a new process found them.
    """

    rows: dict[str, int]
    keys: dict[str, int]
    seconds: float
    reopened_keys: dict[str, int]
    reopened_seconds: float


@dataclass(frozen=True)
class Served:
    """Measured calls: one flight each, a different one each time."""

    embedded: Latency
    http: Latency
    inference: Latency
    requests_per_s: float
    connections: int
    same_answers: int


@dataclass(frozen=True)
class ModelProof:
    """The engine beside the training library on the same rows, in units in the last place."""

    model: str
    rows: int
    margin_ulp: int
    margin_ulp_bound: int
    score_ulp: int
    score_ulp_bound: int
    largest_difference: float

    @property
    def holds(self) -> bool:
        return self.margin_ulp <= self.margin_ulp_bound and self.score_ulp <= self.score_ulp_bound


@dataclass(frozen=True)
class Proof:
    """Online reads beside the offline join, value by value."""

    flights: int
    values: int
    events: int
    differing_values: int
    differing_statuses: int
    seconds: float
    models: list[ModelProof]

    @property
    def holds(self) -> bool:
        return not self.differing_values and not self.differing_statuses and all(model.holds for model in self.models)


@dataclass(frozen=True)
class Results:
    """All of it."""

    project: Path
    data: Data
    training: TrainingData
    baselines: dict[str, float]
    models: list[TrainedModel]
    test_labels: NDArray[np.bool_] = field(repr=False)
    baseline_scores: Floats = field(repr=False)
    materialized: Materialized
    served: Served
    proof: Proof
    seconds: float

    def summary(self) -> dict[str, Any]:
        """All figures without the samples behind them."""
        return {
            "project": str(self.project),
            "data": dataclasses.asdict(self.data),
            "training_set": dataclasses.asdict(self.training),
            "baselines": self.baselines,
            "models": [model.summary() for model in self.models],
            "materialized": dataclasses.asdict(self.materialized),
            "served": {
                "embedded": self.served.embedded.summary(),
                "http": self.served.http.summary(),
                "inference": self.served.inference.summary(),
                "requests_per_s": round(self.served.requests_per_s),
                "connections": self.served.connections,
                "same_answers": self.served.same_answers,
            },
            "proof": {
                **dataclasses.asdict(self.proof),
                "models": [{**dataclasses.asdict(model), "holds": model.holds} for model in self.proof.models],
                "holds": self.proof.holds,
            },
            "seconds": round(self.seconds, 1),
        }
