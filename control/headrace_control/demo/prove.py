"""Proof that serving sees what training saw: one pass through time over a fresh online table, beside the offline join.

Events are written in the order in which they became known; before each read, all that was known by then and no more.
What the online table answers is then compared, bit by bit, with what the point-in-time join gives for the same moments.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace import FeatureStore, Model
from headrace.config import OnlineSection
from headrace.online_store import OnlineStore, WriteCounts
from headrace.sources import BATCH_ROWS_MAX, ViewRows, read_rows
from headrace_control.demo.results import ModelProof, Proof
from headrace_control.progress import Progress
from headrace_control.training import fit
from headrace_control.training.config import DatasetConfig
from headrace_control.training.fit import Floats, Matrix
from headrace_control.training.register import ModelVersion

CREATED_TS = "__created_ts"
STATUS = "__status"
# Units in the last place, by the design: margins, then scores, in the type in which the library computes them.
BOUNDS: dict[str, tuple[type[np.floating[Any]], int, int]] = {
    "xgboost": (np.float32, 0, 1),
    "lightgbm": (np.float64, 0, 2),
}


@dataclass
class Events:
    """The rows of one view in the order in which they became known; `written` of them are in the table."""

    view: str
    rows: pa.RecordBatch
    known_us: NDArray[np.int64]
    written: int = 0

    def until(self, now_us: int) -> Iterator[pa.RecordBatch]:
        """The rows that became known since the last call, up to and including `now_us`."""
        end = int(np.searchsorted(self.known_us, now_us, side="right"))
        while self.written < end:
            count = min(end - self.written, BATCH_ROWS_MAX)
            yield self.rows.slice(self.written, count)
            self.written += count


def read_events(store: FeatureStore, service: str) -> list[Events]:
    """All source rows of the views that a service reads."""
    plan = json.loads(store.applied.json)
    found = []
    for name in json.loads(store.applied.service(service))["views"]:
        view = ViewRows(plan, name)
        batches = list(read_rows(view, store.config.sources_root, store.now_us()))
        table = pa.Table.from_batches(batches, schema=view.schema()).combine_chunks()
        if view.is_static:
            known = np.full(table.num_rows, np.iinfo(np.int64).min)
        else:
            table = table.take(pc.sort_indices(table, sort_keys=[(CREATED_TS, "ascending")])).combine_chunks()
            known = table[CREATED_TS].cast(pa.int64()).to_numpy()
        found.append(Events(name, table.to_batches()[0], known))
    return found


def prove_features(
    store: FeatureStore, dataset: DatasetConfig, examples: pa.Table, progress: Progress
) -> tuple[int, int, int, pa.Table]:
    """Reads each example's features online at its time and offline, and counts what differs.

    Args:
        store: the project.
        dataset: its service and the column of the read times.
        examples: entity rows in the order of their read times.
        progress: called with (rows read, None).

    Returns:
        (events written, values that differ, statuses that differ, the offline rows)
    """
    offline = store.get_historical_features(
        dataset.service, examples, event_ts_column=dataset.event_time, as_known_at=True, statuses=True
    )
    with (
        tempfile.TemporaryDirectory(prefix="headrace-proof-") as folder,
        OnlineStore(Path(folder), store.applied, OnlineSection(), writable=True) as table,
    ):
        events, online = replay(table, store, dataset, examples, progress)
    names = list(online["features"])
    values = sum(differing(online["features"][name], offline[name]) for name in names)
    statuses = sum(differing(online["statuses"][name], offline[name + STATUS]) for name in names)
    return events, values, statuses, offline


def replay(
    table: OnlineStore, store: FeatureStore, dataset: DatasetConfig, examples: pa.Table, progress: Progress
) -> tuple[int, dict[str, dict[str, list[Any]]]]:
    """One pass through time: writes what has become known, then reads; gives the events and what was read."""
    shape = json.loads(store.applied.service(dataset.service))
    keys = [field["name"] for field in shape["join_keys"]]
    request = [field["name"] for field in shape["request_fields"]]
    columns = {name: examples[name].to_pylist() for name in [*keys, *request]}
    times = examples[dataset.event_time].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    starts = np.flatnonzero(np.append(True, np.diff(times) != 0))
    ends = np.append(starts[1:], len(times))
    views = read_events(store, dataset.service)
    plan = table.local.online_plan(dataset.service)
    counts = WriteCounts()
    found: dict[str, dict[str, list[Any]]] = {"features": {}, "statuses": {}}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        now_us = int(times[start])
        for view in views:
            for batch in view.until(now_us):
                table.write(view.view, batch, now_us, counts)
        answer = plan.read(
            {name: columns[name][start:end] for name in keys},
            {name: columns[name][start:end] for name in request},
            now_us=now_us,
        )
        for kind, by_name in found.items():
            for name, values in answer[kind].items():
                by_name.setdefault(name, []).extend(values)
        progress(end, None)
    return counts.rows, found


def differing(online: list[Any], offline: pa.ChunkedArray) -> int:
    """How many values are not the same, bit for bit; null equals null."""
    ours = pa.array(online, type=offline.type)
    theirs = pa.concat_arrays(offline.chunks) if offline.num_chunks else pa.array([], offline.type)
    unlike = ours.is_valid().to_numpy(zero_copy_only=False) != theirs.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(offline.type):
        width = offline.type.bit_width
        bits = [part.fill_null(0.0).to_numpy(zero_copy_only=False).view(f"i{width // 8}") for part in (ours, theirs)]
        return int((unlike | (bits[0] != bits[1])).sum())
    equal = pc.fill_null(pc.equal(ours, theirs), True).to_numpy(zero_copy_only=False)
    return int((unlike | ~equal).sum())


def prove_model(version: ModelVersion, rows: Matrix, threads: int) -> ModelProof:
    """The engine's margins and scores beside those of the library that trained the model."""
    manifest = version.manifest
    library = manifest["trainer"]["library"]
    kind, margin_bound, score_bound = BOUNDS[library]
    referee = fit.load(library, version.model_file, threads)
    engine = Model.open(version.folder)
    margins = (one_column(engine.margins(rows)), referee.margins(rows))
    scores = (one_column(engine.scores(rows)), referee.scores(rows))
    largest = max(float(np.abs(ours.astype(np.float64) - theirs).max()) for ours, theirs in (margins, scores))
    return ModelProof(
        model=version.name,
        rows=len(rows),
        margin_ulp=ulp_distance(*margins, kind),
        margin_ulp_bound=margin_bound,
        score_ulp=ulp_distance(*scores, kind),
        score_ulp_bound=score_bound,
        largest_difference=largest,
    )


def one_column(values: Any) -> Floats:
    """The last output of each row: the positive class of two, or the only one."""
    array = np.asarray(values)
    return array if array.ndim == 1 else array[:, -1]


def ulp_distance(ours: Floats, theirs: Floats, kind: type[np.floating[Any]]) -> int:
    """The largest distance of two arrays, in representable numbers of a type."""
    steps = []
    for values in (ours, theirs):
        bits = np.asarray(values, dtype=kind).view(np.int32 if kind is np.float32 else np.int64).astype(np.int64)
        lowest = np.iinfo(np.int32 if kind is np.float32 else np.int64).min
        steps.append(np.where(bits < 0, lowest - bits, bits))
    return int(np.abs(steps[0] - steps[1]).max(initial=0))


def conclude(
    events: int, values: int, statuses: int, offline: pa.Table, features: int, models: list[ModelProof], start: float
) -> Proof:
    return Proof(
        flights=offline.num_rows,
        values=offline.num_rows * features,
        events=events,
        differing_values=values,
        differing_statuses=statuses,
        seconds=time.perf_counter() - start,
        models=models,
    )
