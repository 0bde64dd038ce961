"""The online store of a project: the table in memory, the log that makes writes durable, and the snapshot of both.

A write is encoded by the engine, written to the log with what belongs to it, and only then applied to the table and
acknowledged. At start the newest snapshot is loaded and the log after it is replayed. A reader takes exactly what the
writer has acknowledged. No frame library is imported here: `headrace serve` opens a store too.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from headrace import _native
from headrace.acknowledged import Acknowledged, AcknowledgedFile, read_acknowledged
from headrace.aggregations import aggregates_digest
from headrace.background_snapshot import BackgroundSnapshot
from headrace.config import OnlineSection
from headrace.errors import HeadraceError, make_error
from headrace.files import make_folder, sync_folder
from headrace.online_log import LogReader, OnlineLog, WriterLock, corrupt_store, has_writer, open_reader
from headrace.statistics import IngestStatistics

FORMAT = 2
"""Of the log's metadata. 1 (headrace 0.1.0) had no number and is read as it is; the first writer makes it 2."""
_KEPT = ("intervals", "aggregates", "erasures", "blocked")
_PROGRESS = "progress/"  # and the view's name: metadata of the log
_READ_SECONDS_MAX = 10.0
_READ_PAUSE_SECONDS = 0.005
Interval = tuple[int | None, int]
Keeping = Callable[[int, bool], AbstractContextManager[None]]
"""Called with the log's number of the first accepted row, and whether all are; what it keeps is kept if its block ends
well."""


@dataclass
class WriteCounts:
    """What became of the rows of one or more writes."""

    rows: int = 0
    """Rows that were read or given."""
    inserted: int = 0
    replaced: int = 0
    stale: int = 0
    """Rows that were older than what the table holds for their key."""
    deleted: int = 0
    skipped: int = 0
    """Rows of a view that is not online."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that were not written."""

    def add(self, rows: int, applied: Mapping[str, int], refused: Mapping[str, int]) -> None:
        self.rows += rows
        self.inserted += applied["inserted"]
        self.replaced += applied["replaced"]
        self.stale += applied["stale"]
        self.deleted += applied["deleted"]
        self.skipped += applied["skipped"]
        for reason, count in refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count

    def refuse(self, reason: str, rows: int) -> None:
        """Counts rows that were refused before they came to the engine."""
        self.rows += rows
        self.refused[reason] = self.refused.get(reason, 0) + rows


# What a reader has seen of the writer: what it said, or, of a writer of an older version, the state of its files.
_Seen = Acknowledged | tuple[tuple[str, int, int], ...]


class OnlineStore:
    """The online store, open for writing (one process at a time) or for reading (any number)."""

    def __init__(self, folder: Path, plan: _native.Plan, settings: OnlineSection, *, writable: bool) -> None:
        """Opens the store and loads what it holds.

        Args:
            folder: `.headrace/online`; made if need be.
            plan: the plan in force; a table whose layout it has changed is rebuilt.
            settings: the section `online` of headrace.toml.
            writable: whether this process is to be the writer.

        Raises:
            StoreError: `store_locked`, `corrupt_store` or `newer_format`.
        """
        self.folder = folder
        self.plan = plan
        self.writable = writable
        self._settings = settings
        self._mutex = threading.RLock()
        self._lock: WriterLock | None = None
        self._log: OnlineLog | None = None
        self._acknowledged: AcknowledgedFile | None = None
        self._log_bytes = 0
        self._snapshot: BackgroundSnapshot | None = None
        self._unsettled: tuple[int, Mapping[str, Any]] | None = None
        self._snapshot_log_bytes = settings.snapshot_log_bytes
        self._next_sequence = 0
        self._snapshot_sequence = 0
        self._intervals: dict[str, list[Interval]] = {}
        self.statistics: IngestStatistics | None = None
        self._fields: dict[str, list[str]] | None = None
        self._seen: _Seen = ()
        self.known: dict[str, Any] = {}
        """Metadata of the log, as it was when it was read last, that a copy of the store needs."""
        self._erasures = 0
        self._blocked: Any = None
        self._has_read_blocked = False
        try:
            make_folder(folder)
        except OSError as error:
            raise make_error("io", f"the online folder {folder} cannot be made: {error}", "check its parent") from error
        if writable:
            self._open_writer()
        else:
            self._load_as_reader()

    @property
    def log_folder(self) -> Path:
        return self.folder / "log"

    @property
    def statistics_folder(self) -> Path:
        return self.folder / "statistics"

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next row will get: how many rows were ever accepted."""
        return self._next_sequence

    def intervals(self, view: str) -> list[Interval]:
        """Which moments of the view are materialized, in microseconds: from (None: the beginning), until before."""
        return list(self._intervals.get(view, []))

    def _open_writer(self) -> None:
        self._lock = WriterLock(self.folder)
        try:
            self._log = OnlineLog(self.log_folder, writable=True, sync=self._settings.durability == "disk")
            sync_folder(self.folder)
            self.local = self._load(self._log)
            self._remove_old_snapshots()
            self._log.tidy()
            store = self._log.meta("store") or secrets.randbits(63)
            outdated = self._outdated(self._log)
            forgotten = self._forgotten(self._log, outdated) if outdated else {}
            self._log.put_meta({"format": FORMAT, "plan_digest": self.plan.digest, "store": store, **forgotten})
            self._intervals = _recorded(self._log)
            self._acknowledged = AcknowledgedFile(self.folder, store)
            self._acknowledge()
            if self._settings.statistics:
                self.statistics = IngestStatistics.for_writing(self.statistics_folder, self._next_sequence)
        except BaseException:
            self._abandon()
            raise

    def _acknowledge(self) -> None:
        if self._acknowledged is not None:
            self._acknowledged.write(self._next_sequence, self._snapshot_sequence)

    def _load_as_reader(self) -> None:
        if (self.log_folder / "CURRENT").exists():
            self._read(from_scratch=True)
        else:  # nothing has ever been written
            self.local = self._new_table()

    def _read(self, *, from_scratch: bool) -> None:
        """Takes what the writer has acknowledged.

        Where the writer replaces its snapshot or a file of its log between our steps, what we see does not fit
        together; then it is worth another try, for as long as there is a writer.
        """
        give_up = time.monotonic() + _READ_SECONDS_MAX
        without_writer = 0
        while True:
            seen = self._look()
            said = seen if isinstance(seen, Acknowledged) else None
            try:
                # After a power cut a log may have less than had been acknowledged, unless durability is "disk".
                self._read_once(said if without_writer < 2 else None, from_scratch)
                self._seen = seen
                return
            except HeadraceError as error:
                if error.code == "newer_format":
                    raise
                if has_writer(self.folder):
                    if time.monotonic() > give_up:
                        raise
                elif without_writer == 2:
                    raise
                else:
                    without_writer += 1
            time.sleep(_READ_PAUSE_SECONDS)

    def _read_once(self, said: Acknowledged | None, from_scratch: bool) -> None:
        until = None if said is None else said.next_sequence
        known = self._seen if isinstance(self._seen, Acknowledged) else None
        is_same = said is None or (known is not None and known.store == said.store)
        log = open_reader(self.log_folder)
        try:
            snapshot_sequence = log.meta("snapshot_sequence") or 0
            is_same = is_same and (log.meta("erasures") or 0) == self._erasures
            if not from_scratch and is_same and self._next_sequence > 0 and snapshot_sequence <= self._next_sequence:
                self._replay(log, self.local, until)
            else:
                self.local = self._load(log, until)
        finally:
            log.close()

    def _new_table(self) -> _native.LocalStore:
        return _native.LocalStore(self.plan, bytes_max=self._settings.bytes_max or None)

    def _load(self, log: LogReader, until: int | None = None) -> _native.LocalStore:
        """The table as the snapshot and the log after it make it."""
        number = log.meta("format") or 1
        if number > FORMAT:
            raise make_error(
                "newer_format",
                f"the online store in {self.folder} has format {number}, this headrace reads up to {FORMAT}",
                "open it with a newer headrace",
            )
        snapshot_sequence: int = log.meta("snapshot_sequence") or 0
        self._erasures = log.meta("erasures") or 0
        if snapshot_sequence:
            local = _native.LocalStore.open_snapshot(
                self.plan, self._snapshot_folder(log), read_only=False, bytes_max=self._settings.bytes_max or None
            )
        else:
            local = self._new_table()
        self._next_sequence = self._snapshot_sequence = snapshot_sequence
        self._log_bytes = 0
        self._replay(log, local, until)
        return local

    def _replay(self, log: LogReader, local: _native.LocalStore, until: int | None) -> None:
        """Applies the log from `next_sequence` on, up to `until` (None: all of it).

        Every sequence number must be there: a hole means that an acknowledged write was lost, which is never passed
        over.
        """
        end: int = log.meta("next_sequence") or 0
        for sequence, batch in log.entries(self._next_sequence):
            if until is not None and sequence >= until:
                break
            if sequence != self._next_sequence:
                raise corrupt_store(
                    self.folder, f"rows {self._next_sequence} to {sequence - 1} are missing from the log"
                )
            self._next_sequence += local.apply(batch)["rows"]
            self._log_bytes += len(batch)
        if until is not None:
            end = max(until, self._snapshot_sequence)
        if self._next_sequence != end:
            raise corrupt_store(self.folder, f"the log ends at row {self._next_sequence}, and {end} were acknowledged")
        self._intervals = _recorded(log)
        self.known = {name: value for name in _KEPT if (value := log.meta(name)) is not None}

    def refresh(self) -> int:
        """Brings a reader up to date with the writer; returns the number of rows that came in.

        The table object stays the same where the log still holds all that is new, and is a new one (`local`) otherwise.
        """
        if self.writable:
            return 0
        with self._mutex:
            if self._look() == self._seen:
                return 0
            before = self._next_sequence
            self._read(from_scratch=False)
            return self._next_sequence - before

    def _look(self) -> _Seen:
        """Changes whenever the writer has written; cheap to look at."""
        return read_acknowledged(self.folder) or self._fingerprint()

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        try:
            with os.scandir(self.log_folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".log") or entry.name.startswith(("MANIFEST", "CURRENT")):
                        status = entry.stat()
                        found.append((entry.name, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            return ()
        return tuple(sorted(found))

    def write(
        self,
        view: str,
        batch: Any,
        now_us: int,
        counts: WriteCounts,
        keep: Keeping | None = None,
        resets: bool = False,
        progress: Mapping[str, Any] | None = None,
        described: bool = True,
    ) -> None:
        """Writes rows of a view. When this returns they are durable and visible; when it fails, nothing has changed.

        Args:
            view: the view's name.
            batch: an Arrow record batch in the shape of `headrace.sources`.
            now_us: rows further in its future than `max_future_skew_seconds` are refused.
            counts: what became of the rows is added here.
            keep: keeps the rows for training too.
            resets: what the view has aggregated so far is forgotten before these rows.
            progress: how far the load is that these rows belong to, written with the rows.
            described: the rows count in the view's statistics.

        Raises:
            StoreError: `read_only`, `store_full`, `io`.
        """
        skew_us = round(self._settings.max_future_skew_seconds * 1_000_000)
        with self._mutex:
            log = self._writable_log()
            sequence = self._next_sequence
            encoded, accepted, refused = self.local.encode(view, batch, sequence, now_us, skew_us, resets)
            if accepted:
                noted = self._forgotten(log, [view]) if resets else {}
                if progress is not None:
                    noted[_PROGRESS + view] = progress
                with keep(sequence, not refused) if keep is not None else nullcontext():
                    applied = self._append(log, sequence, accepted, encoded, noted)
            else:
                applied = dict.fromkeys(("inserted", "replaced", "stale", "deleted", "skipped"), 0)
            counts.add(accepted + sum(refused.values()), applied, refused)
            if accepted and described and self.statistics is not None:
                self.statistics.add(view, batch, self._features(view), self._next_sequence)
            self._advance_snapshot()

    def describe(self, view: str, profile: _native.Profile) -> None:
        """Adds to a view's statistics what describes rows that were written without being described."""
        with self._mutex:
            if self.statistics is not None:
                self.statistics.merge(view, profile, self._next_sequence)

    def _append(
        self, log: OnlineLog, sequence: int, rows: int, encoded: bytes, noted: Mapping[str, Any]
    ) -> Mapping[str, int]:
        """Writes a batch, with metadata of the log that belongs to it, to the log and to the table, or to neither."""
        before = {"next_sequence": sequence, **{name: log.meta(name) for name in noted}}
        self._unsettled = (sequence, before)
        try:
            log.append(sequence, encoded, {"next_sequence": sequence + rows, **noted})
        except BaseException:
            if not log.has_failed:  # nothing came to the log
                self._unsettled = None
            raise
        self._unsettled = None
        try:
            applied = self.local.apply(encoded)
        except BaseException:
            # The write is not acknowledged: a start must not meet it again, and the rows that got into the table before
            # the fault go with the table.
            log.retract(sequence, before)
            self.local = self._load(log)
            raise
        self._next_sequence += rows
        self._log_bytes += len(encoded)
        if "intervals" in noted:
            self._intervals = _recorded(log)
        self._acknowledge()
        return applied

    def _features(self, view: str) -> list[str]:
        """The columns of a view's rows that are neither keys nor times."""
        if self._fields is None:
            views: dict[str, Any] = json.loads(self.plan.json)["views"]
            self._fields = {name: [field["name"] for field in found["fields"]] for name, found in views.items()}
        return self._fields[view]

    def _outdated(self, log: LogReader) -> list[str]:
        """The views of aggregates that have been built by another definition than the plan's."""
        views = json.loads(self.plan.json)["views"]
        built: dict[str, str] = log.meta("aggregates") or {}
        return [view for view, digest in built.items() if view not in views or aggregates_digest(views[view]) != digest]

    def _forgotten(self, log: OnlineLog, views: Collection[str]) -> dict[str, Any]:
        """Metadata in which some views were never materialized."""
        noted: dict[str, Any] = {
            name: {view: value for view, value in (log.meta(name) or {}).items() if view not in views}
            for name in ("intervals", "aggregates")
        }
        return noted | {_PROGRESS + view: None for view in views}

    def record_interval(self, view: str, start_us: int | None, end_us: int, aggregates: str | None = None) -> None:
        """Notes durably that the view is materialized from `start_us` (None: the beginning) until before `end_us`.

        The load that did it is at its end: its progress is forgotten in the same write.

        Args:
            view: the view's name.
            start_us: in microseconds.
            end_us: in microseconds.
            aggregates: of a view of aggregates, what they are: see `aggregates_of`.
        """
        with self._mutex:
            merged = merge_interval(self._intervals.get(view, []), (start_us, end_us))
            meta: dict[str, Any] = {"intervals": self._intervals | {view: merged}, _PROGRESS + view: None}
            log = self._writable_log()
            if aggregates is not None:
                meta["aggregates"] = {**(log.meta("aggregates") or {}), view: aggregates}
            log.put_meta(meta)
            self._intervals[view] = merged
            self._acknowledge()

    def aggregates_of(self, view: str) -> str | None:
        """What the view was when it was materialized last: aggregates of another definition have to be built anew."""
        with self._mutex:
            found: dict[str, str] = self._writable_log().meta("aggregates") or {}
            return found.get(view)

    def _advance_snapshot(self) -> None:
        """Begins a snapshot when the log is long, and makes use of one whose files are there. Neither waits for files.

        A snapshot that fails takes nothing from what has been acknowledged; it is tried again after as much log.
        """
        try:
            if self._snapshot is not None:
                if self._snapshot.is_written:
                    self._use_snapshot()
            elif self._log_bytes > self._snapshot_log_bytes:
                self._begin_snapshot()
        except (HeadraceError, OSError) as error:
            self._note_no_snapshot(error)

    def _note_no_snapshot(self, error: Exception) -> None:
        self._snapshot_log_bytes = self._log_bytes + self._settings.snapshot_log_bytes
        warnings.warn(f"no snapshot of the online store {self.folder} was made: {error}", stacklevel=3)

    def _begin_snapshot(self) -> None:
        folder = self.folder / "snapshot" / f"{self._next_sequence:020}"
        self._snapshot = BackgroundSnapshot(self.local, folder, self._next_sequence, self._log_bytes)

    def _use_snapshot(self, meta: Mapping[str, Any] | None = None) -> None:
        """Puts a snapshot into use and drops the log before it; waits for its files."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return
        snapshot.move_in()
        names = {"snapshot_sequence": snapshot.sequence, "snapshot_name": snapshot.folder.name}
        self._writable_log().forget_before(snapshot.sequence, {**names, **(meta or {})})
        self._snapshot_sequence = snapshot.sequence
        self._acknowledge()
        self._log_bytes = max(self._log_bytes - snapshot.log_bytes, 0)
        self._snapshot_log_bytes = self._settings.snapshot_log_bytes
        self._remove_old_snapshots()

    def progress(self, view: str) -> Any:
        """How far a load of the view came that has not ended; None where there is none. For the writer."""
        with self._mutex:
            return self._writable_log().meta(_PROGRESS + view)

    def snapshot(self) -> None:
        """Writes the table to a file and drops the log before it. What is durable stays durable at every moment."""
        with self._mutex:
            self._writable_log()
            self._use_snapshot()
            if self._log_bytes and self._next_sequence:
                self._begin_snapshot()
                self._use_snapshot()

    @property
    def blocked(self) -> Any:
        """The erased keys that may not be written, as `headrace.erase` keeps them; None where there are none."""
        with self._mutex:
            if not self._has_read_blocked:
                self._blocked = self._writable_log().meta("blocked")
                self._has_read_blocked = True
            return self._blocked

    def erase(self, columns: Sequence[str], keys: Sequence[bytes], blocked: Any) -> dict[str, int]:
        """Takes keys out of the table, the log and the snapshot, and notes that they are not to be written again.

        Args:
            columns: join keys; tables that have them all are concerned.
            keys: the canonical bytes of their values.
            blocked: the new value of `blocked`.

        Returns:
            Table -> keys that it has lost.
        """
        with self._mutex:
            log = self._writable_log()
            log.put_meta({"blocked": blocked})
            self._blocked, self._has_read_blocked = blocked, True
            local, removed = self.local.without_keys(columns, keys)
            if self._next_sequence:
                # Even where no key was found the log before is dropped: it may hold older rows of the keys.
                erasures = self._erasures + 1
                if self._snapshot is not None:  # the keys are in it
                    self._snapshot.give_up()
                folder = self.folder / "snapshot" / f"{self._next_sequence:020}-{erasures}"
                self._snapshot = BackgroundSnapshot(local, folder, self._next_sequence, self._log_bytes)
                self._use_snapshot({"erasures": erasures})
                self._erasures = erasures
                self.local = local
            return removed

    def forget_statistics(self, views: Sequence[str]) -> list[str]:
        """Begins the statistics of some views anew; returns those that had any."""
        with self._mutex:
            self._writable_log()
            statistics = self.statistics or IngestStatistics.for_writing(self.statistics_folder, self._next_sequence)
            return [view for view in views if statistics.forget(view)]

    def _snapshot_folder(self, log: LogReader) -> Path:
        name = log.meta("snapshot_name") or f"{log.meta('snapshot_sequence') or 0:020}"
        return self.folder / "snapshot" / str(name)

    def _remove_old_snapshots(self) -> None:
        keep = self._snapshot_folder(self._writable_log())
        for folder in (self.folder / "snapshot").glob("*"):
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _writable_log(self) -> OnlineLog:
        if not self.writable:
            raise make_error("read_only", f"the online store {self.folder} is open for reading", "open it for writing")
        if self._log is None:
            raise make_error("unavailable", f"the online store {self.folder} is closed", "open it again")
        if self._log.has_failed:
            self._log.reopen()
            if self._unsettled is not None:  # it may be there, and was not acknowledged
                self._log.retract(*self._unsettled)
                self._unsettled = None
        return self._log

    def check_writable(self) -> None:
        """Makes sure that this process may write.

        Raises:
            StoreError: `read_only`, `unavailable`.
            ProcessError: `used_after_fork`.
        """
        with self._mutex:
            _ = self._writable_log().db

    def close(self) -> None:
        """Makes a snapshot, so that the next start is quick, and lets go of the folder. Not closing loses nothing."""
        with self._mutex:
            try:
                if self.writable and self._log is not None and self._log.is_own:
                    try:
                        self.snapshot()
                    except (HeadraceError, OSError) as error:
                        self._note_no_snapshot(error)
                    if self.statistics is not None:
                        self.statistics.save()
            finally:
                self._abandon()

    def _abandon(self) -> None:
        if self._acknowledged is not None:
            self._acknowledged.close()
            self._acknowledged = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _recorded(log: LogReader) -> dict[str, list[Interval]]:
    recorded: dict[str, list[list[int | None]]] = log.meta("intervals") or {}
    return {name: [(start, end or 0) for start, end in spans] for name, spans in recorded.items()}


def recorded_intervals(folder: Path) -> Callable[[str], list[Interval]]:
    """View -> its materialized intervals, as the log in an online folder has them; the table is not loaded."""
    intervals: dict[str, list[Interval]] = {}
    if (folder / "log/CURRENT").exists():
        log = open_reader(folder / "log")
        try:
            intervals = _recorded(log)
        finally:
            log.close()
    return lambda view: intervals.get(view, [])


def merge_interval(spans: list[Interval], new: Interval) -> list[Interval]:
    """Half-open intervals, sorted, with those that touch joined. A start of None is the beginning of time."""

    def start_of(span: Interval) -> int:
        return -(2**63) if span[0] is None else span[0]

    merged: list[Interval] = []
    for span in sorted([*spans, new], key=start_of):
        if merged and start_of(span) <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], span[1]))
        else:
            merged.append(span)
    return merged
