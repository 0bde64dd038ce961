"""Loads: rows of a view's source into the online table, batch by batch, going on where an interrupted one stopped.

With each batch the log keeps, in the same atomic write, how many rows of the source are done and up to which event
time. A load of the same files and the same start passes over these rows: after `kill -9` nothing acknowledged is lost
and nothing is written twice. Files that changed, or another definition, start from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace import sources
from headrace.config import Config
from headrace.dead_letters import DeadLetters, refused_by_engine
from headrace.digests import digest_json
from headrace.online_store import OnlineStore, WriteCounts
from headrace.sources import EVENT_TS, ViewRows, between

Progress = Callable[[str, int], None]


@dataclass
class Done:
    """Which rows of a source are loaded: spans of rows in the source's order, each up to an event time.

    Attributes:
        of: the digest of what is being loaded.
        spans: (row number after the last, event time in microseconds from which on rows were left out).
    """

    of: str
    spans: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of_load(cls, recorded: Any, of: str) -> Done:
        """What an interrupted load has recorded, if it is one of the same."""
        if not isinstance(recorded, dict) or recorded.get("of") != of:
            return cls(of)
        return cls(of, [(int(row), int(end_us)) for row, end_us in recorded["spans"]])

    def split(self, first: int, count: int) -> Iterator[tuple[int, int, int | None]]:
        """Parts of the rows from `first` on: (number of the first, of the last + 1, event time up to which done)."""
        start, stop = first, first + count
        for row, end_us in self.spans:
            if start < row and start < stop:
                yield start, min(row, stop), end_us
                start = min(row, stop)
        if start < stop:
            yield start, stop, None

    def covers(self, row: int) -> bool:
        return any(row < last for last, _ in self.spans)

    def passed(self, row: int, end_us: int) -> dict[str, Any]:
        """The record to keep when the rows before `row` are loaded up to `end_us`."""
        return {"of": self.of, "spans": [(row, end_us), *(span for span in self.spans if span[0] > row)]}


class Refusals:
    """Counts what a load refuses, and keeps a sample."""

    def __init__(self, config: Config, view: ViewRows, origin: str, now_us: int, counts: WriteCounts) -> None:
        self.counts = counts
        self._view = view
        self._latest_us = now_us + round(config.online.max_future_skew_seconds * 1_000_000)
        settings = config.ingest
        folder = config.state / "dead-letter" / view.name
        self._letters = DeadLetters(
            folder, origin, now_us, settings.dead_letter_rows_max, settings.dead_letter_files_max
        )

    def add(self, reason: str, rows: pa.Table | Sequence[str], detail: str = "") -> None:
        """Rows that cannot come into the engine's shape."""
        self.counts.refuse(reason, len(rows))
        self._letters.add(reason, rows, detail)

    def write(
        self, store: OnlineStore, batch: pa.RecordBatch, now_us: int, progress: dict[str, Any] | None = None
    ) -> None:
        """Writes a batch; a sample of the rows that the engine refuses is kept."""
        before = sum(self.counts.refused.values())
        batch = self.without_erased(store, batch, now_us)
        store.write(self._view.name, batch, now_us, self.counts, progress=progress)
        if sum(self.counts.refused.values()) > before:
            found = refused_by_engine(batch, list(self._view.keys), EVENT_TS, self._latest_us)
            for reason, rows in found.items():
                self._letters.add(reason, pa.Table.from_batches([rows]))

    def without_erased(self, store: OnlineStore, batch: pa.RecordBatch, now_us: int) -> pa.RecordBatch:
        """The batch without rows of erased keys, which are counted and never kept."""
        if store.blocked is None:
            return batch
        from headrace.erase import ERASED, Blocked

        rest, removed = Blocked(store.blocked).without(self._view, batch, now_us)
        if removed:
            self.counts.refuse(ERASED, removed)
        return rest

    def keep(self) -> None:
        """Writes the sample to its file."""
        self._letters.flush()


def load_view(
    store: OnlineStore,
    view: ViewRows,
    config: Config,
    start_us: int | None,
    end_us: int,
    now_us: int,
    progress: Progress | None,
) -> WriteCounts:
    """Loads the rows of a view's file source from an event time (None: the beginning) until before another.

    Raises:
        InputError, UnknownNameError, StoreError: as `FeatureStore.materialize`.
    """
    counts = WriteCounts()
    if start_us is not None and start_us >= end_us:
        return counts
    root = config.sources_root
    done = Done.of_load(store.progress(view.name), _digest(view, config, start_us))
    refusals = Refusals(config, view, sources.place_of(view, root), now_us, counts)
    position = 0

    def refuse(reason: str, rows: pa.Table | Sequence[str], detail: str) -> None:
        if not done.covers(position):  # the interrupted load has counted it
            refusals.add(reason, rows, detail)

    try:
        for batch in sources.read_rows(view, root, now_us, refuse):
            for first, last, covered_us in done.split(position, batch.num_rows):
                part = batch.slice(first - position, last - first)
                chosen = _wanted(view, part, start_us, covered_us, end_us)
                if chosen.num_rows:
                    refusals.write(store, chosen, now_us, done.passed(last, end_us))
            position += batch.num_rows
            if progress is not None:
                progress(view.name, counts.rows)
    finally:
        refusals.keep()
    store.record_interval(view.name, None if view.is_static else start_us, end_us)
    return counts


def _wanted(
    view: ViewRows, batch: pa.RecordBatch, start_us: int | None, covered_us: int | None, end_us: int
) -> pa.RecordBatch:
    if covered_us is None:
        return batch if view.is_static else between(batch, start_us, end_us)
    if view.is_static or covered_us >= end_us:
        return batch.slice(0, 0)
    rest = between(batch, covered_us, end_us)
    return rest.filter(pc.is_valid(rest.column(EVENT_TS)))  # those without a time have been counted


def _digest(view: ViewRows, config: Config, start_us: int | None) -> str:
    """Names what is loaded: the definition, the files as they are, the start."""
    dtypes = {**view.keys, **view.fields}
    content = {
        "source": view.source,
        "columns": [[name, str(dtype)] for name, dtype in dtypes.items()],
        "start_us": start_us,
        "files": sources.fingerprint(view, config.sources_root),
    }
    return digest_json(json.dumps(content, default=str))
