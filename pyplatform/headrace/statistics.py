"""Statistics of the rows that were written: gathered at ingest for each view, kept beside the online table.

`online/statistics/VIEW.stats` holds one profile of a view, `online/statistics/state.json` up to which row they count.
They are saved with each snapshot, at close, and every few seconds of writing. They describe, they decide nothing: what
a killed process had not saved is missing from them, and `rows_missed` says how much.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from headrace import _native
from headrace.errors import HeadraceError, make_error, nearest_hint
from headrace.files import write_atomic

EVENT_TS = "__event_ts"
DELETED = "__deleted"
SAVE_SECONDS = 10.0
WAITING_MAX = 4
"""Groups of rows that may wait to be counted; a writer that is faster waits then."""
ROWS_AT_ONCE = 16_384
BATCHES_AT_ONCE_MAX = 256
GATHERED_BYTES_MAX = 4 * 1024 * 1024
SHARED_BYTES_MAX = 1024 * 1024
FORMAT = 1


@dataclass
class _Gathered:
    """Rows of a view that are to be counted together."""

    batches: list[Any] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, rows: Any) -> None:
        self.batches.append(rows)
        self.rows += rows.num_rows
        self.bytes += rows.get_total_buffer_size()

    @property
    def is_full(self) -> bool:
        is_long = self.rows >= ROWS_AT_ONCE or len(self.batches) == BATCHES_AT_ONCE_MAX
        return is_long or self.bytes >= GATHERED_BYTES_MAX


def _own(rows: Any) -> Any:
    """Rows that do not keep a large frame alive of which they are a slice."""
    if rows.get_total_buffer_size() <= SHARED_BYTES_MAX:
        return rows
    import pyarrow as pa

    return pa.ipc.read_record_batch(rows.serialize(), rows.schema)


def _count(profile: _native.Profile, batches: list[Any]) -> None:
    import pyarrow as pa

    profile.add(pa.Table.from_batches(batches).combine_chunks())


class IngestStatistics:
    """The profiles of all views of an online store, open for writing or for reading."""

    def __init__(self, folder: Path) -> None:
        """Reads what was saved.

        Args:
            folder: `.headrace/online/statistics`; it may not be there yet.

        Raises:
            StoreError: `corrupt_store` or `newer_format`.
        """
        self.folder = folder
        self.sequence = 0
        self.rows_missed = 0
        self._profiles: dict[str, _native.Profile] = {}
        self._changed: set[str] = set()
        self._saved_at = time.monotonic()
        self._pid = os.getpid()
        self._counter: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._gathered: dict[str, _Gathered] = {}
        self._mutex = threading.RLock()
        state = folder / "state.json"
        if not state.exists():
            return
        try:
            document = json.loads(state.read_text("utf-8"))
            if document["format"] > FORMAT:
                raise make_error("newer_format", f"{state} has format {document['format']}", "use a newer headrace")
            self.sequence, self.rows_missed = int(document["sequence"]), int(document["rows_missed"])
        except (ValueError, KeyError, TypeError) as error:
            raise make_error(
                "corrupt_store", f"{state} cannot be read: {error!r}", f"remove {folder}: statistics start anew"
            ) from error

    def profile(self, view: str) -> _native.Profile:
        """The profile of a view, empty when none of its rows was seen.

        Raises:
            StoreError: `corrupt_store` or `newer_format`.
        """
        self._count_waiting(0)
        return self._profile(view)

    def _profile(self, view: str) -> _native.Profile:
        if view not in self._profiles:
            path = self._path(view)
            found = _native.Profile.from_bytes(path.read_bytes()) if path.exists() else _native.Profile()
            self._profiles[view] = found
        return self._profiles[view]

    @classmethod
    def for_writing(cls, folder: Path, sequence: int) -> Self:
        """Those of a store whose next row has the number `sequence`.

        Rows that were written and are not in what was saved count as missed. What cannot be read starts anew:
        statistics never keep a store from opening.
        """
        try:
            found = cls(folder)
            for path in folder.glob("*.stats"):
                found.profile(path.stem)
        except HeadraceError:
            shutil.rmtree(folder, ignore_errors=True)
            found = cls(folder)
        found.rows_missed += max(sequence - found.sequence, 0)
        found.sequence = sequence
        return found

    def add(self, view: str, batch: Any, features: Sequence[str], sequence: int) -> None:
        """Counts rows of a view, without deletions. That is done beside the writer, which need not wait for it.

        Args:
            view: its name.
            batch: a record batch in the shape of `headrace.sources`.
            features: the columns to describe; keys are left out, because they may name people.
            sequence: the number of the row after these.
        """
        rows = batch.select([*features, EVENT_TS])
        if DELETED in batch.schema.names:
            deleted = batch.column(DELETED).to_numpy(zero_copy_only=False).astype(bool)
            if deleted.any():
                rows = rows.filter(~deleted)
        with self._mutex:
            gathered = self._gathered.setdefault(view, _Gathered())
            gathered.add(rows if rows.num_rows >= ROWS_AT_ONCE else _own(rows))
            if gathered.is_full:
                self._hand_over(view)
                self._count_waiting(WAITING_MAX)
            self._changed.add(view)
            self.sequence = sequence
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            with contextlib.suppress(OSError):  # the rows are durable; what describes them is saved another time
                self.save()

    def _hand_over(self, view: str) -> None:
        """Has the gathered rows of a view counted: one small batch at a time would take longer than the counting."""
        gathered = self._gathered.pop(view)
        if self._counter is None:
            self._counter = ThreadPoolExecutor(1, "headrace-statistics")
        self._waiting.append((self._counter.submit(_count, self._profile(view), gathered.batches), gathered.rows))

    def merge(self, view: str, profile: _native.Profile, sequence: int) -> None:
        """Adds rows that were counted elsewhere; `sequence` is as in `add`."""
        with self._mutex:
            self._count_waiting(0)
            self._profile(view).merge(profile)
            self._changed.add(view)
            self.sequence = sequence

    def _count_waiting(self, left: int) -> None:
        """Waits until at most so many groups are not counted. In a forked child nobody counts them."""
        if self._pid != os.getpid():
            return
        with self._mutex:
            if left == 0:
                for view in list(self._gathered):
                    self._hand_over(view)
            while len(self._waiting) > left:
                counted, rows = self._waiting.popleft()
                try:
                    counted.result()
                except Exception:  # rows that are durable are not refused because nothing can be said of them
                    self.rows_missed += rows

    def forget(self, view: str) -> bool:
        """Begins a view's statistics anew, also in its file; returns whether there were any.

        Raises:
            OSError: the file cannot be removed.
        """
        self._count_waiting(0)
        path = self._path(view)
        had_any = view in self._profiles or path.exists()
        self._profiles.pop(view, None)
        self._changed.discard(view)
        path.unlink(missing_ok=True)
        return had_any

    def save(self) -> None:
        """Writes the profiles that have changed, then up to which row they count.

        Raises:
            OSError: the disk does not take them; nothing is forgotten.
        """
        self._count_waiting(0)
        if self._changed:
            self.folder.mkdir(parents=True, exist_ok=True)
            for view in sorted(self._changed):
                write_atomic(self._path(view), self._profiles[view].to_bytes())
            state = {"format": FORMAT, "sequence": self.sequence, "rows_missed": self.rows_missed}
            write_atomic(self.folder / "state.json", json.dumps(state, sort_keys=True).encode())
            self._changed.clear()
        self._saved_at = time.monotonic()

    def _path(self, view: str) -> Path:
        return self.folder / f"{view}.stats"


def describe_definition(plan: Mapping[str, Any], name: str, statistics: IngestStatistics) -> dict[str, Any]:
    """See `FeatureStore.describe`."""

    def columns(view: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(statistics.profile(view).describe())
        return found

    base = {"name": name, "rows_missed": statistics.rows_missed}
    if name in plan["views"]:
        found = columns(name)
        event_ts = found["columns"].pop(EVENT_TS, None)
        return {**base, "kind": "view", "rows": found["rows"], "event_ts": event_ts, "columns": found["columns"]}
    if name in plan["services"]:
        entries = plan["services"][name]["features"]
        views = {
            view: columns(view) for view in dict.fromkeys(entry["view"] for entry in entries) if view in plan["views"]
        }
        features = {
            entry["name"]: views.get(entry["view"], {}).get("columns", {}).get(entry["feature"]) for entry in entries
        }
        rows = {view: found["rows"] for view, found in views.items()}
        return {**base, "kind": "service", "rows": rows, "event_ts": None, "columns": features}
    if name in plan["on_demand_views"]:
        raise make_error(
            "not_found",
            f"view '{name}' is computed when it is read: no rows of it are written",
            "describe the views that it reads, or a training set as a file",
        )
    known = [*plan["views"], *plan["services"]]
    raise make_error("not_found", f"no view or service is named '{name}'", nearest_hint(name, known, "names"))


def describe_frame(frame: Any) -> dict[str, Any]:
    """The statistics of a frame: `{"rows", "columns": {name: {..}}}`.

    Args:
        frame: anything with the Arrow stream interface (pyarrow, Polars, DuckDB), or an iterable of such.

    Raises:
        InputError: `type_mismatch`.
    """
    profile = _native.Profile()
    for part in [frame] if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__") else frame:
        profile.add(part)
    document: dict[str, Any] = json.loads(profile.describe())
    return document
