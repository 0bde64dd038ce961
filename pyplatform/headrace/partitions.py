"""Joins that are larger than memory: entity rows and source rows are cut by the hash of the entity key into files, the
partitions are joined one after the other, and the answers are put back into the order of the entity rows.

    spill/join-HOST-PID-*/
        entities.arrow               all entity rows, as they are given out again
        KEYS/PARTITION.entities      keys, times and row number of the entity rows, for each set of join keys
        KEYS/PARTITION.VIEW          source rows
        KEYS/PARTITION.found         row number, features and statuses

A key lies in one partition, so a partition's answers depend on no other one. Views with the same join keys share their
partitions; a service with views over several entities is cut once for each. Rows keep their order within a partition,
so each file of answers is sorted by row number, and merging them needs one piece of each at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from headrace import _native
from headrace.dtypes import DType
from headrace.errors import make_error
from headrace.files import make_folder
from headrace.historical import JoinRequest, add_rows, begin_join
from headrace.history import history_files
from headrace.sources import BATCH_ROWS_MAX, ViewRows, count_rows

ROW = "__row"
PARTITIONS_MAX = 512
"""Files that are open at a time while rows are cut."""

PROCESS_BYTES = 300_000_000
"""The interpreter and its libraries."""

JOIN_ROW_BYTES = 64
"""What the engine keeps of an entity row for each view besides its features: groups, times, the newest row."""

EVENT_COPIES = 3
"""How often the values of an event that is aggregated are held at the most: as read, in one column, and widened."""

EVENT_ROW_BYTES = 48
"""Times and places of such an event."""

LONG_VALUE_BYTES = 48
"""What a value of a type without a fixed width is taken for."""


def partitions_wanted(request: JoinRequest, rows: int, entities_bytes: int) -> int:
    """In how many partitions the join has to run to stay within the memory that it may use; 1 is at once.

    Raises:
        InputError: `too_large`, if there would be too many.
    """
    room = max(request.memory_bytes - PROCESS_BYTES, request.memory_bytes // 8)
    needed = 2 * entities_bytes
    for view in request.views.values():
        needed += rows * (JOIN_ROW_BYTES + 2 * _width(view))
        if view.is_windowed or isinstance(request.as_known_at, str):
            needed += _source_rows(request, view) * (EVENT_ROW_BYTES + EVENT_COPIES * _width(view))
    if needed <= room:
        return 1
    # Half for the partition at work; the rest for pieces on their way to and from the files.
    count = -(-2 * needed // room)
    if count > PARTITIONS_MAX:
        raise make_error(
            "too_large",
            f"the join needs about {needed / 1e9:.0f} GB, which is {count} partitions of what {request.memory_bytes} "
            f"bytes of memory hold; the limit is {PARTITIONS_MAX}",
            "allow more memory (offline.memory in headrace.toml), or join a part of the entity rows at a time",
        )
    return max(count, 2)


def _width(view: ViewRows) -> int:
    """About how many bytes the values of a row take."""

    def width(dtype: DType) -> int:
        fixed = {"float32": 4, "float64": 8, "timestamp": 8}.get(str(dtype))
        return fixed or (8 if dtype.is_integer else 1 if dtype == "bool" else LONG_VALUE_BYTES)

    return sum(width(dtype) for dtype in (*view.keys.values(), *view.fields.values()))


def _source_rows(request: JoinRequest, view: ViewRows) -> int:
    """How many rows a source has; for text, at most."""
    if view.is_pushed:
        return sum(file.count_rows() for file in history_files(request.history_root / view.name))
    return count_rows(view, request.sources_root, request.moment_of(view.name))


@dataclass(frozen=True)
class KeySet:
    """Some join keys, the views that have just these, and where their partitions are."""

    name: str
    keys: tuple[str, ...]
    views: tuple[str, ...]


def key_sets(request: JoinRequest) -> list[KeySet]:
    """The views of a request by their join keys."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, view in request.views.items():
        found.setdefault(tuple(view.keys), []).append(name)
    return [KeySet(f"keys{at}", keys, tuple(views)) for at, (keys, views) in enumerate(found.items())]


@dataclass
class JoinedPartitions:
    """A join whose partitions are joined: its training set, in pieces.

    Attributes:
        counts: what the join has seen.
        nodes: the machines that have joined some.
    """

    request: JoinRequest
    folder: Path
    count: int
    key_sets: list[KeySet]
    counts: dict[str, Any] = field(default_factory=dict)
    nodes: int = 1

    def tables(self) -> Iterator[pa.Table]:
        """The training set, in the order of the entity rows; at least one table, without metadata about counts."""
        request = self.request
        with contextlib.ExitStack() as stack:
            found = [stack.enter_context(_FoundRows(self, one)) for one in self.key_sets]
            for first, entities in self._entities():
                columns: dict[str, Any] = {}
                for rows in found:
                    columns |= rows.take(first, entities.num_rows)
                joined = _native.complete_join(
                    request.plan,
                    request.service,
                    entities,
                    pa.table(columns),
                    request.event_ts_column,
                    threads=request.threads,
                    statuses=request.statuses,
                )
                yield pa.table(joined)

    def _entities(self) -> Iterator[tuple[int, pa.Table]]:
        """The number of the first row of each piece, and the piece."""
        first = 0
        with open_rows(self.folder / "entities.arrow") as reader:
            rows = _Pending(reader)
            while first == 0 or rows.any_left():
                table = rows.take(self.request.chunk_rows)
                yield first, table
                first += max(table.num_rows, 1)


class _Pending:
    """A stream of batches, taken in pieces of other sizes."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._rest: pa.Table = reader.schema.empty_table()

    def any_left(self) -> bool:
        self._fill(1)
        return bool(self._rest.num_rows)

    def _fill(self, rows: int) -> None:
        while self._rest.num_rows < rows:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([batch])])

    def take(self, rows: int) -> pa.Table:
        """The next rows, as many as there are."""
        self._fill(rows)
        taken, self._rest = self._rest.slice(0, rows), self._rest.slice(rows)
        return taken

    def take_below(self, limit: int) -> pa.Table:
        """The next rows whose number is below a limit; rows are sorted by it."""
        while True:
            rows = self._rest.num_rows
            if rows and self._rest[ROW][rows - 1].as_py() >= limit:
                break
            self._fill(rows + 1)
            if self._rest.num_rows == rows:
                return self.take(rows)
        numbers = self._rest[ROW].combine_chunks().to_numpy()
        return self.take(int(np.searchsorted(numbers, limit)))


class _FoundRows:
    """What the partitions of a key set have found, read side by side in the order of the entity rows."""

    def __init__(self, joined: JoinedPartitions, key_set: KeySet) -> None:
        self._stack = contextlib.ExitStack()
        files = (joined.folder / key_set.name / f"{number}.found" for number in range(joined.count))
        self._pending = [_Pending(self._stack.enter_context(open_rows(file))) for file in files]

    def take(self, first: int, rows: int) -> dict[str, Any]:
        """The columns for some entity rows, by name."""
        pieces = [pending.take_below(first + rows) for pending in self._pending]
        table = pa.concat_tables(pieces).combine_chunks()
        order = np.empty(rows, np.int64)
        order[table[ROW].to_numpy() - first] = np.arange(rows)
        sorted_rows = table.drop_columns(ROW).take(pa.array(order))
        return dict(zip(sorted_rows.column_names, sorted_rows.columns, strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[Any]:
    """A reader of a file of rows. The file is not mapped: its pages would count as this process's memory."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield reader


class PartitionFiles:
    """The files that rows are cut into: one for each partition, written as rows come."""

    def __init__(self, folder: Path, ending: str, count: int, schema: pa.Schema) -> None:
        make_folder(folder)
        self._stack = contextlib.ExitStack()
        self._writers = [
            self._stack.enter_context(pa.ipc.new_stream(folder / f"{number}.{ending}", schema))
            for number in range(count)
        ]

    def write(self, number: int, rows: Any) -> None:
        """Appends rows to a partition."""
        table = pa.table(rows)
        if table.num_rows:
            self._writers[number].write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def entity_columns(request: JoinRequest, key_set: KeySet) -> list[str]:
    """The columns of the entity rows that a partition of a key set reads."""
    return list(dict.fromkeys([*key_set.keys, *request.times]))


def cut_entities(request: JoinRequest, frames: Iterable[pa.Table], folder: Path, count: int) -> int:
    """Writes the entity rows, whole and cut for each key set; returns their number."""
    sets = key_sets(request)
    rows = 0
    with contextlib.ExitStack() as stack:
        whole: Any = None
        cut: list[PartitionFiles] = []
        for frame in frames:
            if whole is None:
                schema = frame.schema
                whole = stack.enter_context(pa.ipc.new_stream(folder / "entities.arrow", schema))
                for one in sets:
                    names = entity_columns(request, one)
                    of_set = pa.schema([*(schema.field(name) for name in names), (ROW, pa.int64())])
                    cut.append(stack.enter_context(PartitionFiles(folder / one.name, "entities", count, of_set)))
            for chunk in request.chunks(frame.cast(schema).to_batches(max_chunksize=BATCH_ROWS_MAX)):
                whole.write_table(chunk, max_chunksize=BATCH_ROWS_MAX)
                numbers = pa.array(np.arange(rows, rows + chunk.num_rows, dtype=np.int64))
                for one, files in zip(sets, cut, strict=True):
                    numbered = chunk.select(entity_columns(request, one)).append_column(ROW, numbers)
                    for number, part in enumerate(cut_rows(request, numbered, one, count)):
                        files.write(number, part)
                rows += chunk.num_rows
    return rows


def cut_rows(request: JoinRequest, rows: pa.Table, key_set: KeySet, count: int) -> list[Any]:
    """Rows by partition. Without join keys they are dealt out by number, and each partition reads all sources."""
    if key_set.keys:
        return list(_native.partition_rows(rows, list(key_set.keys), count))
    numbers = rows[ROW].to_numpy() // request.chunk_rows % count
    return [rows.filter(pa.array(numbers == number)) for number in range(count)]


def cut_sources(request: JoinRequest, key_set: KeySet, view: str, folder: Path, count: int) -> None:
    """Writes the source rows of a view, cut."""
    parts = count if key_set.keys else 1
    with PartitionFiles(folder / key_set.name, view, parts, request.views[view].schema()) as files:
        for rows in request.chunks(request.read(view)):
            cut = _native.partition_rows(rows, list(key_set.keys), parts) if key_set.keys else [rows]
            for number, part in enumerate(cut):
                files.write(number, part)


def join_partition(
    request: JoinRequest, key_set: KeySet, entities: pa.Table, sources: Iterable[tuple[str, Iterable[Any]]]
) -> tuple[pa.Table, dict[str, Any]]:
    """What one partition finds, with the numbers of its rows, and its counts."""
    join = begin_join(request, entities, key_set.views)
    for view, batches in sources:
        add_rows(request, join, view, batches)
    found = join.finish_stored()
    return pa.table(found).append_column(ROW, entities[ROW].combine_chunks()), found.counts


def _join_files(request: JoinRequest, key_set: KeySet, folder: Path, number: int, count: int) -> dict[str, Any]:
    """Joins a partition from its files, which it replaces by what it finds."""
    place = folder / key_set.name
    with open_rows(place / f"{number}.entities") as reader:
        entities = reader.read_all()

    def batches(view: str) -> Iterator[pa.RecordBatch]:
        with open_rows(place / f"{number if key_set.keys else 0}.{view}") as reader:
            yield from reader

    found, counts = join_partition(request, key_set, entities, ((view, batches(view)) for view in key_set.views))
    write_found(request, place / f"{number}.found", found, count)
    (place / f"{number}.entities").unlink()
    for view in key_set.views if key_set.keys else ():
        (place / f"{number}.{view}").unlink()
    return counts


def write_found(request: JoinRequest, path: Path, found: pa.Table, count: int) -> None:
    """Writes a partition's answers in batches that are about what is read of it at a time."""
    with pa.ipc.new_stream(path, found.schema) as writer:
        writer.write_table(found, max_chunksize=max(request.chunk_rows // count, 1024))


def add_counts(total: dict[str, Any], key_set: KeySet, number: int, counts: dict[str, Any]) -> None:
    """Adds what a partition has seen."""
    for view, seen in counts["views"].items():
        sums = total["views"].setdefault(view, dict.fromkeys(seen, 0))
        for name, value in seen.items():
            # Without join keys every partition reads the same source rows.
            is_of_source = name not in ("found", "not_found", "outside_max_age")
            if key_set.keys or number == 0 or not is_of_source:
                sums[name] += value


@contextlib.contextmanager
def joined_in_partitions(request: JoinRequest, frames: Iterable[pa.Table], count: int) -> Iterator[JoinedPartitions]:
    """Joins in partitions; the files are removed when the block ends, however it ends.

    Args:
        request: what to join.
        frames: entity rows, as `JoinRequest.entities` makes them.
        count: the number of partitions.

    Raises:
        StoreError: `io`, the disk is full.
    """
    with spill_folder(request.spill_root) as folder, told_of_full_disks(folder):
        rows = cut_entities(request, frames, folder, count)
        joined = JoinedPartitions(request, folder, count, key_sets(request), {"rows": rows, "views": {}})
        for one in joined.key_sets:
            for view in one.views:
                cut_sources(request, one, view, folder, count)
            for number in range(count):
                add_counts(joined.counts, one, number, _join_files(request, one, folder, number, count))
        yield joined


@contextlib.contextmanager
def spill_folder(root: Path) -> Iterator[Path]:
    """A folder for temporary files. Those that killed processes of this machine have left are removed first."""
    make_folder(root)
    host = socket.gethostname()
    for path in root.glob(f"join-{host}-*"):
        process = path.name.removeprefix(f"join-{host}-").partition("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"join-{host}-{os.getpid()}-", dir=root) as folder:
        yield Path(folder)


@contextlib.contextmanager
def told_of_full_disks(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise make_error(
            "io",
            f"the disk of {folder} is full: what is joined or loaded in partitions puts them there",
            "free space, name another folder (offline.spill in headrace.toml), or allow more memory (offline.memory)",
        ) from error
