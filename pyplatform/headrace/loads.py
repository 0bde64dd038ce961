"""Loads: rows of a view's source into the online table, batch by batch, going on where an interrupted one stopped.

With each batch the log keeps, in the same atomic write, how many rows of the source are done and up to which event
time. A load of the same files and the same start passes over these rows: after `kill -9` nothing acknowledged is lost
and nothing is written twice. Files that changed, or another definition, start from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import sources
from headrace.config import Config
from headrace.dead_letters import DeadLetters, refused_by_engine
from headrace.digests import digest_json
from headrace.history import ViewHistory, read_history
from headrace.online_store import OnlineStore, WriteCounts
from headrace.sources import EVENT_TS, UNKNOWN_US, ViewRows, accepted, between
from headrace.text_files import Refuse

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


class Intake:
    """Writes rows of a view, counts those that are refused, and keeps a sample of them."""

    def __init__(self, config: Config, view: ViewRows, origin: str, now_us: int) -> None:
        self.counts = WriteCounts()
        self._view = view
        self.skew_us = round(config.online.max_future_skew_seconds * 1_000_000)
        settings = config.ingest
        folder = config.state / "dead-letter" / view.name
        self._letters = DeadLetters(
            folder, origin, now_us, settings.dead_letter_rows_max, settings.dead_letter_files_max
        )

    def refuse(self, reason: str, rows: pa.Table | Sequence[str], detail: str = "") -> None:
        """Rows that cannot come into the engine's shape."""
        self.counts.refuse(reason, len(rows))
        self._letters.add(reason, rows, detail)

    def write(
        self,
        store: OnlineStore,
        batch: pa.RecordBatch,
        now_us: int,
        *,
        history: ViewHistory | None = None,
        progress: dict[str, Any] | None = None,
        resets: bool = False,
        described: bool = True,
    ) -> None:
        """Writes a batch: `OnlineStore.write` says how.

        Args:
            store: the writer.
            batch: rows in the engine's shape.
            now_us: the time of the write.
            history: where the accepted rows are kept for training too.
            progress: how far the load is that the rows belong to.
            resets: what the view has aggregated so far is forgotten.
            described: the rows count in the view's statistics.
        """
        rest = self._without_erased(store, batch, now_us)
        latest_us = now_us + self.skew_us
        keep = None
        if history is not None:

            def keep(sequence: int, all_accepted: bool) -> AbstractContextManager[None]:
                rows = pa.Table.from_batches([rest]) if all_accepted else accepted(self._view, rest, latest_us)
                return history.kept(rows, sequence, now_us)

        before = sum(self.counts.refused.values())
        name = self._view.name
        store.write(name, rest, now_us, self.counts, keep=keep, progress=progress, resets=resets, described=described)
        if sum(self.counts.refused.values()) > before:
            for reason, refused in refused_by_engine(rest, list(self._view.keys), EVENT_TS, latest_us).items():
                self._letters.add(reason, pa.Table.from_batches([refused]))

    def _without_erased(self, store: OnlineStore, batch: pa.RecordBatch, now_us: int) -> pa.RecordBatch:
        """The batch without rows of erased keys, which are counted and never kept."""
        if store.blocked is None:
            return batch
        from headrace.erase import ERASED, Blocked

        rest, removed = Blocked(store.blocked).without(self._view, batch, now_us)
        if removed:
            self.counts.refuse(ERASED, removed)
        return rest

    def add_told(self, refused: Mapping[str, int], letters: Iterable[tuple[str, str, str]]) -> None:
        """Rows that other processes have refused: how many, and reason, detail and text of some."""
        for reason, count in refused.items():
            self.counts.refuse(reason, count)
        for reason, detail, text in letters:
            self._letters.add(reason, [text], detail)

    def add_superseded(self, rows: int) -> None:
        """Rows that were not written because others of the same load are newer."""
        self.counts.rows += rows
        self.counts.stale += rows

    def keep_sample(self) -> None:
        """Writes the sample of refused rows to its file."""
        self._letters.flush()


def part_by_row(table: pa.Table, chosen: Collection[int]) -> tuple[pa.Table, pa.Table]:
    """The other rows of a table, and the chosen ones."""
    is_chosen = np.zeros(table.num_rows, dtype=bool)
    is_chosen[list(chosen)] = True
    return table.filter(pa.array(~is_chosen)), table.filter(pa.array(is_chosen))


def load_view(
    store: OnlineStore,
    view: ViewRows,
    config: Config,
    span: tuple[int | None, int],
    now_us: int,
    progress: Progress | None,
    resets: bool,
    on: str | None = None,
) -> WriteCounts:
    """Loads the rows of a view's source, or of a pushed view's history, into the online table.

    Args:
        store: the writer.
        view: the view.
        config: the project's settings.
        span: from which moment (None: the beginning) until before which; see `headrace.sources.between`.
        now_us: the time of the load.
        progress: called after each batch with the view's name and the rows so far.
        resets: what the view has aggregated so far is forgotten before.
        on: "ray" reads files on a Ray cluster; the history of a pushed view is read here.

    Raises:
        InputError, UnknownNameError, StoreError: as `FeatureStore.materialize`.
    """
    start_us, end_us = span
    if start_us is not None and start_us >= end_us:
        return WriteCounts()
    # Pushes and their retention change a history at any time: a load of it always begins anew.
    of = None if view.is_pushed or on is not None else _digest(view, config, start_us)
    interrupted = store.progress(view.name)
    done = Done("") if of is None else Done.of_load(interrupted, of)
    if view.is_windowed and not resets and interrupted is not None and not done.spans:
        # Some events of a load that cannot go on are in the table, and must not count twice: all are loaded again.
        spans = store.intervals(view.name)
        start_us, resets = (spans[0][0] if spans else None), True
        of = None if of is None else _digest(view, config, start_us)
        done = Done(of or "")
    place = f"the history of view '{view.name}'" if view.is_pushed else sources.place_of(view, config.sources_root)
    intake = Intake(config, view, place, now_us)
    resets = resets and not done.spans  # an interrupted load has begun with it

    def told() -> None:
        if progress is not None:
            progress(view.name, intake.counts.rows)

    load = Load(store, view, config, (start_us, end_us), now_us, resets, intake, told)
    try:
        if on is None or view.is_pushed:
            _load_here(load, of, done)
        else:
            from headrace.ray_backfill import load_on_ray

            load_on_ray(load)
    finally:
        intake.keep_sample()
    store.record_interval(view.name, None if view.is_static else start_us, end_us, view.aggregates)
    return intake.counts


@dataclass
class Load:
    """A load under way.

    Attributes:
        span: from which moment (None: the beginning) until before which.
        resets: the next accepted rows are the first after what the view has aggregated is forgotten.
        told: called after each batch.
    """

    store: OnlineStore
    view: ViewRows
    config: Config
    span: tuple[int | None, int]
    now_us: int
    resets: bool
    intake: Intake
    told: Callable[[], None]


def _load_here(load: Load, of: str | None, done: Done) -> None:
    """Reads the rows in their order and writes them as they come; `of` names the load if it could be gone on with."""
    view, intake, (start_us, end_us) = load.view, load.intake, load.span
    position = 0

    def refuse(reason: str, rows: pa.Table | Sequence[str], detail: str) -> None:
        if not done.covers(position):  # the interrupted load has counted it
            intake.refuse(reason, rows, detail)

    for batch in _rows(view, load.config, refuse):
        for first, last, covered_us in done.split(position, batch.num_rows):
            part = batch.slice(first - position, last - first)
            chosen = _wanted(view, part, (start_us, end_us), covered_us, load.now_us)
            if chosen.num_rows:
                noted = None if of is None else done.passed(last, end_us)
                intake.write(load.store, chosen, load.now_us, progress=noted, resets=load.resets)
                load.resets = load.resets and intake.counts.rows == sum(intake.counts.refused.values())
        position += batch.num_rows
        load.told()


def _rows(view: ViewRows, config: Config, refuse: Refuse) -> Iterator[pa.RecordBatch]:
    if view.is_pushed:
        return read_history(view, config.state / "history" / view.name)
    return sources.read_rows(view, config.sources_root, UNKNOWN_US, refuse)


def _wanted(
    view: ViewRows, batch: pa.RecordBatch, span: tuple[int | None, int], covered_us: int | None, now_us: int
) -> pa.RecordBatch:
    start_us, end_us = span
    if covered_us is None:
        return batch if view.is_static else between(view, batch, start_us, end_us, now_us)
    if view.is_static or covered_us >= end_us:
        return batch.slice(0, 0)
    rest = between(view, batch, covered_us, end_us, now_us)
    return rest.filter(pc.is_valid(rest.column(EVENT_TS)))  # those without a time have been counted


def _digest(view: ViewRows, config: Config, start_us: int | None) -> str:
    """Names what is loaded: the definition, the files as they are, the start."""
    dtypes = {**view.keys, **view.fields}
    content = {
        "source": view.source,
        "columns": [[name, str(dtype)] for name, dtype in dtypes.items()],
        "aggregates": view.aggregates,
        "start_us": start_us,
        "files": sources.fingerprint(view, config.sources_root),
    }
    return digest_json(json.dumps(content, default=str))
