"""What tasks on a Ray cluster do: cut a piece of a source, join or reduce a partition. Rows travel as Arrow IPC.

A machine of the cluster needs the same headrace, and the sources under the same paths. Ray's tasks name functions of
this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from headrace import _native
from headrace.backfill import Backfill, joined_parts, read_part
from headrace.errors import HeadraceError
from headrace.partitions import KeySet, join_partition, key_sets
from headrace.ray_join import load_request
from headrace.sources import Part, leave_out, read_rows


def as_bytes(schema: pa.Schema, tables: Any) -> bytes:
    """Tables as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def batches_of(data: bytes) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream."""
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        yield from reader


def cut(chunks: Any, schema: pa.Schema, keys: tuple[str, ...], count: int) -> list[bytes]:
    """Source rows by partition, as Arrow streams; without keys in one."""
    parts: list[list[pa.Table]] = [[] for _ in range(count if keys else 1)]
    for rows in chunks:
        cut_rows = _native.partition_rows(rows, list(keys), count) if keys else [rows]
        for part, some in zip(parts, cut_rows, strict=True):
            if some.num_rows:
                part.append(pa.table(some))
    return [as_bytes(schema, part) for part in parts]


def cut_part(job: str, plan: str, view: str, part: Part, count: int) -> list[bytes]:
    """Reads a part of a view's files and cuts it.

    Raises:
        RuntimeError: a HeadraceError as JSON, because Ray hands on what Python's own exceptions say.
    """
    request = load_request(job, plan)
    rows = request.views[view]
    try:
        moment = request.moment_of(view)
        batches = read_rows(rows, request.sources_root, request.now_us, leave_out, moment, part)
        return cut(request.chunks(batches), rows.schema(), tuple(rows.keys), count)
    except HeadraceError as error:
        raise RuntimeError(error_text(error)) from None


def join_cut(
    job: str, plan: str, key_set: str, entities: bytes, views: list[tuple[str, int]], node: str, *parts: bytes
) -> tuple[bytes, str]:
    """Joins a partition; returns what it found, and its counts and machine as JSON.

    Args:
        job: the request.
        plan: its plan.
        key_set: the name of the partition's key set.
        entities: its entity rows.
        views: each view and the number of its parts.
        node: where this runs.
        *parts: source rows, view by view, each view's in their order.

    Raises:
        RuntimeError: as `cut_part`.
    """
    request = load_request(job, plan)
    found: KeySet = next(one for one in key_sets(request) if one.name == key_set)
    table = pa.Table.from_batches(list(batches_of(entities)), schema=_schema(entities))

    def sources() -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        first = 0
        for view, count in views:
            yield view, (batch for part in parts[first : first + count] for batch in batches_of(part))
            first += count

    try:
        joined, counts = join_partition(request, found, table, sources())
    except HeadraceError as error:
        raise RuntimeError(error_text(error)) from None
    return as_bytes(joined.schema, [joined]), json.dumps({"counts": counts, "node": node})


def _schema(data: bytes) -> pa.Schema:
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        return reader.schema


def error_text(error: HeadraceError) -> str:
    return json.dumps({"code": error.code, "message": error.message, "hint": error.hint})


def cut_whole(job: str, plan: str, view: str, part: Part, count: int) -> bytes:
    """A part of a source that is not cut."""
    [whole] = cut_part(job, plan, view, part, count)
    return whole


def join_here(job: str, plan: str, key_set: str, entities: bytes, views: Any, *parts: bytes) -> tuple[bytes, str]:
    """Joins a partition, and says on which machine."""
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return join_cut(job, plan, key_set, entities, views, node, *parts)


def read_here(backfill: str, part: Part) -> tuple[bytes | str, ...]:
    """Reads a part of a source for the online table: its rows by partition, then what became of them as JSON.

    Raises:
        RuntimeError: as `cut_part`.
    """
    job = Backfill.from_json(backfill)
    schema = job.rows.schema()
    try:
        cut, report = read_part(job, part)
    except HeadraceError as error:
        raise RuntimeError(error_text(error)) from None
    return (*(as_bytes(schema, tables) for tables in cut), report.to_json())


def reduce_here(backfill: str, *parts: bytes) -> tuple[bytes, str]:
    """What the online table would keep of a partition, whose parts are in their order; and on which machine."""
    import ray

    job = Backfill.from_json(backfill)
    schema = job.rows.schema()
    found = joined_parts(job, [pa.Table.from_batches(list(batches_of(part)), schema=schema) for part in parts])
    node: str = ray.get_runtime_context().get_node_id()
    return as_bytes(schema, [found]), node
