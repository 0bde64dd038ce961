"""The figures between two samples of a server: rates, shares, and quantiles of what happened in that time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace_control.top.prometheus import Sample

PHASES = ("read", "decode", "queue", "lookup", "transform", "model", "encode", "total")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
REFUSALS = ("full", "late")


@dataclass(frozen=True)
class Histogram:
    """Counts of values below rising bounds, the last of which is infinite."""

    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    """Values below each bound, those below the bounds before it included."""

    @classmethod
    def of(cls, buckets: Iterable[tuple[Mapping[str, str], float]]) -> Histogram:
        found = sorted((float(labels["le"]), count) for labels, count in buckets if "le" in labels)
        return cls(tuple(bound for bound, _ in found), tuple(count for _, count in found))

    def since(self, before: Histogram) -> Histogram:
        """What was counted after an earlier look; all of it where the server has begun again."""
        if before.bounds != self.bounds or any(
            now < then for now, then in zip(self.counts, before.counts, strict=True)
        ):
            return self
        return Histogram(self.bounds, tuple(now - then for now, then in zip(self.counts, before.counts, strict=True)))

    @property
    def count(self) -> float:
        return self.counts[-1] if self.counts else 0.0

    def quantile(self, quantile: float) -> float | None:
        """The value below which that share lies, as if a bucket's values lay evenly in it: at most a bucket wrong. None
        without values; the last finite bound where it lies above.
        """
        if self.count == 0:
            return None
        rank = quantile * self.count
        begin, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank and count > below:
                return (
                    begin if math.isinf(bound) else begin + (bound - begin) * max(rank - below, 0.0) / (count - below)
                )
            begin, below = bound, count
        return begin


@dataclass(frozen=True)
class ModelFigures:
    """A model version between two samples. Times are in seconds; what nothing is known of is None."""

    model: str
    version: str
    ready: bool
    requests_per_second: float
    errors_per_second: float
    refused_per_second: float
    queue_length: float
    batch_rows: float | None
    """Rows of a call of the model, on average."""
    cpu_seconds_per_request: float | None
    quantiles: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Phase -> quantile -> seconds."""


@dataclass(frozen=True)
class ServerFigures:
    """A server between two samples. Rates are by the second."""

    url: str
    error: str | None = None
    totals: dict[str, float] = field(default_factory=dict)
    models: list[ModelFigures] = field(default_factory=list)


def figures_between(before: Sample, now: Sample) -> ServerFigures:
    """The figures of a server that was asked twice."""
    if now.error is not None or before.error is not None:
        return ServerFigures(now.url, now.error or before.error)
    seconds = max(now.at - before.at, 1e-9)

    def grown(name: str, **labels: str) -> float:
        """How much a counter has grown; from 0 where the server has begun again."""
        then, later = before.total(name, **labels), now.total(name, **labels)
        return later - then if later >= then else later

    requests = grown("headrace_http_requests_total") + grown("headrace_grpc_requests_total")
    totals = {
        "requests_per_second": requests / seconds,
        "cpu_cores": grown("process_cpu_seconds_total") / seconds,
        "connections": now.total("headrace_http_connections"),
        "requests_in_flight": now.total("headrace_http_requests_in_flight"),
        "refused_connections_per_second": grown("headrace_http_connections_refused_total") / seconds,
        "panics_per_second": grown("headrace_http_panics_total") / seconds,
        "resident_memory_bytes": now.total("process_resident_memory_bytes"),
        "request_memory_bytes": now.total("headrace_http_memory_bytes"),
        "threads": now.total("process_threads"),
        "open_files": now.total("process_open_fds"),
        "online_keys": now.total("headrace_online_table_keys"),
        "online_bytes": now.total("headrace_online_table_bytes"),
        "traces_dropped_per_second": (
            grown("headrace_traces_requests_total", outcome="dropped_full")
            + grown("headrace_traces_requests_total", outcome="dropped_failed")
        )
        / seconds,
    }
    models = [_model(before, now, labels, bool(ready), seconds) for labels, ready in now.series("headrace_model_ready")]
    return ServerFigures(now.url, None, totals, models)


def _model(before: Sample, now: Sample, labels: Mapping[str, str], ready: bool, seconds: float) -> ModelFigures:
    one = {"model": labels.get("model", ""), "version": labels.get("version", "")}

    def grown(name: str, **more: str) -> float:
        then, later = before.total(name, **one, **more), now.total(name, **one, **more)
        return later - then if later >= then else later

    answered = grown("headrace_predict_requests_total", outcome="ok")
    calls = grown("headrace_model_calls_total")
    refused = sum(grown("headrace_queue_refused_requests_total", reason=reason) for reason in REFUSALS)
    quantiles = {}
    for phase in PHASES:
        name = "headrace_predict_phase_seconds_bucket"
        histogram = Histogram.of(now.series(name, **one, phase=phase))
        recent = histogram.since(Histogram.of(before.series(name, **one, phase=phase)))
        quantiles[phase] = {label: recent.quantile(share) for label, share in QUANTILES.items()}
    return ModelFigures(
        **one,
        ready=ready,
        requests_per_second=answered / seconds,
        errors_per_second=grown("headrace_predict_requests_total", outcome="error") / seconds,
        refused_per_second=refused / seconds,
        queue_length=now.total("headrace_queue_waiting_requests", **one),
        batch_rows=grown("headrace_predict_rows_total") / calls if calls else None,
        cpu_seconds_per_request=grown("headrace_predict_cost_seconds_total") / answered if answered else None,
        quantiles=quantiles,
    )
