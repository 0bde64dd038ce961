"""The rows pushed to a view, kept for training: one Parquet file a write, in the order of the writes.

    history/VIEW/NUMBER.parquet                      rows that have been acknowledged
    history/VIEW/NUMBER.parquet.SEQUENCE.pending     rows of a write that is under way

Training must see exactly the rows that the online store has accepted. So a write's rows are first put aside, durably,
under the sequence number that the log will give them; they count once the log has them, which is also how a start finds
out what to do with rows that were put aside when the process ended. Numbers only grow: a file is never replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import make_error
from headrace.files import make_folder, sync_folder

_PENDING = ".pending"
_SUFFIX = ".parquet"


class ViewHistory:
    """One view's history, for its only writer."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        """Takes over what is there.

        Args:
            folder: made at the first write.
            sync: each write waits for the disk, as the log's do.
        """
        self.folder = folder
        self.sync = sync
        self._next_number: int | None = None

    @contextmanager
    def kept(self, rows: Any, sequence: int) -> Iterator[None]:
        """Keeps rows if the block writes them to the log from `sequence` on, and not if it fails.

        Args:
            rows: an Arrow table in the shape of `headrace.sources`, of accepted rows only.
            sequence: that of its first row.
        """
        aside = self._put_aside(rows, sequence)
        try:
            yield
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        aside.rename(_final(aside))

    def _put_aside(self, rows: Any, sequence: int) -> Path:
        import pyarrow.parquet as pq

        make_folder(self.folder)
        number = self._take_number()
        path = self.folder / f"{number:020}{_SUFFIX}.{sequence}{_PENDING}"
        try:
            # One push a file: encodings and statistics pay for large files only.
            pq.write_table(rows, path, compression="none", use_dictionary=False, write_statistics=False)
            if self.sync:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                sync_folder(self.folder)
        except OSError as error:
            path.unlink(missing_ok=True)
            message = f"the history file {path} cannot be written: {error}"
            raise make_error("io", message, "check the disk's space and rights") from error
        return path

    def _take_number(self) -> int:
        if self._next_number is None:
            found = [
                int(path.name.partition(".")[0])
                for path in self.folder.glob(f"*{_SUFFIX}*")
                if path.name[:20].isdigit()
            ]
            self._next_number = max(found, default=-1) + 1
        self._next_number += 1
        return self._next_number - 1


def _final(path: Path) -> Path:
    return path.with_name(path.name.partition(_SUFFIX)[0] + _SUFFIX)


def settle(root: Path, next_sequence: int) -> None:
    """Decides about rows that were put aside when a process ended: the log has them, or they never happened.

    Args:
        root: the folder of all views' histories.
        next_sequence: the log has the rows before it.
    """
    for path in sorted(root.glob(f"*/*{_PENDING}")):
        sequence = int(path.name.removesuffix(_PENDING).rpartition(".")[2])
        if sequence < next_sequence:
            path.rename(_final(path))
            sync_folder(path.parent)
        else:
            path.unlink()
