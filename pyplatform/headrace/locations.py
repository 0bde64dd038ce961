"""Where files are: a path of this machine, or any URL that fsspec knows (`s3://`, `gs://`, `https://`, `memory://`).

Passwords never stand in a URL of a definition: each protocol's library finds them as it always does, in the environment
or in its own configuration file.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace.errors import HeadraceError, make_error

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_GLOB = re.compile(r"[*?\[]")


def is_url(path: str) -> bool:
    """Whether a path names another place than this machine's file system."""
    return _URL.match(path) is not None


@dataclass(frozen=True)
class Location:
    """Some files, in the order of their names."""

    paths: list[str]
    filesystem: Any = None
    """fsspec's file system; None is that of this machine."""

    def open(self, path: str) -> IO[bytes]:
        """One of the files, for reading from its beginning."""
        if self.filesystem is None:
            return Path(path).open("rb")
        # fsspec's own files lack half of what Python's files can do.
        return io.BufferedReader(self.filesystem.open(path, "rb"))

    def arrow(self) -> Any:
        """The file system as Arrow wants it; None for this machine's."""
        if self.filesystem is None:
            return None
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self.filesystem))

    def fingerprint(self) -> list[list[Any]]:
        """What changes when a file is replaced or rewritten: name, size, and time, or what the place gives for it."""
        found = []
        for path in self.paths:
            if self.filesystem is None:
                status = Path(path).stat()
                found.append([path, status.st_size, status.st_mtime_ns, status.st_ino])
            else:
                info = self.filesystem.info(path)
                marks = [info.get(name) for name in ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified")]
                found.append([path, info.get("size"), *(str(mark) for mark in marks if mark is not None)])
        return found


def find(path: str, root: Path, place: str) -> Location:
    """The files of a path: one file, those in a folder, or those that a glob matches.

    Args:
        path: a path, relative to `root`, or a URL.
        root: where relative paths start.
        place: what they are the files of, for messages.

    Raises:
        UnknownNameError: `not_found`, there is no such file.
        StoreError: `io`, the place cannot be reached, or a package for its protocol is missing.
    """
    location = _find_url(path, place) if is_url(path) else _find_local(path, root)
    if not location.paths:
        start = "" if is_url(path) or Path(path).is_absolute() else f"; it starts in {root}"
        raise make_error("not_found", f"{place} does not exist", f"correct the path{start}")
    return location


def _find_local(path: str, root: Path) -> Location:
    given = root / path
    if given.is_dir():
        files = [file for file in given.rglob("*") if file.is_file() and _is_shown(file.relative_to(given).parts)]
    elif given.exists():
        files = [given]
    else:
        files = [Path(file) for file in root.glob(path)] if not Path(path).is_absolute() else _absolute_glob(path)
    return Location([str(file) for file in sorted(files)])


def _absolute_glob(path: str) -> list[Path]:
    anchor = Path(Path(path).anchor)
    return list(anchor.glob(str(Path(path).relative_to(anchor))))


def _is_shown(parts: tuple[str, ...]) -> bool:
    return not any(part.startswith((".", "_")) for part in parts)


def _find_url(url: str, place: str) -> Location:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url)
        if not path.startswith(("http://", "https://")) and _GLOB.search(path):
            return Location(sorted(filesystem.glob(path)), filesystem)
        if filesystem.isfile(path):
            return Location([path], filesystem)
        if filesystem.isdir(path):
            names = {name: name.removeprefix(path).strip("/").split("/") for name in filesystem.find(path)}
            return Location(sorted(name for name, parts in names.items() if _is_shown(tuple(parts))), filesystem)
        return Location([path] if filesystem.exists(path) else [], filesystem)
    except Exception as error:
        raise unreachable(place, error) from error


def unreachable(place: str, error: Exception) -> HeadraceError:
    """The error for files that cannot be read, with what to do about it."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, FileNotFoundError):
        return make_error("not_found", f"{place} does not exist", "correct the path or the URL")
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, ImportError):
        return make_error("io", f"{place} cannot be read: {reason}", "install the package that the message names")
    return make_error("io", f"{place} cannot be read: {reason}", "correct the file, or the source's path or format")
