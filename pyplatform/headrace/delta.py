"""Delta Lake tables as sources: as they are now, or as they were at a version or a time. Needs the extra `delta`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from headrace.errors import HeadraceError, make_error


def require_delta() -> Any:
    """The package deltalake.

    Raises:
        ProcessError: `unavailable`, it is not installed.
    """
    try:
        import deltalake
    except ImportError as error:
        raise make_error(
            "unavailable", "the Python package 'deltalake' is not installed", "pip install 'headrace[delta]'"
        ) from error
    return deltalake


def as_of_version_or_time(as_of: Any) -> int | dt.datetime | None:
    """A version, or a time in UTC.

    Raises:
        InputError: `invalid_argument`, it is neither.
    """
    if as_of is None or (isinstance(as_of, int) and not isinstance(as_of, bool) and as_of >= 0):
        return as_of
    if isinstance(as_of, str):
        if as_of.isdecimal():
            return int(as_of)
        try:
            as_of = dt.datetime.fromisoformat(as_of)
        except ValueError:
            as_of = None
    if not isinstance(as_of, dt.datetime):
        raise make_error("invalid_argument", f"as_of is {as_of!r}", "give a version (0, 1, ..) or a time (ISO 8601)")
    return as_of.astimezone(dt.UTC) if as_of.tzinfo is not None else as_of.replace(tzinfo=dt.UTC)


def _version_at(table: Any, moment: dt.datetime) -> int:
    """The newest version committed until a moment."""
    moment_ms = moment.timestamp() * 1000
    versions = [entry["version"] for entry in table.history() if entry["timestamp"] <= moment_ms]
    if not versions:
        raise ValueError("its oldest version is younger")
    return int(max(versions))


def delta_table(path: str, root: Path | None, as_of: Any, place: str) -> Any:
    """A Delta table at a version.

    Args:
        path: of the table's folder, or its URL.
        root: where a relative path starts; None for a URL.
        as_of: version or time; None is the newest.
        place: what the table is, for messages.

    Raises:
        UnknownNameError: `not_found`, there is no Delta table, or it has no such version.
        StoreError: `io`.
    """
    deltalake = require_delta()
    moment = as_of_version_or_time(as_of)
    uri = path if root is None else str(root / path)
    try:
        table = deltalake.DeltaTable(uri, version=moment if isinstance(moment, int) else None)
        if isinstance(moment, dt.datetime):
            table = deltalake.DeltaTable(uri, version=_version_at(table, moment))
    except HeadraceError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        if moment is not None and deltalake.DeltaTable.is_deltatable(uri):
            raise make_error(
                "not_found", f"{place} has no state as of {as_of}: {reason}", "see the table's history"
            ) from error
        if isinstance(error, deltalake.exceptions.TableNotFoundError):
            raise make_error("not_found", f"{place} is not a Delta table", "correct the path") from error
        raise make_error("io", f"{place} cannot be read: {reason}", "check the table's folder or URL") from error
    return table


def open_delta(path: str, root: Path | None, as_of: Any, place: str) -> ds.Dataset:
    """A Delta table's rows, its files in the order in which they were written."""
    table = delta_table(path, root, as_of, place)
    dataset = table.to_pyarrow_dataset()
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
    written = {Path(action["path"]).name: action["modification_time"] for action in actions}
    fragments = sorted(dataset.get_fragments(), key=lambda file: (written[Path(file.path).name], file.path))
    if not fragments:
        return dataset
    return ds.FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)
