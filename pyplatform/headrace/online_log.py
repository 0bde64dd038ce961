"""The write-ahead log of the online table, and its metadata, in RocksDB.

Each value under `log/` is a batch that the engine has encoded, or refers to the file of a large one
(`headrace.batch_files`); what belongs to it (intervals, the next sequence number) is written with it in one atomic
RocksDB batch. The key is `log/` and the sequence number of the batch's first row, 8 bytes
big-endian, so that the order of the keys is the order of the writes. Everything under `meta/` is JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rocksdict import (
    AccessType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from headrace import _native
from headrace.batch_files import BYTES_MIN, BatchFiles
from headrace.errors import HeadraceError, make_error

_LOG = b"log/"
_META = b"meta/"
_LOG_END = b"log0"  # '0' follows '/'
_WRITE_BUFFER_BYTES = 16 * 1024 * 1024
_WAL_BYTES_MAX = 64 * 1024 * 1024
_INFO_LOG_BYTES_MAX = 1024 * 1024
_LOCK_ATTEMPTS_MAX = 5
_LOCK_PAUSE_SECONDS = 0.005


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(_WAL_BYTES_MAX)
    options.set_max_open_files(64)
    # What is written is soon covered by a snapshot and dropped: neither worth compressing nor worth sorting together.
    options.set_compression_type(DBCompressionType.none())
    options.set_disable_auto_compactions(True)
    # A torn record at the very end was never acknowledged; damage anywhere else must be reported, not skipped.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_INFO_LOG_BYTES_MAX)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_is_fd_close_on_exec(True)
    return options


def log_key(sequence: int) -> bytes:
    return _LOG + sequence.to_bytes(8, "big")


# The process that first opened RocksDB. Its threads do not survive a fork, and a child that opened it again would wait
# for them: there RocksDB is not touched, and `open_reader` asks a fresh process instead.
_rocksdb_process: int | None = None


def _is_rocksdb_usable() -> bool:
    return _rocksdb_process is None or _rocksdb_process == os.getpid()


class WriterLock:
    """The right to write to a folder: at most one process has it, until it ends or lets go."""

    def __init__(self, folder: Path) -> None:
        """Takes the right.

        Raises:
            StoreError: `store_locked`, naming the process that has it.
        """
        self._path = folder / "lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not self._take():
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise make_error(
                "store_locked",
                f"process {holder} is writing to the online store {folder}",
                "end that process, or write through it: a store has one writer; reading needs no lock",
            )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        _held_locks.add(self)

    def _take(self) -> bool:
        """A few times: a reader that asks whether there is a writer has the lock for a moment."""
        for _ in range(_LOCK_ATTEMPTS_MAX):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                time.sleep(_LOCK_PAUSE_SECONDS)
        return False

    def release(self) -> None:
        """Lets go. In a forked child this only drops the child's share: the lock stays with the parent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def has_writer(folder: Path) -> bool:
    """Whether a process has the right to write to the folder now."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


_held_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()
_open_logs: weakref.WeakSet[OnlineLog] = weakref.WeakSet()


class OnlineLog:
    """One RocksDB folder, open for writing or for reading."""

    def __init__(self, folder: Path, *, writable: bool, sync: bool = False) -> None:
        """Opens the log, making the folder if need be.

        Args:
            folder: the RocksDB folder.
            writable: a reader sees what the folder's files say at this moment, which may be less than was written
                before.
            sync: each append waits for the disk.

        Raises:
            StoreError: `corrupt_store`, RocksDB cannot open the folder.
            ProcessError: `used_after_fork`, a parent of this process has used RocksDB.
        """
        global _rocksdb_process
        if not _is_rocksdb_usable():
            raise make_error(
                "used_after_fork",
                f"the online store {folder} cannot be written to: the process had used a store before it forked",
                "open stores after the fork only, or start processes with multiprocessing's method 'spawn'",
            )
        _rocksdb_process = os.getpid()
        self.folder = folder
        self._files = BatchFiles(folder.parent / "batches")
        self._pid = os.getpid()
        self._write_options = WriteOptions()
        self._write_options.sync = sync
        self._access = AccessType.read_write() if writable else AccessType.read_only(False)
        self._db: Rdict | None = self._open()
        self.has_failed = False
        """Whether a write has failed: RocksDB then refuses all others, until it is opened again."""
        _open_logs.add(self)

    def _open(self) -> Rdict:
        try:
            return Rdict(str(self.folder), options=_options(), access_type=self._access)
        except Exception as error:
            raise corrupt_store(self.folder, str(error)) from error

    def reopen(self) -> None:
        """Opens the folder anew after a write has failed. What that write has left there may be whole, or nothing.

        Raises:
            StoreError: `corrupt_store`, it cannot be opened yet.
        """
        self.close()
        self._db = self._open()
        self.has_failed = False

    @property
    def db(self) -> Rdict:
        if self._db is None:
            raise make_error("unavailable", f"the log {self.folder} is closed", "open the store again")
        if self._pid != os.getpid():
            raise make_error(
                "used_after_fork",
                "this OnlineLog was made before the process forked",
                "open the store in the child process",
            )
        return self._db

    @property
    def is_own(self) -> bool:
        """Whether it was opened by this process, not by its parent."""
        return self._pid == os.getpid()

    def close(self) -> None:
        if self._db is not None and self.is_own:
            # After a failed write it cannot flush, and what it has acknowledged is in its files all the same.
            with contextlib.suppress(Exception):
                self._db.close()
        self._db = None

    def append(self, sequence: int, batch: bytes, meta: Mapping[str, Any]) -> None:
        """Writes a batch and the metadata that belongs to it, atomically.

        When this returns, the write survives the end of the process (and, with `sync`, of the machine).

        Raises:
            StoreError: `io`.
        """
        value = batch
        if len(batch) >= BYTES_MIN:
            try:
                value = self._files.write(sequence, batch)
            except OSError as error:
                raise self._unwritable(error) from error
        self._write({log_key(sequence): value}, meta)

    def retract(self, sequence: int, meta: Mapping[str, Any]) -> None:
        """Takes a batch back that could not be applied, and puts the metadata right."""
        self._write({log_key(sequence): None}, meta)
        self._files.remove(sequence)

    def tidy(self) -> None:
        """Removes files of batches that the log does not have, as a process that was killed leaves them."""
        self._files.keep_only(self.meta("snapshot_sequence") or 0, self.meta("next_sequence") or 0)

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        self._write({}, meta)

    def _write(self, values: Mapping[bytes, bytes | None], meta: Mapping[str, Any]) -> None:
        writes = WriteBatch(raw_mode=True)
        for key, value in values.items():
            if value is None:
                writes.delete(key)
            else:
                writes.put(key, value)
        for name, content in meta.items():
            writes.put(_META + name.encode(), json.dumps(content, sort_keys=True).encode())
        try:
            self.db.write(writes, self._write_options)
        except HeadraceError:
            raise
        except Exception as error:
            self.has_failed = True
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> HeadraceError:
        message = f"the log {self.folder} cannot be written: {error}"
        return make_error("io", message, "check the disk's space and rights")

    def meta(self, name: str) -> Any:
        """A metadata value; None if it was never written.

        Raises:
            StoreError: `corrupt_store`.
        """
        try:
            value = self.db.get(_META + name.encode())
            return None if value is None else json.loads(value)
        except HeadraceError:
            raise
        except Exception as error:
            raise corrupt_store(self.folder, f"meta/{name}: {error}") from error

    def entries(self, first_sequence: int) -> Iterator[tuple[int, bytes]]:
        """(sequence, batch) from a sequence number on, in order.

        Raises:
            StoreError: `corrupt_store`, a block or a batch's file does not have its checksum, or the file is gone.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(_LOG_END)
        options.set_verify_checksums(True)
        cursor = self.db.iter(options)
        try:
            cursor.seek(log_key(first_sequence))
            while cursor.valid():
                sequence = int.from_bytes(cursor.key()[len(_LOG) :], "big")
                yield sequence, self._files.resolve(sequence, cursor.value())
                cursor.next()
            cursor.status()
        except HeadraceError:
            raise
        except Exception as error:
            raise corrupt_store(self.folder, str(error)) from error

    def forget_before(self, sequence: int, meta: Mapping[str, Any]) -> None:
        """Deletes the batches before a sequence number, writes metadata (atomic, durable), then frees their space."""
        writes = WriteBatch(raw_mode=True)
        writes.delete_range(log_key(0), log_key(sequence))
        for name, content in meta.items():
            writes.put(_META + name.encode(), json.dumps(content, sort_keys=True).encode())
        durable = WriteOptions()
        durable.sync = True
        try:
            self.db.write(writes, durable)
            self.db.flush()
            self.db.compact_range(log_key(0), log_key(sequence))
        except HeadraceError:
            raise
        except Exception as error:
            self.has_failed = True
            raise self._unwritable(error) from error
        self._files.keep_only(sequence, 2**64)


class LogReader(Protocol):
    """What one needs of a log to bring a table up to date."""

    def meta(self, name: str) -> Any: ...
    def entries(self, first_sequence: int) -> Iterator[tuple[int, bytes]]: ...
    def close(self) -> None: ...


def open_reader(folder: Path) -> LogReader:
    """The log as it is now.

    Raises:
        StoreError: `corrupt_store`.
    """
    return OnlineLog(folder, writable=False) if _is_rocksdb_usable() else _LogOfOtherProcess(folder)


class _LogOfOtherProcess:
    """A log that another process reads for this one, in a child of a process that has used RocksDB."""

    _ENTRY = struct.Struct("<QQ")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-c", "from headrace.online_log import dump; dump()", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        self._stream = self._process.stdout
        self._meta: dict[str, Any] = json.loads(self._stream.readline() or self._failure())

    def _failure(self) -> str:
        _, said = self._process.communicate()
        raise corrupt_store(self._folder, said.decode(errors="replace").strip().rpartition("\n")[2])

    def meta(self, name: str) -> Any:
        return self._meta.get(name)

    def entries(self, first_sequence: int) -> Iterator[tuple[int, bytes]]:
        while head := self._stream.read(self._ENTRY.size):
            sequence, length = self._ENTRY.unpack(head)
            batch = self._stream.read(length)
            if sequence >= first_sequence:
                yield sequence, batch
        if self._process.wait() != 0:
            self._failure()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def dump() -> None:
    """Writes a log to the standard output: a line of JSON metadata, then each entry's sequence, length and bytes."""
    log = OnlineLog(Path(sys.argv[1]), writable=False)
    names = ["format", "store", "next_sequence", "snapshot_sequence", "snapshot_name", "intervals", "aggregates"]
    names += ["erasures", "blocked"]
    found = {name: log.meta(name) for name in names}
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
    for sequence, batch in log.entries(0):
        sys.stdout.buffer.write(_LogOfOtherProcess._ENTRY.pack(sequence, len(batch)))
        sys.stdout.buffer.write(batch)
    sys.stdout.buffer.flush()
    log.close()


def corrupt_store(folder: Path, reason: str) -> HeadraceError:
    return make_error(
        "corrupt_store",
        f"the online store in {folder} cannot be read: {reason}",
        "restore the folder from a copy, or remove it and run `headrace materialize` to build it again",
    )


def _let_go_in_child() -> None:
    """In a forked child RocksDB's threads are gone; closing would wait for them, so the child never closes its copy."""
    for log in list(_open_logs):
        if log._db is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(log._db))
    for lock in list(_held_locks):
        lock.release()
    if _rocksdb_process is not None:
        _native.skip_inherited_exit_handlers()


os.register_at_fork(after_in_child=_let_go_in_child)
