"""Training sets: reads the sources of a service's views and hands them to the engine's point-in-time join.

Source rows stream through the engine, which keeps what may still be an answer. What does not fit into the memory that a
join may use is joined in partitions, one after the other (`headrace.partitions`) or side by side on Ray
(`headrace.ray_join`); the answers are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace import _native
from headrace.config import Config
from headrace.dtypes import DType
from headrace.errors import make_error
from headrace.frames import cast_column, take_columns, to_table
from headrace.history import read_history
from headrace.memory import machine_memory_bytes, memory_bytes
from headrace.sources import AsOf, ViewRows, leave_out, read_rows, typed_exactly

if TYPE_CHECKING:
    from headrace.partitions import JoinedPartitions

COUNTS_KEY = b"headrace.counts"


@dataclass(frozen=True)
class JoinRequest:
    """What is joined, and with what.

    Attributes:
        document: the plan's, as Python.
        as_known_at: True, the name of a column, or None.
        memory_bytes: what the process may hold.
        spill_root: where partitions are put that do not fit.
        on: "ray", or None for this process.
        as_of: the state of the past that is read, of all views or by view.
        chunk_rows: rows that go through the join at a time; also those of a row group of a file that is written.
    """

    plan: _native.Plan
    document: dict[str, Any]
    service: str
    event_ts_column: str
    as_known_at: bool | str | None
    statuses: bool
    threads: int | None
    sources_root: Path
    history_root: Path
    now_us: int
    memory_bytes: int
    spill_root: Path
    on: str | None = None
    as_of: AsOf | Mapping[str, AsOf] = None
    chunk_rows: int = 1 << 20

    @cached_property
    def shape(self) -> dict[str, Any]:
        """What the service asks for and gives."""
        shape: dict[str, Any] = json.loads(self.plan.service(self.service))
        return shape

    @property
    def times(self) -> list[str]:
        """The columns of times of the entity rows."""
        cutoff = [self.as_known_at] if isinstance(self.as_known_at, str) else []
        return list(dict.fromkeys([self.event_ts_column, *cutoff]))

    @cached_property
    def views(self) -> dict[str, ViewRows]:
        """The stored views, without those of their fields that need not be read."""
        found = {}
        for name in self.shape["views"]:
            view = ViewRows(self.document, name)
            if not view.is_windowed:
                wanted = {one["feature"] for one in self.shape["stored"] if one["view"] == name}
                # A row with a value that is not of its type is left out, so that others have to be looked at too.
                spare = typed_exactly(view, self.sources_root, self._moment_of(view)) - wanted
                view.fields = {field: dtype for field, dtype in view.fields.items() if field not in spare}
            found[name] = view
        return found

    @property
    def held_bytes_max(self) -> int:
        """What the source rows of one view that may still be an answer may take: a quarter of the memory for all."""
        return self.memory_bytes // (4 * max(len(self.views), 1))

    @property
    def chunk_bytes_max(self) -> int:
        """What rows that go through a join at a time may take; a few copies of them are made."""
        return self.memory_bytes // 32

    def read(self, view: str) -> Iterator[pa.RecordBatch]:
        """The source rows of a view, in their order."""
        rows = self.views[view]
        moment = self.moment_of(view)
        if rows.is_pushed:
            return read_history(rows, self.history_root / view, moment)
        return read_rows(rows, self.sources_root, self.now_us, leave_out, moment)

    def chunks(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Batches put together to what goes through the join at a time."""
        return in_chunks(batches, self.chunk_rows, self.chunk_bytes_max)

    def moment_of(self, view: str) -> AsOf:
        """The state of the past in which a view is read.

        Raises:
            InputError: `invalid_argument`, its files keep none.
        """
        return self._moment_of(self.views[view])

    def _moment_of(self, view: ViewRows) -> AsOf:
        moment = self.as_of.get(view.name) if isinstance(self.as_of, Mapping) else self.as_of
        if moment is not None and not view.is_pushed and view.source["format"] != "delta":
            raise make_error(
                "invalid_argument",
                f"the files of view '{view.name}' keep no past to read as of {moment}",
                "keep them as a Delta table, or name the views in as_of that have one: {view: version or time}",
            )
        return moment

    def entities(self, frame: Any) -> pa.Table:
        """An entity frame with the columns that the join reads cast to their types; the others as they are.

        Raises:
            InputError: `missing_column`, `type_mismatch`, `invalid_argument`.
        """
        table, shape = to_table(frame, "the entity frame"), self.shape
        wanted = {field["name"]: DType(field["dtype"]) for field in (*shape["join_keys"], *shape["request_fields"])}
        place = "the entity frame"
        take_columns(table, list(dict.fromkeys([*wanted, *self.times])), place)
        for feature in shape["features"]:
            if feature["name"] in table.column_names:
                raise make_error(
                    "invalid_argument",
                    f"{place} has a column '{feature['name']}', which the service '{shape['name']}' adds",
                    "drop or rename the column, or set full_feature_names on the service",
                )
        for name in self.times:
            if wanted.get(name, "timestamp") != "timestamp":
                raise make_error(
                    "invalid_argument",
                    f"column '{name}' is a {wanted[name]} of service '{shape['name']}'",
                    "name a column of times",
                )
            wanted[name] = DType("timestamp")
        for name, dtype in wanted.items():
            position = table.column_names.index(name)
            column = cast_column(table.column(position), dtype, f"{place}, column '{name}'")
            table = table.set_column(position, name, column)
        return table


def join_request(
    config: Config,
    plan: _native.Plan,
    document: dict[str, Any],
    service: str,
    *,
    event_ts_column: str,
    as_known_at: bool | str | None,
    now_us: int,
    statuses: bool = False,
    threads: int | None = None,
    memory: str | int | None = None,
    on: str | None = None,
    as_of: AsOf | Mapping[str, AsOf] = None,
) -> JoinRequest:
    """A join over the sources and the state of a project; see `FeatureStore.get_historical_features`.

    Raises:
        InputError: `type_mismatch` or `invalid_argument`, naming the argument.
    """
    given = config.offline.memory if memory is None else memory
    return JoinRequest(
        plan=plan,
        document=document,
        service=service,
        event_ts_column=event_ts_column,
        as_known_at=checked_as_known_at(as_known_at),
        statuses=statuses,
        threads=threads,
        sources_root=config.sources_root,
        history_root=config.state / "history",
        now_us=now_us,
        memory_bytes=machine_memory_bytes() // 2 if given == "" else memory_bytes(given, "offline.memory"),
        spill_root=config.spill,
        on=checked_on(on),
        as_of=as_of,
    )


def checked_as_known_at(as_known_at: Any) -> bool | str | None:
    """Raises InputError, `type_mismatch`, for what is neither a bool nor a name."""
    if as_known_at is not None and not isinstance(as_known_at, bool | str):
        raise make_error("type_mismatch", f"as_known_at is {as_known_at!r}", "give True, the name of a column, or None")
    return as_known_at or None


def checked_on(on: Any) -> str | None:
    """Where a join or a load runs; raises InputError, `invalid_argument`."""
    if on not in (None, "ray"):
        raise make_error("invalid_argument", f"on is {on!r}", 'give "ray", or leave it out to work on this machine')
    return "ray" if on else None


def historical_features(request: JoinRequest, entity_df: Any) -> pa.Table:
    """See `FeatureStore.get_historical_features`."""
    from headrace.partitions import partitions_wanted

    if isinstance(entity_df, os.PathLike):
        entity_df = read_entities(Path(entity_df))
    entities = request.entities(entity_df)
    count = partitions_wanted(request, entities.num_rows, entities.nbytes)
    if count == 1 and request.on is None:
        return joined_at_once(request, entities)
    with _joined_in_parts(request, [entities], count) as joined:
        return with_counts(pa.concat_tables(list(joined.tables())), entities.schema, joined.counts)


def _joined_in_parts(
    request: JoinRequest, frames: Iterable[pa.Table], count: int
) -> AbstractContextManager[JoinedPartitions]:
    from headrace.partitions import joined_in_partitions
    from headrace.ray_join import joined_on_ray

    join = joined_in_partitions if request.on is None else joined_on_ray
    return join(request, frames, count)


def write_historical_features(request: JoinRequest, entity_df: Any, path: Path) -> dict[str, Any]:
    """See `FeatureStore.write_historical_features`."""
    from headrace.partitions import partitions_wanted

    frames: Iterable[Any] = [entity_df]
    if isinstance(entity_df, os.PathLike):
        file = open_entities(Path(entity_df))
        rows, size = (
            file.metadata.num_rows,
            sum(file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups)),
        )
        frames = file.iter_batches(batch_size=request.chunk_rows)
    else:
        table = to_table(entity_df, "the entity frame")
        rows, size, frames = table.num_rows, table.nbytes, [table]
    count = partitions_wanted(request, rows, size)
    if count == 1 and request.on is None:
        parts = [request.entities(frame) for frame in frames] or [request.entities(file.schema_arrow.empty_table())]
        joined_table = joined_at_once(request, pa.concat_tables(parts))
        counts: dict[str, Any] = json.loads(joined_table.schema.metadata[COUNTS_KEY])
        _write_parquet(path, [joined_table], request.chunk_rows)
        return counts
    with _joined_in_parts(request, (request.entities(frame) for frame in frames), count) as joined:
        tables = (with_counts(table, table.schema, joined.counts) for table in joined.tables())
        _write_parquet(path, tables, request.chunk_rows)
        return joined.counts


def _write_parquet(path: Path, tables: Iterable[pa.Table], group_rows: int) -> None:
    """Writes one table or more to a file that appears under its name when it is whole."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(unfinished, table.schema, compression="zstd", compression_level=1)
            writer.write_table(table, row_group_size=group_rows)
        if writer is not None:
            writer.close()
            unfinished.replace(path)
    except OSError as error:
        raise make_error("io", f"{path} cannot be written: {error}", "free space, or name another place") from error
    finally:
        unfinished.unlink(missing_ok=True)


def open_entities(path: Path) -> pq.ParquetFile:
    """A Parquet file of entity rows.

    Raises:
        UnknownNameError: `not_found`. StoreError: `io`, it is no Parquet file.
    """
    if not path.exists():
        raise make_error("not_found", f"the entity file {path} does not exist", "correct the path")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise make_error("io", f"the entity file {path} cannot be read: {error}", "give a Parquet file") from error


def read_entities(path: Path) -> pa.Table:
    """The rows of a Parquet file; raises as `open_entities`."""
    return open_entities(path).read()


def joined_at_once(request: JoinRequest, entities: pa.Table) -> pa.Table:
    """The training set of entity rows that fit into memory."""
    join = begin_join(request, entities)
    for view in join.views():
        add_rows(request, join, view, request.read(view))
    joined = join.finish()
    return with_counts(pa.table(joined), entities.schema, joined.counts)


def begin_join(request: JoinRequest, entities: pa.Table, views: Sequence[str] | None = None) -> _native.PointInTimeJoin:
    """A join of entity rows that takes source rows from now on; with `views`, one partition of the join of these."""
    return _native.PointInTimeJoin(
        request.plan,
        request.service,
        entities,
        request.event_ts_column,
        as_known_at=request.as_known_at,
        threads=request.threads,
        statuses=request.statuses and views is None,
        held_bytes_max=request.held_bytes_max,
        views=None if views is None else list(views),
    )


def add_rows(request: JoinRequest, join: _native.PointInTimeJoin, view: str, batches: Iterable[pa.RecordBatch]) -> None:
    """Gives a join the source rows of a view."""
    for rows in request.chunks(batches):
        join.add(view, rows)


def in_chunks(batches: Iterable[pa.RecordBatch], rows_max: int, bytes_max: int) -> Iterator[pa.Table]:
    """Batches put together to tables of about so many rows or bytes."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= rows_max or size >= bytes_max:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def with_counts(table: pa.Table, entities: pa.Schema, counts: dict[str, Any]) -> pa.Table:
    """The table with what the join has seen in its metadata, beside that of the entity rows."""
    told = json.dumps(counts, sort_keys=True).encode()
    return table.replace_schema_metadata({**(entities.metadata or {}), COUNTS_KEY: told})
