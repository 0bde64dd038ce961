"""Pushed rows in a Delta Lake table, for the tools that read those: each run appends what was pushed since the last.

The columns are those of the engine's shape (`headrace.sources`), with `__part`, the number of the push, and
`__pushed_us`. The commit that holds the rows also holds, as a transaction of the view, up to which push they go: a run
that is cut off, or two at once, append no push twice. Delta has no unsigned integers: they get the next larger type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.delta import require_delta
from headrace.errors import HeadraceError, make_error
from headrace.files import write_atomic
from headrace.history import PART, PUSHED_US, position, read_pushes_from
from headrace.sources import ViewRows

_FILE = "exports.json"
_SIGNED = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}


@dataclass(frozen=True)
class Exported:
    """What an export has appended.

    Attributes:
        rows: how many rows.
        first_push: the number of the first push that was not in the table before.
        next_push: the number after the last one that is in it now.
        version: the table's; None where there is none, as nothing was ever pushed.
    """

    rows: int
    first_push: int
    next_push: int
    version: int | None


def export_history(view: ViewRows, folder: Path, uri: str, project: str) -> Exported:
    """Appends to a Delta table what was pushed to a view since the last export to it.

    Args:
        view: a view with a PushSource.
        folder: `.headrace/history/VIEW`.
        uri: the table's folder or URL; made if need be.
        project: the project's name: views of several projects may share a table.

    Raises:
        ProcessError: `unavailable`, the package deltalake is not installed.
        StoreError: `corrupt_store`, the history cannot be read; `io`, the table cannot be written.
    """
    deltalake = require_delta()
    application = f"headrace/{project}/{view.name}"
    try:
        table = deltalake.DeltaTable(uri) if deltalake.DeltaTable.is_deltatable(uri) else None
        first = 0 if table is None else table.transaction_version(application) or 0
        end = position(folder)
        if end <= first:
            return Exported(0, first, first, None if table is None else table.version())
        _note(folder, uri)
        counted = [0]
        deltalake.write_deltalake(
            uri if table is None else table,
            _reader(view, folder, first, end, counted),
            mode="error" if table is None else "append",
            schema_mode=None if table is None else "merge",
            commit_properties=deltalake.CommitProperties(
                app_transactions=[deltalake.Transaction(application, end)],
                custom_metadata={"headrace.pushes": f"{first}-{end - 1}"},
            ),
        )
        return Exported(counted[0], first, end, deltalake.DeltaTable(uri).version())
    except HeadraceError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise make_error(
            "io", f"the Delta table {uri} cannot be written: {reason}", "check its place, and that it has these columns"
        ) from error


def _reader(view: ViewRows, folder: Path, first: int, end: int, counted: list[int]) -> pa.RecordBatchReader:
    shape = [*view.schema(), pa.field(PART, pa.int64()), pa.field(PUSHED_US, pa.int64())]
    schema = pa.schema([(field.name, _of_delta(field.type)) for field in shape if not pa.types.is_null(field.type)])

    def batches() -> Iterator[pa.RecordBatch]:
        for table in read_pushes_from(view, folder, first, end):
            counted[0] += table.num_rows
            yield from table.select(schema.names).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _of_delta(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_list(dtype):
        return pa.list_(_of_delta(dtype.value_type))
    return _SIGNED.get(dtype, dtype)


def _note(folder: Path, uri: str) -> None:
    """Remembers where rows went, for who erases them."""
    known = exports_of(folder)
    if uri not in known:
        write_atomic(folder / _FILE, json.dumps({"delta": [*known, uri]}).encode())


def exports_of(folder: Path) -> list[str]:
    """The Delta tables that a view's pushed rows were exported to.

    Raises:
        StoreError: `corrupt_store`.
    """
    path = folder / _FILE
    try:
        found: Any = json.loads(path.read_text("utf-8"))["delta"]
        return [str(uri) for uri in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise make_error(
            "corrupt_store", f"{path} cannot be read: {error!r}", "restore the file, or remove it"
        ) from error
