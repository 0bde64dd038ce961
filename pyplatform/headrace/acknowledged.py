"""How far the online store's writer has come, in a small file that readers look at.

    acknowledged    40 bytes, little endian
      0  8  the store: a number drawn when its log was made
      8  8  the sequence number that the next row will get: all rows before it have been acknowledged
     16  8  the sequence number of the snapshot in use
     24  8  how often the writer has said something
     32  8  all of these, combined: a reader that meets a half-written file finds out, and looks again

RocksDB opens a log for reading while it is being written to from whatever its files say at that moment, which may be
less than what has been acknowledged. So a reader first looks here, and then takes neither less nor more than that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = "acknowledged"
_FORM = struct.Struct("<QQQQQ")
_ATTEMPTS_MAX = 100
_MIX = 0x9E37_79B9_7F4A_7C15
_WORD = 2**64 - 1


@dataclass(frozen=True)
class Acknowledged:
    """What a reader may count on."""

    store: int
    next_sequence: int
    snapshot_sequence: int
    revision: int


class AcknowledgedFile:
    """The file as its writer has it open."""

    def __init__(self, folder: Path, store: int) -> None:
        said = read_acknowledged(folder)
        self._store = store
        self._revision = 0 if said is None else said.revision
        self._descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, next_sequence: int, snapshot_sequence: int) -> None:
        self._revision += 1
        words = (self._store, next_sequence, snapshot_sequence, self._revision)
        os.pwrite(self._descriptor, _FORM.pack(*words, _combined(words)), 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_acknowledged(folder: Path) -> Acknowledged | None:
    """What the writer has acknowledged; None where no writer has ever said."""
    for _ in range(_ATTEMPTS_MAX):
        try:
            data = (folder / FILE).read_bytes()
        except FileNotFoundError:
            return None
        if len(data) == _FORM.size:
            *words, combined = _FORM.unpack(data)
            if combined == _combined(words):
                return Acknowledged(*words)
    return None


def _combined(words: Sequence[int]) -> int:
    combined = 0
    for word in words:
        combined = ((combined ^ word) * _MIX + 1) & _WORD
    return combined
