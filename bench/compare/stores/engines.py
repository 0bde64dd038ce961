"""Stores of feature rows: each is asked with int64 keys and fills one reused float32 buffer.

Every peer keeps all features of a key as one packed value, its best layout, and is read in the fastest of the ways that
were tried (bench/README.md lists them). All live in this one process, Redis excepted.
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import writers
from engine import Call, Engine, ours, package
from inputs import Array, Inputs, LookupInputs

LOAD_BATCH = 20_000
SQLITE_PARAMETERS_MAX = 32_766
"""SQLite's own limit on the parameters of a statement."""


class Store(Engine):
    """What the stores share: the buffer that is filled, and how the answer is read from it."""

    wants = "keys"
    width = 0

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, LookupInputs)
        self.width = inputs.views * inputs.fields
        self.buffers: dict[int, Array] = {}
        self.fill(inputs, options)

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def buffer(self, rows: int) -> Array:
        if rows not in self.buffers:
            self.buffers[rows] = np.zeros((rows, self.width), np.float32)
        return self.buffers[rows]

    def caller(self, rows: int) -> Call:
        return self.reader(self.buffer(rows))

    def reader(self, out: Array) -> Call:
        raise NotImplementedError

    def answer(self, rows: int, asked: Array) -> Array:
        out = self.buffer(rows)
        out.fill(-1)
        self.caller(rows)(asked)
        return out.copy()


def bytes_of(out: Array) -> memoryview:
    return out.data.cast("B")


def big_endian_keys(keys: Array) -> list[bytes]:
    """8 bytes a key, in an order that B-trees like."""
    packed = keys.astype(">i8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def packed_rows(inputs: LookupInputs, order: Array) -> list[tuple[bytes, bytes]]:
    """(key, row) of the given row numbers."""
    rows = inputs.table[order]
    return list(zip(big_endian_keys(inputs.keys[order]), (row.tobytes() for row in rows), strict=True))


def key_order(inputs: LookupInputs) -> Array:
    """Row numbers by the unsigned value of the key's bytes: a B-tree loads fastest in its own order."""
    return np.argsort(inputs.keys.view(np.uint64), kind="stable")


class NumpyTake(Store):
    """The bound: row numbers are known, so nothing is looked up."""

    version = np.__version__
    wants = "row_numbers"

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        self.table = inputs.table

    def reader(self, out: Array) -> Call:
        table = self.table
        return lambda row_numbers: np.take(table, row_numbers, axis=0, out=out, mode="clip")


class NumpyTakeNew(NumpyTake):
    """The bound where it is faster without `out`: a new array each call."""

    def reader(self, out: Array) -> Call:
        table = self.table
        return lambda row_numbers: np.take(table, row_numbers, axis=0, mode="clip")

    def answer(self, rows: int, asked: Array) -> Array:
        return np.array(self.caller(rows)(asked))


class Dict(Store):
    """A Python dict of packed rows."""

    version = platform.python_version()

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        self.rows = {key: row.tobytes() for key, row in zip(inputs.keys.tolist(), inputs.table, strict=True)}

    def reader(self, out: Array) -> Call:
        rows, target = self.rows, bytes_of(out)

        def read(keys: Array) -> None:
            target[:] = b"".join(map(rows.__getitem__, keys.tolist()))

        return read


class RocksDict(Store):
    """RocksDB by rocksdict: raw bytes, no compression, bloom filter, compacted, all data in its block cache."""

    note = "one multi-get a call"

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        rocksdict = package("rocksdict")
        self.version = rocksdict.__version__ if hasattr(rocksdict, "__version__") else version_of("rocksdict")
        settings = rocksdict.Options(raw_mode=True)
        settings.set_compression_type(rocksdict.DBCompressionType.none())
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(rocksdict.Cache(2 * inputs.table.nbytes))
        blocks.set_bloom_filter(10, False)
        settings.set_block_based_table_factory(blocks)
        self.database = rocksdict.Rdict(str(Path(options["folder"]) / "rocksdict"), settings)
        order = key_order(inputs)
        for first in range(0, len(order), LOAD_BATCH):
            batch = rocksdict.WriteBatch(raw_mode=True)
            for key, row in packed_rows(inputs, order[first : first + LOAD_BATCH]):
                batch.put(key, row)
            self.database.write(batch)
        self.database.flush()
        self.database.compact_range(None, None)

    def reader(self, out: Array) -> Call:
        database, target = self.database, bytes_of(out)

        def read(keys: Array) -> None:
            target[:] = b"".join(database[big_endian_keys(keys)])

        def read_one(keys: Array) -> None:
            target[:] = database[keys.astype(">i8").tobytes()]

        return read_one if len(out) == 1 else read

    def close(self) -> None:
        self.database.close()


class Lmdb(Store):
    """LMDB: one read transaction, one `get` a key."""

    note = "a loop of get in one read transaction that stays open"

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        lmdb = package("lmdb")
        self.version = lmdb.__version__
        folder = Path(options["folder"]) / "lmdb"
        self.environment = lmdb.open(str(folder), map_size=inputs.table.nbytes * 3 + (64 << 20), sync=False)
        order = key_order(inputs)
        with self.environment.begin(write=True) as writing:
            for first in range(0, len(order), LOAD_BATCH):
                for key, row in packed_rows(inputs, order[first : first + LOAD_BATCH]):
                    writing.put(key, row, append=True)
        self.reading = self.environment.begin()

    def reader(self, out: Array) -> Call:
        get: Callable[[bytes], bytes] = self.reading.get
        target = bytes_of(out)

        def read(keys: Array) -> None:
            packed = keys.astype(">i8").tobytes()
            target[:] = b"".join([get(packed[at : at + 8]) for at in range(0, len(packed), 8)])

        return read

    def close(self) -> None:
        self.reading.abort()
        self.environment.close()


class Sqlite(Store):
    """SQLite: an integer primary key and a blob, memory-mapped."""

    version = sqlite3.sqlite_version
    note = "one SELECT with IN a call, one SELECT with = for a single key; memory-mapped, no journal"

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        path = Path(options["folder"]) / "rows.sqlite"
        self.database = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute(f"PRAGMA mmap_size = {inputs.table.nbytes * 3}")
        self.database.execute("CREATE TABLE rows (key INTEGER PRIMARY KEY, value BLOB)")
        order = np.argsort(inputs.keys)
        self.database.execute("BEGIN")
        for first in range(0, len(order), LOAD_BATCH):
            chosen = order[first : first + LOAD_BATCH]
            values = (row.tobytes() for row in inputs.table[chosen])
            self.database.executemany(
                "INSERT INTO rows VALUES (?, ?)", zip(inputs.keys[chosen].tolist(), values, strict=True)
            )
        self.database.execute("COMMIT")
        # A transaction that stays open: no lock is taken and released for each read.
        self.database.execute("BEGIN")

    def reader(self, out: Array) -> Call:
        execute, target = self.database.execute, bytes_of(out)
        assert len(out) <= SQLITE_PARAMETERS_MAX
        many = f"SELECT key, value FROM rows WHERE key IN ({','.join('?' * len(out))})"  # noqa: S608 (question marks only)

        def read(keys: Array) -> None:
            wanted = keys.tolist()
            found = dict(execute(many, wanted).fetchall())
            target[:] = b"".join(map(found.__getitem__, wanted))

        def read_one(keys: Array) -> None:
            target[:] = execute("SELECT value FROM rows WHERE key = ?", keys.tolist()).fetchone()[0]

        return read_one if len(out) == 1 else read

    def close(self) -> None:
        self.database.close()


class Redis(Store):
    """Redis over TCP on loopback, redis-py with the hiredis parser."""

    note = "one MGET a call over loopback TCP; the server may use any core"

    def fill(self, inputs: LookupInputs, options: dict[str, Any]) -> None:
        redis = package("redis")
        self.client = redis.Redis(host="127.0.0.1", port=options["redis_port"], single_connection_client=True)
        self.version = f"{self.client.info('server')['redis_version']}, redis-py {redis.__version__}"
        order = np.arange(len(inputs.keys))
        for first in range(0, len(order), LOAD_BATCH // 10):
            self.client.mset(dict(packed_rows(inputs, order[first : first + LOAD_BATCH // 10])))

    def reader(self, out: Array) -> Call:
        mget, target = self.client.mget, bytes_of(out)

        def read(keys: Array) -> None:
            target[:] = b"".join(mget(big_endian_keys(keys)))

        return read

    def close(self) -> None:
        self.client.close()


def version_of(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)


ENGINES: dict[str, Callable[[], Engine]] = {
    "headrace": ours("HeadraceLookup"),
    "numpy_take": NumpyTake,
    "numpy_take_new": NumpyTakeNew,
    "dict": Dict,
    "rocksdict": RocksDict,
    "lmdb": Lmdb,
    "sqlite": Sqlite,
    "redis": Redis,
    **writers.WRITERS,
}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = writers.JOBS
