"""A backfill in parts: rows of a view's source, read part by part, cut by the hash of their key, and reduced to what
the online table would keep of them.

Of a plain view that is the newest row of each key. Of a view of aggregates it is the events that a window may still
reach, in their order, and for each key the time of the oldest of the others: since then the key is known. So the table
answers as if it had been given all rows one after the other.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import _native
from headrace.dead_letters import as_texts, refused_by_engine
from headrace.erase import ERASED, Blocked
from headrace.frames import TIMESTAMP
from headrace.historical import in_chunks
from headrace.sources import CREATED_TS, EVENT_TS, UNKNOWN_US, AsOf, Part, ViewRows, accepted, between, read_rows

CHUNK_ROWS = 1 << 20
CHUNK_BYTES = 128_000_000
_RANK = "__rank"


@dataclass(frozen=True)
class Backfill:
    """What is loaded, in a form that goes to other processes.

    Attributes:
        document: of the plan, the view and the entities.
        view: its name.
        as_of: the version of a Delta table.
        start_us: rows of an earlier moment are left out; None is none.
        end_us: rows from this moment on are left out; see `headrace.sources.between`.
        now_us: the time of the load.
        latest_us: rows with a later event time are refused.
        blocked: the erased keys, see `OnlineStore.blocked`.
        letters_max: of the rows that are refused for one reason, so many are told.
        describes: whether the rows are to be described (`headrace.statistics`).
        count: in how many partitions the rows are cut.
    """

    document: dict[str, Any]
    view: str
    sources_root: str
    as_of: AsOf
    start_us: int | None
    end_us: int
    now_us: int
    latest_us: int
    blocked: Any
    letters_max: int
    describes: bool
    count: int

    @property
    def rows(self) -> ViewRows:
        return ViewRows(self.document, self.view)

    @property
    def partitions(self) -> int:
        """Rows of a view without join keys cannot be cut."""
        return self.count if self.rows.keys else 1

    @property
    def window_us_max(self) -> int:
        """The longest window of a view of aggregates."""
        aggregations = self.document["views"][self.view]["aggregations"]
        return max(int(aggregation["window_us"]) for aggregation in aggregations)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass
class PartReport:
    """What became of the rows of a part.

    Attributes:
        letters_max: of the rows that are refused for one reason, so many are told.
        accepted: rows that the table takes.
        refused: reason -> other rows.
        letters: reason, detail and text of refused rows.
        profile: the statistics of the rows, if they are described.
    """

    letters_max: int
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    letters: list[tuple[str, str, str]] = field(default_factory=list)
    profile: _native.Profile | None = None

    def refuse(self, reason: str, rows: pa.Table | Sequence[str], detail: str) -> None:
        before = self.refused.get(reason, 0)
        self.refused[reason] = before + len(rows)
        room = max(self.letters_max - before, 0)
        self.letters += [(reason, detail, text) for text in as_texts(rows, room)]

    def to_json(self) -> str:
        profile = None if self.profile is None else base64.b64encode(self.profile.to_bytes()).decode()
        told = {"accepted": self.accepted, "refused": self.refused, "letters": self.letters, "profile": profile}
        return json.dumps(told)

    def add(self, text: str) -> None:
        """Adds what a later part has told."""
        told: dict[str, Any] = json.loads(text)
        self.accepted += told["accepted"]
        for reason, count in told["refused"].items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        kept = Counter(reason for reason, _, _ in self.letters)
        for reason, detail, row in told["letters"]:
            kept[reason] += 1
            if kept[reason] <= self.letters_max:
                self.letters.append((reason, detail, row))
        if told["profile"] is not None:
            found = _native.Profile.from_bytes(base64.b64decode(told["profile"]))
            if self.profile is None:
                self.profile = found
            else:
                self.profile.merge(found)


def read_part(job: Backfill, part: Part) -> tuple[list[list[pa.Table]], PartReport]:
    """The rows of a part of the source by partition, reduced as far as the part tells.

    Raises:
        UnknownNameError, InputError, StoreError: as `headrace.sources.read_rows`.
    """
    view, report = job.rows, PartReport(job.letters_max, profile=_native.Profile() if job.describes else None)
    cut: list[list[pa.Table]] = [[] for _ in range(job.partitions)]
    for rows in in_chunks(_accepted_rows(job, view, part, report), CHUNK_ROWS, CHUNK_BYTES):
        some = reduced(job, rows)
        parts = _native.partition_rows(some, list(view.keys), job.count) if view.keys else [some]
        for tables, rows_of_part in zip(cut, parts, strict=True):
            if rows_of_part.num_rows:
                tables.append(pa.table(rows_of_part))
    return cut, report


def _accepted_rows(job: Backfill, view: ViewRows, part: Part, report: PartReport) -> Iterator[pa.RecordBatch]:
    """The rows that the table takes; the others are told."""
    blocked = None if job.blocked is None else Blocked(job.blocked)
    for batch in read_rows(view, Path(job.sources_root), UNKNOWN_US, report.refuse, job.as_of, part):
        rest = batch if view.is_static else between(view, batch, job.start_us, job.end_us, job.now_us)
        if blocked is not None:
            rest, removed = blocked.without(view, rest, job.now_us)
            if removed:
                report.refused[ERASED] = report.refused.get(ERASED, 0) + removed
        for reason, refused in refused_by_engine(rest, list(view.keys), EVENT_TS, job.latest_us).items():
            report.refuse(reason, pa.Table.from_batches([refused]), "")
        taken = accepted(view, rest, job.latest_us)
        report.accepted += taken.num_rows
        if report.profile is not None and taken.num_rows:
            report.profile.add(rest.select([*view.fields, EVENT_TS]))  # as OnlineStore.write describes them
        yield from taken.to_batches()


def reduced(job: Backfill, rows: pa.Table) -> pa.Table:
    """What the table would keep of some rows, in their order; reducing it again with later rows is right."""
    view = job.rows
    if view.is_windowed:
        # A tile is over when its end lies a window and a hop back, and a hop is no longer than its window.
        return reachable_events(view, rows, job.now_us - 3 * job.window_us_max)
    return newest_rows(view, rows)


def newest_rows(view: ViewRows, rows: pa.Table) -> pa.Table:
    """The row of each key with the largest (event time, creation time, position), in their order."""
    order, rank = _by_time(view, rows)
    if not view.keys:
        return rows.take(order[-1:])
    ranked = rows.select(list(view.keys)).append_column(_RANK, pa.array(rank))
    newest = ranked.group_by(list(view.keys)).aggregate([(_RANK, "max")]).column(f"{_RANK}_max").to_numpy()
    return rows.take(np.sort(order[newest]))


def _by_time(view: ViewRows, rows: pa.Table) -> tuple[Any, Any]:
    """The positions of rows in the order of their times, and the place of each row in it."""
    positions = np.arange(rows.num_rows)
    if view.is_static:
        return positions, positions
    event_us = rows.column(EVENT_TS).cast(pa.int64()).to_numpy()
    created_us = pc.fill_null(rows.column(CREATED_TS).cast(pa.int64()), -(2**63)).to_numpy()
    later = (event_us[1:] > event_us[:-1]) | ((event_us[1:] == event_us[:-1]) & (created_us[1:] >= created_us[:-1]))
    if later.all():
        return positions, positions
    order = np.lexsort((created_us, event_us))  # stable: of equal times the later position is the larger
    rank = np.empty_like(order)
    rank[order] = positions
    return order, rank


def reachable_events(view: ViewRows, rows: pa.Table, over_us: int) -> pa.Table:
    """The events after a time, in their order, and for each key the oldest of the others, which counts in no window."""
    is_over = pc.less_equal(rows.column(EVENT_TS), pa.scalar(over_us, pa.int64()).cast(TIMESTAMP))
    over = rows.filter(is_over)
    if not over.num_rows:
        return rows
    keys = list(view.keys)
    oldest = over.select([*keys, EVENT_TS]).group_by(keys).aggregate([(EVENT_TS, "min")])
    columns = {name: oldest.column(name) for name in keys}
    columns |= {name: oldest.column(f"{EVENT_TS}_min") for name in (EVENT_TS, CREATED_TS)}
    marks = [columns.get(entry.name, pa.nulls(oldest.num_rows, entry.type)) for entry in rows.schema]
    return pa.concat_tables([pa.table(marks, schema=rows.schema), rows.filter(pc.invert(is_over))])


def joined_parts(job: Backfill, parts: Sequence[pa.Table]) -> pa.Table:
    """What the table would keep of one partition, of all parts in their order."""
    found = pa.concat_tables([job.rows.schema().empty_table(), *parts])
    return reduced(job, found) if found.num_rows else found
