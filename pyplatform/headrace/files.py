"""Small files that are either the old one or the new one, never half of it, whatever ends the process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces the file; when this returns, the new content survives a power cut."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_all(descriptor: int, parts: Sequence[Any], at: int) -> int:
    """Writes parts, bytes or what lends them, one after the other at a place of a file; returns how many they are.

    Raises:
        OSError: the disk does not take them all.
    """
    written = os.pwritev(descriptor, parts, at)
    whole = sum(memoryview(part).nbytes for part in parts)
    while written < whole:  # a full disk takes a part, and says why at the next try
        rest = b"".join(parts)[written:]
        written += os.pwrite(descriptor, rest, at + written)
    return whole


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that their names survive a power cut."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Makes the files in a folder, and their names, survive a power cut."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
