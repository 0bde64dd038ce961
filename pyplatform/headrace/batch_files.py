"""Large batches of the log, each in its own file: RocksDB would write, copy and sort them together more than once.

    online/batches/SEQUENCE      the batch as the engine has encoded it
    log/SEQUENCE, its value      24 bytes in the batch's place, little endian
      0  8  "HRFILE" and two zeros: no batch begins like this
      8  8  length of the file
     16  8  CRC-32 of the file

A file is on the disk before the log refers to it, and is removed after the log has ceased to. One that nothing refers
to is what a process had written when it ended.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from headrace.files import make_folder, sync_folder, write_all

BYTES_MIN = 1024 * 1024
"""Smaller batches are values of the log themselves: a file costs more than it saves."""
_MAGIC = b"HRFILE\0\0"
_REFERENCE = struct.Struct("<8sQQ")


class BatchFiles:
    """The files of one log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, sequence: int) -> Path:
        return self.folder / f"{sequence:020}"

    def write(self, sequence: int, batch: bytes) -> bytes:
        """Writes a batch to the disk; returns what refers to it.

        Raises:
            OSError: the disk does not take it.
        """
        make_folder(self.folder)
        path = self._path(sequence)
        try:
            with path.open("wb", buffering=0) as file:
                write_all(file.fileno(), [batch], 0)
                os.fdatasync(file.fileno())
            sync_folder(self.folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return _REFERENCE.pack(_MAGIC, len(batch), zlib.crc32(batch))

    def resolve(self, sequence: int, value: bytes) -> bytes:
        """The batch that a value of the log is, or refers to.

        Raises:
            OSError: the file is not there, or cannot be read.
            ValueError: it is not what was written.
        """
        if not value.startswith(_MAGIC):
            return value
        _, length, checksum = _REFERENCE.unpack(value)
        batch = self._path(sequence).read_bytes()
        if len(batch) != length or zlib.crc32(batch) != checksum:
            raise ValueError(f"the batch {self._path(sequence)} is damaged")
        return batch

    def remove(self, sequence: int) -> None:
        """Removes a batch that the log does not refer to any more."""
        with contextlib.suppress(OSError):  # the next start tries again
            self._path(sequence).unlink()

    def keep_only(self, first: int, end: int) -> None:
        """Removes the batches before a sequence number, and those from another one on."""
        for sequence in list(self._sequences()):
            if not first <= sequence < end:
                self.remove(sequence)

    def _sequences(self) -> Iterator[int]:
        try:
            with os.scandir(self.folder) as entries:
                yield from (int(entry.name) for entry in entries if entry.name.isdecimal())
        except FileNotFoundError:
            return
