"""The payload log as its reader sees it: Parquet segments of what was served, by deployment and hour.

    payload/DEPLOYMENT/HOUR/NODE-UUID.parquet        HOUR is 2013-01-01T05, in UTC

The engine writes a segment beside its place and renames it, so a file is whole or is none; names that begin with a dot
are files that a process was writing when it ended, and nobody reads them. core/README.md has the columns.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.errors import HeadraceError, make_error
from headrace.frames import TIMESTAMP

FORMAT = 1
LOOKUP = "lookup"
_METADATA_KEY = b"headrace.payload"
_HOUR = dt.timedelta(hours=1)
_TORN_SECONDS = 3600
"""A file that is still not renamed after this time never will be."""
_COLUMNS = {
    "request_id": pa.string(),
    "at": TIMESTAMP,
    "status": pa.string(),
    "error": pa.string(),
    "compute_us": pa.int64(),
}
_STRUCTS = ("keys", "inputs", "outputs")


@dataclass(frozen=True)
class Lookups:
    """The lookups of one segment."""

    path: Path
    deployment: str
    service: str
    plan_digest: str
    rows: pa.Table
    """`request_id`, `at`, `status`, `error`, `compute_us`."""
    keys: dict[str, pa.ChunkedArray]
    inputs: dict[str, pa.ChunkedArray]
    """What the request brought for features that are computed."""
    outputs: dict[str, pa.ChunkedArray]
    """Each feature, and under `NAME__status` the status of its values."""
    features: tuple[str, ...]


def read_lookups(
    folder: Path,
    deployment: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> Iterator[Lookups]:
    """The lookups that were logged, segment by segment, in the order of deployments and hours.

    Args:
        folder: the payload log.
        deployment: only this one's.
        since: none before this time.
        until: none from this time on.

    Raises:
        StoreError: `corrupt_store`, a segment cannot be read; `newer_format`.
    """
    for path in sorted(folder.glob(f"*/*/{LOOKUP}-*.parquet")):
        if not _may_hold(path.parent.name, since, until):
            continue
        try:
            found = _read(path)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error
        if deployment is None or found.deployment == deployment:
            yield found


def remove_rows(folder: Path, wanted: Callable[[pa.Table], Any]) -> dict[str, int]:
    """Removes rows from all segments; each file is the old one or the new one.

    Args:
        folder: the payload log.
        wanted: which rows go, by a table of their keys.

    Returns:
        Deployment -> rows that were removed.

    Raises:
        StoreError: `corrupt_store`, a segment cannot be read; `io`.
    """
    removed: dict[str, int] = {}
    for path in folder.glob("*/*/.*.tmp"):
        if time.time() - path.stat().st_mtime > _TORN_SECONDS:
            path.unlink(missing_ok=True)
    for path in sorted(folder.glob("*/*/*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
            keys = _members(table.column("keys"))
            found = pc.fill_null(wanted(pa.table(keys)), False) if keys else None
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error
        count = 0 if found is None else pc.sum(found).as_py() or 0
        if not count:
            continue
        if count == table.num_rows:
            path.unlink()
        else:
            aside = path.with_name(f".{path.name}.tmp")
            pq.write_table(table.filter(pc.invert(found)), aside, compression="snappy")
            aside.replace(path)
        deployment = table.column("deployment")[0].as_py()
        removed[deployment] = removed.get(deployment, 0) + count
    return removed


def _unreadable(path: Path, error: Exception) -> HeadraceError:
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    return make_error(
        "corrupt_store", f"the payload segment {path} cannot be read: {reason}", "restore the file, or remove it"
    )


def _may_hold(hour: str, since: dt.datetime | None, until: dt.datetime | None) -> bool:
    try:
        start = dt.datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=dt.UTC)
    except ValueError:
        return True  # a time before year 1 or after 9999
    return (since is None or start + _HOUR > since) and (until is None or start < until)


def _read(path: Path) -> Lookups:
    with pq.ParquetFile(path) as file:
        said = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
        if said["format"] > FORMAT:
            raise make_error(
                "newer_format",
                f"the payload segment {path} has format {said['format']}, this version reads {FORMAT}",
                "use the version of headrace that wrote it, or a newer one",
            )
        table = file.read(columns=[*_COLUMNS, *_STRUCTS])
    rows = table.select(list(_COLUMNS)).cast(pa.schema(list(_COLUMNS.items())))
    keys, inputs, outputs = (_members(table.column(name)) for name in _STRUCTS)
    features = tuple(field["name"] for field in said["outputs"])
    for named, members in (("keys", keys), ("inputs", inputs), ("outputs", outputs)):
        for field in said[named]:
            if field["name"] not in members:
                raise ValueError(f"'{named}' has no member {field['name']!r}")
    words = [said[name] for name in ("deployment", "service", "plan_digest")]
    if not all(isinstance(word, str) for word in (*words, *features)):
        raise TypeError("a name in its metadata is no text")
    return Lookups(path, *cast("tuple[str, str, str]", words), rows, keys, inputs, outputs, features)


def _members(column: Any) -> dict[str, Any]:
    """The columns of a struct; none of the column of nulls that stands for an empty one."""
    if pa.types.is_null(column.type):
        return {}
    flat = column.flatten()
    return {column.type.field(place).name: array for place, array in enumerate(flat)}
