"""A snapshot of the online table that is written beside the writer: its files by a thread, the rest by the writer."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from headrace import _native
from headrace.files import make_folder, sync_folder, sync_tree


class BackgroundSnapshot:
    """The table as it was when this was made. Rows may be written meanwhile; they stay in the log.

    The thread takes no lock: what follows the files (`move_in`, and dropping the log before it) is for the writer, at
    its next write or at its end. Nothing reads the folder before.
    """

    def __init__(self, local: _native.LocalStore, folder: Path, sequence: int, log_bytes: int) -> None:
        """Fixes what will be in the files and has them written.

        Args:
            local: the table, between two writes.
            folder: where the snapshot will be.
            sequence: the number of the next row.
            log_bytes: the bytes of the log that the snapshot makes superfluous.

        Raises:
            StoreError: `io`.
            OSError: the folder cannot be made.
        """
        self.folder = folder
        self.sequence = sequence
        self.log_bytes = log_bytes
        self._temporary = folder.with_suffix(".tmp")
        self._failure: BaseException | None = None
        for leftover in (folder, self._temporary):
            shutil.rmtree(leftover, ignore_errors=True)
        make_folder(folder.parent)
        self._begun = local.begin_snapshot(self._temporary)
        self._thread = threading.Thread(target=self._write, name="headrace-snapshot")
        self._thread.start()

    def _write(self) -> None:
        try:
            self._begun.finish()
            sync_tree(self._temporary)
        except BaseException as error:
            self._failure = error

    @property
    def is_written(self) -> bool:
        """Whether the thread is at its end, with or without success."""
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Waits for the thread and removes the files."""
        self._thread.join()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def move_in(self) -> None:
        """Waits for the files and gives the folder its name.

        Raises:
            StoreError, OSError: why they could not be written; nothing is left of them.
        """
        self._thread.join()
        if self._failure is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise self._failure
        self._temporary.rename(self.folder)
        sync_folder(self.folder.parent)
