"""The online store of a project: the table in memory, the log that makes writes durable, and the snapshot of both.

A write is encoded by the engine, written to the log with what belongs to it, and only then applied to the table and
acknowledged. At start the newest snapshot is loaded and the log after it is replayed. No frame library is imported
here:
`headrace serve` opens a store too.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from headrace import _native
from headrace.config import OnlineSection
from headrace.errors import HeadraceError, make_error
from headrace.files import sync_folder, sync_tree
from headrace.online_log import LogReader, OnlineLog, WriterLock, corrupt_store, open_reader

_READ_ATTEMPTS_MAX = 5
FORMAT = 2
"""Of the log's metadata. 1 (headrace 0.1.0) had no number and is read as it is; the first writer makes it 2."""
_KEPT = ("intervals", "log_id", "erasures", "blocked")
_PROGRESS = "progress/"  # and the view's name: metadata of the log
Interval = tuple[int | None, int]


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
        self._log_bytes = 0
        self._next_sequence = 0
        self._intervals: dict[str, list[Interval]] = {}
        self._seen: tuple[tuple[str, int, int], ...] = ()
        self.known: dict[str, Any] = {}
        """Metadata of the log, as it was when it was read last, that a copy of the store needs."""
        self._erasures = 0
        self._blocked: Any = None
        self._has_read_blocked = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
    def next_sequence(self) -> int:
        """The sequence number that the next row will get: how many rows were ever accepted."""
        return self._next_sequence

    def intervals(self, view: str) -> list[Interval]:
        """Which event times of the view are materialized, in microseconds: from (None: the beginning), until before."""
        return list(self._intervals.get(view, []))

    def _open_writer(self) -> None:
        self._lock = WriterLock(self.folder)
        try:
            self._log = OnlineLog(self.log_folder, writable=True, sync=self._settings.durability == "disk")
            self.local = self._load(self._log)
            self._remove_old_snapshots()
            self.log_id: str = self._log.meta("log_id") or uuid.uuid4().hex
            self._log.put_meta({"format": FORMAT, "plan_digest": self.plan.digest, "log_id": self.log_id})
        except BaseException:
            self._abandon()
            raise

    def _load_as_reader(self) -> None:
        if not (self.log_folder / "CURRENT").exists():  # nothing has ever been written
            self.local = self._new_table()
            return
        attempts = 0
        while True:
            seen = self._fingerprint()
            try:
                log = open_reader(self.log_folder)
                try:
                    self.local = self._load(log)
                finally:
                    log.close()
                self._seen = seen
                return
            except HeadraceError:
                # The writer may have replaced the snapshot or a file of the log between our steps; then it is worth
                # another try.
                attempts += 1
                if attempts == _READ_ATTEMPTS_MAX or self._fingerprint() == seen:
                    raise

    def _new_table(self) -> _native.LocalStore:
        return _native.LocalStore(self.plan, bytes_max=self._settings.bytes_max or None)

    def _load(self, log: LogReader) -> _native.LocalStore:
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
            local = _native.LocalStore.open_snapshot(self.plan, self._snapshot(log), read_only=False)
        else:
            local = self._new_table()
        self._next_sequence = snapshot_sequence
        self._log_bytes = 0
        self._replay(log, local)
        return local

    def _replay(self, log: LogReader, local: _native.LocalStore) -> int:
        """Applies the log from `next_sequence` on; returns the number of rows.

        Every sequence number must be there: a hole means that an acknowledged write was lost, which is never passed
        over.
        """
        end: int = log.meta("next_sequence") or 0
        start = self._next_sequence
        for sequence, batch in log.entries(start):
            if sequence != self._next_sequence:
                raise corrupt_store(
                    self.folder, f"rows {self._next_sequence} to {sequence - 1} are missing from the log"
                )
            self._next_sequence += local.apply(batch)["rows"]
            self._log_bytes += len(batch)
        if self._next_sequence != end:
            raise corrupt_store(self.folder, f"the log ends at row {self._next_sequence}, and {end} were acknowledged")
        self.known = {name: value for name in _KEPT if (value := log.meta(name)) is not None}
        recorded: dict[str, list[list[int | None]]] = log.meta("intervals") or {}
        self._intervals = {name: [(start, end or 0) for start, end in spans] for name, spans in recorded.items()}
        return self._next_sequence - start

    def refresh(self) -> int:
        """Brings a reader up to date with the writer; returns the number of rows that came in.

        The table object stays the same where the log still holds all that is new, and is a new one (`local`) otherwise.
        """
        if self.writable:
            return 0
        with self._mutex:
            seen = self._fingerprint()
            if seen == self._seen:
                return 0
            before = self._next_sequence
            log = open_reader(self.log_folder)
            try:
                is_same = (log.meta("erasures") or 0) == self._erasures
                if is_same and (log.meta("snapshot_sequence") or 0) <= before and before:
                    rows = self._replay(log, self.local)
                    self._seen = seen
                    return rows
            finally:
                log.close()
            self._load_as_reader()
            return self._next_sequence - before

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Changes whenever the writer has written; cheap to look at."""
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
        intervals: Mapping[str, list[Interval]] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes rows of a view. When this returns they are durable and visible.

        Args:
            view: the view's name.
            batch: an Arrow record batch in the shape of `headrace.sources`.
            now_us: rows further in its future than `max_future_skew_seconds` are refused.
            counts: what became of the rows is added here.
            intervals: view -> its materialized intervals, written with the rows.
            progress: how far the load is that these rows belong to, written with the rows.

        Raises:
            StoreError: `read_only`, `store_full`, `io`.
        """
        skew_us = round(self._settings.max_future_skew_seconds * 1_000_000)
        with self._mutex:
            log = self._writable_log()
            sequence = self._next_sequence
            encoded, accepted, refused = self.local.encode(view, batch, sequence, now_us, skew_us)
            meta: dict[str, Any] = {"next_sequence": sequence + accepted}
            if intervals is not None:
                meta["intervals"] = {**self._intervals, **intervals}
            if progress is not None:
                meta[_PROGRESS + view] = progress
            if accepted:
                log.append(sequence, encoded, meta)
                try:
                    applied = self.local.apply(encoded)
                except BaseException:
                    # The write is not acknowledged, and a start must not meet it again.
                    before = {"next_sequence": sequence, "intervals": self._intervals}
                    log.retract(sequence, before | ({} if progress is None else {_PROGRESS + view: None}))
                    raise
                self._next_sequence += accepted
                self._log_bytes += len(encoded)
            else:
                log.put_meta(meta)
                applied = {"inserted": 0, "replaced": 0, "stale": 0, "deleted": 0, "skipped": 0}
            if intervals is not None:
                self._intervals |= intervals
            counts.add(accepted + sum(refused.values()), applied, refused)
            if self._log_bytes > self._settings.snapshot_log_bytes:
                self.snapshot()

    def record_interval(self, view: str, start_us: int | None, end_us: int) -> None:
        """Notes durably that the view is materialized from `start_us` (None: the beginning) until before `end_us`.

        The load that did it is at its end: its progress is forgotten in the same write.
        """
        with self._mutex:
            merged = merge_interval(self._intervals.get(view, []), (start_us, end_us))
            self._writable_log().put_meta({"intervals": self._intervals | {view: merged}, _PROGRESS + view: None})
            self._intervals[view] = merged

    def progress(self, view: str) -> Any:
        """How far a load of the view came that has not ended; None where there is none. For the writer."""
        with self._mutex:
            return self._writable_log().meta(_PROGRESS + view)

    def snapshot(self) -> None:
        """Writes the table to a file and drops the log before it. What is durable stays durable at every moment."""
        with self._mutex:
            self._writable_log()
            sequence = self._next_sequence
            if not self._log_bytes or not sequence:
                return
            self._write_snapshot(self.local, f"{sequence:020}", {})
            self._log_bytes = 0
            self._remove_old_snapshots()

    def _write_snapshot(self, local: _native.LocalStore, name: str, meta: Mapping[str, Any]) -> None:
        log = self._writable_log()
        folder = self.folder / "snapshot" / name
        temporary = folder.with_suffix(".tmp")
        for leftover in (folder, temporary):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.parent.mkdir(exist_ok=True)
        local.write_snapshot(temporary)
        sync_tree(temporary)
        temporary.rename(folder)
        sync_folder(folder.parent)
        sequence = self._next_sequence
        log.forget_before(sequence, {"snapshot_sequence": sequence, "snapshot_name": name, **meta})

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
                self._write_snapshot(local, f"{self._next_sequence:020}-{erasures}", {"erasures": erasures})
                self._erasures = erasures
                self._log_bytes = 0
                self.local = local
                self._remove_old_snapshots()
            return removed

    def _snapshot(self, log: LogReader) -> Path:
        name = log.meta("snapshot_name") or f"{log.meta('snapshot_sequence') or 0:020}"
        return self.folder / "snapshot" / str(name)

    def _remove_old_snapshots(self) -> None:
        keep = self._snapshot(self._writable_log())
        for folder in (self.folder / "snapshot").glob("*"):
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _writable_log(self) -> OnlineLog:
        if not self.writable:
            raise make_error("read_only", f"the online store {self.folder} is open for reading", "open it for writing")
        if self._log is None:
            raise make_error("unavailable", f"the online store {self.folder} is closed", "open it again")
        return self._log

    def close(self) -> None:
        """Makes a snapshot, so that the next start is quick, and lets go of the folder. Not closing loses nothing."""
        with self._mutex:
            if self.writable and self._log is not None and self._log.is_own:
                self.snapshot()
            self._abandon()

    def _abandon(self) -> None:
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
