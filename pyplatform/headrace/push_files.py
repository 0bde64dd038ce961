"""The file that takes pushed rows as they come: push after push, until a compaction makes Parquet of it.

    FIRST.pushes    FIRST: the number of its first push; little endian
      0   8  "HRPUSH1" and a line feed
      8   8  how many bytes of the file count
     16   8  the number after that of the last push that counts
     24   4  length of the schema
     28   4  CRC-32 of the schema
     32   8  CRC-32 of the 32 bytes before: a reader that meets a half-written head looks again
     40      the Arrow IPC schema message, then each push:
       0   8  the sequence number that the log gave its first row
       8   8  its number
      16   8  when it was pushed, in microseconds UTC
      24   8  its rows
      32   8  length of the message
      40   8  CRC-32 of the 40 bytes before and the message
      48      an Arrow IPC record batch message

A push is appended before the log has its rows and counts, for readers, when the head says so: after the log. At a start
the log decides about those that the head does not count yet. Lengths of messages are multiples of 8.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa

from headrace.errors import HeadraceError, make_error
from headrace.files import sync_folder, write_all

SUFFIX = ".pushes"
_MAGIC = b"HRPUSH1\n"
_HEAD = struct.Struct("<8sQQII")
_PUSH = struct.Struct("<QQqQQ")
_CHECKED = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size + _CHECKED.size
_PUSH_BYTES = _PUSH.size + _CHECKED.size
_BYTES_MAX = 64 * 1024 * 1024
_COPY_BYTES = 1024 * 1024
_ATTEMPTS_MAX = 100


@dataclass(frozen=True)
class Head:
    """What a file says of itself."""

    end: int
    next_number: int
    schema_bytes: int
    schema_checksum: int

    @property
    def begin(self) -> int:
        """Where the first push is."""
        return HEAD_BYTES + self.schema_bytes

    def to_bytes(self) -> bytes:
        data = _HEAD.pack(_MAGIC, self.end, self.next_number, self.schema_bytes, self.schema_checksum)
        return data + _CHECKED.pack(zlib.crc32(data))

    @classmethod
    def of(cls, data: bytes) -> Head | None:
        if len(data) != HEAD_BYTES or _checksum(data[_HEAD.size :]) != zlib.crc32(data[: _HEAD.size]):
            return None
        magic, *numbers = _HEAD.unpack_from(data)
        return cls(*numbers) if magic == _MAGIC else None


@dataclass(frozen=True)
class Push:
    """One push, as its file has it."""

    sequence: int
    number: int
    pushed_us: int
    rows: int
    length: int
    at: int
    """Where its record begins."""

    @property
    def end(self) -> int:
        return self.at + _PUSH_BYTES + self.length


def read_head(path: Path) -> Head:
    """The head of a file that may be being written.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: `corrupt_store`.
    """
    with path.open("rb", buffering=0) as file:
        for _ in range(_ATTEMPTS_MAX):
            head = Head.of(os.pread(file.fileno(), HEAD_BYTES, 0))
            if head is not None:
                return head
    raise corrupt(path, "its head is damaged")


def counted_pushes(path: Path) -> list[Push]:
    """The pushes that count.

    Raises:
        FileNotFoundError, StoreError: as `read_head`.
    """
    head = read_head(path)
    with path.open("rb", buffering=0) as file:
        return list(_counted(path, file.fileno(), head))


def read_pushes(path: Path) -> Iterator[tuple[Push, pa.RecordBatch]]:
    """The pushes that count, with their rows.

    Raises:
        FileNotFoundError, StoreError: as `read_head`.
    """
    head = read_head(path)
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        schema = _read_schema(path, descriptor, head)
        for push in _counted(path, descriptor, head):
            message = _message(descriptor, push)
            if message is None:
                raise corrupt(path, f"push {push.number} does not have its checksum")
            try:
                batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema)
            except (pa.ArrowException, OSError) as error:
                raise corrupt(path, str(error)) from error
            yield push, batch


def _counted(path: Path, descriptor: int, head: Head) -> Iterator[Push]:
    """The records that count; raises where they do not go as far as the head says."""
    at = head.begin
    for push in _pushes(descriptor, head.begin, head.end):
        at = push.end
        yield push
    if at != head.end:
        raise corrupt(path, "it ends before its last push")


def _pushes(descriptor: int, begin: int, end: int) -> Iterator[Push]:
    """The records from a place on that lie before another one, as far as they look like records."""
    at = begin
    while at + _PUSH_BYTES <= end:
        data = os.pread(descriptor, _PUSH.size, at)
        if len(data) < _PUSH.size:
            return
        sequence, number, pushed_us, rows, length = _PUSH.unpack(data)
        push = Push(sequence, number, pushed_us, rows, length, at)
        if push.end > end or not push.length:
            return
        yield push
        at = push.end


def _message(descriptor: int, push: Push) -> bytes | None:
    """The message of a push; None where it is not what was written."""
    data = os.pread(descriptor, push.end - push.at, push.at)
    if len(data) != push.end - push.at:
        return None
    message = data[_PUSH_BYTES:]
    checksum = zlib.crc32(message, zlib.crc32(data[: _PUSH.size]))
    return message if _checksum(data[_PUSH.size : _PUSH_BYTES]) == checksum else None


def _checksum(data: bytes) -> int:
    return int(_CHECKED.unpack(data)[0])


def _read_schema(path: Path, descriptor: int, head: Head) -> pa.Schema:
    message = os.pread(descriptor, head.schema_bytes, HEAD_BYTES)
    if zlib.crc32(message) != head.schema_checksum:
        raise corrupt(path, "its schema does not have its checksum")
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowException, OSError) as error:
        raise corrupt(path, str(error)) from error


def corrupt(path: Path, reason: str) -> HeadraceError:
    """The error of a history that cannot be read."""
    return make_error("corrupt_store", f"the history {path} cannot be read: {reason}", "restore the file, or remove it")


class PushWriter:
    """A file that takes pushes, for its only writer."""

    def __init__(self, path: Path, schema: pa.Schema, descriptor: int, head: Head, *, sync: bool) -> None:
        self.path = path
        self.schema = schema
        self._descriptor = descriptor
        self._head = head
        self._appended = head
        self._sync = sync
        self._is_said = True
        self._is_cut = True

    @classmethod
    def create(cls, path: Path, schema: pa.Schema, number: int, *, sync: bool) -> Self:
        """Makes a file for the pushes from a number on.

        Raises:
            OSError: it cannot be made.
        """
        message = schema.serialize().to_pybytes()
        head = Head(HEAD_BYTES + len(message), number, len(message), zlib.crc32(message))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, [head.to_bytes(), message], 0)
            if sync:
                os.fdatasync(descriptor)
            temporary.replace(path)
            if sync:
                sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        return cls(path, schema, descriptor, head, sync=sync)

    @classmethod
    def open(cls, path: Path, *, sync: bool) -> Self:
        """Goes on with a file.

        Raises:
            OSError, StoreError: as `read_head`.
        """
        head = read_head(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(path, _read_schema(path, descriptor, head), descriptor, head, sync=sync)
        except BaseException:
            os.close(descriptor)
            raise

    def takes(self, schema: pa.Schema) -> bool:
        """Whether rows of a schema belong in this file, and there is room."""
        return self._head.end < _BYTES_MAX and self.schema.equals(schema)

    def append(self, batch: pa.RecordBatch, sequence: int, number: int, pushed_us: int) -> None:
        """Appends a push, which does not count yet.

        Raises:
            OSError: nothing has changed.
        """
        message = batch.serialize()
        data = _PUSH.pack(sequence, number, pushed_us, batch.num_rows, message.size)
        checked = _CHECKED.pack(zlib.crc32(message, zlib.crc32(data)))
        try:
            written = write_all(self._descriptor, [data, checked, message], self._head.end)
            if self._sync:
                os.fdatasync(self._descriptor)
        except BaseException:
            self.drop()
            raise
        self._is_cut = True
        self._appended = replace(self._head, end=self._head.end + written, next_number=number + 1)

    def count(self) -> None:
        """What was appended counts from now on."""
        self._head = self._appended
        # The log has the rows, so nobody may be told that they are refused. The next push tries again, as `close` does.
        with contextlib.suppress(OSError):
            self._say()

    def drop(self) -> None:
        """Takes back what was appended and does not count."""
        self._appended = self._head
        try:
            self._cut()
        except OSError:  # a start must not take what is left there for a push that the log has
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, bytes(_PUSH_BYTES), self._head.end)

    def _say(self) -> None:
        self._is_said = False
        os.pwrite(self._descriptor, self._head.to_bytes(), 0)
        self._is_said = True

    def _cut(self) -> None:
        self._is_cut = False
        os.ftruncate(self._descriptor, self._head.end)
        if self._sync:
            os.fdatasync(self._descriptor)
        self._is_cut = True

    def close(self) -> None:
        """Lets go of the file.

        Raises:
            OSError: it still does not say what counts, or has more than that.
        """
        descriptor = self._descriptor
        if descriptor < 0:
            return
        try:
            if not self._is_said:
                self._say()
            if not self._is_cut:
                self._cut()
        finally:
            self._descriptor = -1
            os.close(descriptor)


def is_blank(path: Path) -> bool:
    """Whether a file has no head at all: what a power cut may leave of one that was new."""
    with path.open("rb", buffering=0) as file:
        return not any(os.pread(file.fileno(), HEAD_BYTES, 0))


def settle_pushes(path: Path, next_sequence: int, *, sync: bool) -> Path | None:
    """Decides about pushes that the head does not count: the log has them, or they never happened.

    Args:
        path: the file, whose writer has ended.
        next_sequence: the log has the rows before it.
        sync: its writes have waited for the disk.

    Returns:
        Where a power cut has damaged the last pushes that counted: a copy of the file as it was. They do not count any
        more. Of other damage, readers of the file say that it is there.

    Raises:
        StoreError: `corrupt_store`, the head or the schema is damaged.
        OSError: the file cannot be written.
    """
    head = read_head(path)
    with path.open("r+b", buffering=0) as file:
        descriptor = file.fileno()
        _read_schema(path, descriptor, head)
        torn = None
        settled = head if sync else _without_torn_end(path, descriptor, head)
        if settled != head:
            torn = path.with_suffix(".torn")
            shutil.copy2(path, torn)
        else:
            for push in _pushes(descriptor, head.end, os.fstat(descriptor).st_size):
                if push.sequence >= next_sequence or _message(descriptor, push) is None:
                    break
                settled = replace(head, end=push.end, next_number=push.number + 1)
        if settled != head:
            os.pwrite(descriptor, settled.to_bytes(), 0)
        if settled != head or os.fstat(descriptor).st_size != settled.end:
            os.ftruncate(descriptor, settled.end)
            os.fdatasync(descriptor)
    return torn


def _without_torn_end(path: Path, descriptor: int, head: Head) -> Head:
    """A head that does not count the last pushes if they are damaged, and none after them is whole."""
    whole = replace(head, end=head.begin, next_number=_first_number(path))
    is_torn = False
    for push in _pushes(descriptor, head.begin, head.end):
        if _message(descriptor, push) is None:
            is_torn = True
        elif is_torn:
            return head
        else:
            whole = replace(head, end=push.end, next_number=push.number + 1)
    return whole


def copy_pushes(path: Path, place: Path, next_number: int, next_sequence: int) -> None:
    """Copies those that come before a push, and those that the log has: the rows before a sequence number.

    Raises:
        FileNotFoundError: a compaction has taken the file away.
        OSError, StoreError: as `read_head`; the copy cannot be written.
    """
    head = read_head(path)
    with path.open("rb", buffering=0) as file, place.open("xb", buffering=0) as copy:
        descriptor = file.fileno()
        end, following = head.begin, _first_number(path)
        for push in _pushes(descriptor, head.begin, os.fstat(descriptor).st_size):
            if push.number >= next_number and push.sequence >= next_sequence:
                break
            end, following = push.end, push.number + 1
        copied = replace(head, end=end, next_number=following)
        write_all(copy.fileno(), [copied.to_bytes()], 0)
        at = HEAD_BYTES
        while at < end:
            data = os.pread(descriptor, min(end - at, _COPY_BYTES), at)
            if not data:
                raise corrupt(path, "it ends before its last push")
            at += write_all(copy.fileno(), [data], at)


def _first_number(path: Path) -> int:
    return int(path.stem)
