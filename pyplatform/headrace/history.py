"""The history of a view: the rows that were pushed, kept for training in Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import make_error
from headrace.files import sync_folder
from headrace.sources import BATCH_ROWS_MAX, ViewRows


def append_history(folder: Path, sequence: int, table: pa.Table) -> None:
    """Keeps rows in the engine's shape for training, durably. The name sorts after those of earlier writes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sequence:020}.parquet"
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(folder)


def read_history(view: ViewRows, folder: Path) -> Iterator[pa.RecordBatch]:
    """The pushed rows of a view in the order of the pushes. A feature that is younger than a row is null in it.

    Raises:
        StoreError: `corrupt_store`, a file cannot be read.
    """
    schema = view.schema()
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(path)
            columns = [
                table.column(field.name).cast(field.type)
                if field.name in table.column_names
                else pa.nulls(table.num_rows, field.type)
                for field in schema
            ]
        except (pa.ArrowException, OSError) as error:
            raise make_error(
                "corrupt_store", f"the history file {path} cannot be read: {error}", "restore the file, or remove it"
            ) from error
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches(max_chunksize=BATCH_ROWS_MAX)
