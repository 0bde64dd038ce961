"""Stores as they are written to: rows of float32 in calls of a thousand, and whole files into empty stores.

Every peer keeps a row as one packed value and is opened so that what it has acknowledged survives `kill -9`, as
headrace does by default; none waits for the disk.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Engine, package
from inputs import Array, Inputs, LookupInputs

BATCH_ROWS = 20_000
KEY = "item_id"
VIEW = "rows"
SERVICE = "all_rows"
DEFINITIONS = """
from headrace import Entity, FeatureService, FeatureView, Field, FileSource, Float32, Int64, PushSource

item = Entity("item", join_keys=[Field("item_id", Int64)])
rows = FeatureView("rows", [item], [Field(f"f{{at}}", Float32) for at in range({fields})], {source})
all_rows = FeatureService("all_rows", [rows])
"""
FILE_SOURCE = 'FileSource("rows.parquet", event_ts="event_ts")'
PUSH_SOURCE = 'PushSource(event_ts="event_ts")'


class Writer(Engine):
    """What the writers share: a call writes the rows whose numbers it is given, which follow one another."""

    wants = "sequence"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, LookupInputs)
        self.inputs = inputs
        self.open(Path(options["folder"]) / f"{type(self).__name__}-push")

    def open(self, folder: Path) -> None:
        raise NotImplementedError

    def write(self, keys: Array, rows: Array) -> None:
        raise NotImplementedError

    def read(self, keys: Array) -> Array:
        """The rows of some keys, to be compared."""
        raise NotImplementedError

    def caller(self, rows: int) -> Call:
        keys, table = self.inputs.keys, self.inputs.table

        def call(asked: Array) -> None:
            first = asked[0]
            self.write(keys[first : first + rows], table[first : first + rows])

        return call

    def answer(self, rows: int, asked: Array) -> Array:
        self.caller(rows)(asked)
        return self.read(self.inputs.keys[asked])


class NumpyCopyWriter(Writer):
    """The bound: rows are copied to their place, and nothing survives."""

    version = np.__version__

    def open(self, folder: Path) -> None:
        self.stored = np.zeros_like(self.inputs.table)

    def caller(self, rows: int) -> Call:
        table, stored = self.inputs.table, self.stored

        def call(asked: Array) -> None:
            stored[asked] = table[asked[0] : asked[0] + rows]

        return call

    def answer(self, rows: int, asked: Array) -> Array:
        self.caller(rows)(asked)
        return self.stored[asked]


class Packed(Writer):
    """Peers of packed values: eight bytes of key, the floats as they are."""

    def packed(self, keys: Array, rows: Array) -> list[tuple[bytes, bytes]]:
        width = rows.shape[1] * rows.itemsize
        names, values = keys.astype(">i8").tobytes(), rows.tobytes()
        return [(names[8 * at : 8 * at + 8], values[width * at : width * (at + 1)]) for at in range(len(keys))]

    def get(self, key: bytes) -> bytes:
        raise NotImplementedError

    def read(self, keys: Array) -> Array:
        names = keys.astype(">i8").tobytes()
        return np.array([np.frombuffer(self.get(names[8 * at : 8 * at + 8]), np.float32) for at in range(len(keys))])


class RocksDictWriter(Packed):
    """RocksDB with its write-ahead log: one batch a call."""

    def open(self, folder: Path) -> None:
        rocksdict = package("rocksdict")
        self.version = version("rocksdict")
        self.new_batch: Callable[[], Any] = lambda: rocksdict.WriteBatch(raw_mode=True)
        self.database = rocksdict.Rdict(str(folder), rocksdict.Options(raw_mode=True))

    def write(self, keys: Array, rows: Array) -> None:
        batch = self.new_batch()
        for key, row in self.packed(keys, rows):
            batch.put(key, row)
        self.database.write(batch)

    def get(self, key: bytes) -> bytes:
        return bytes(self.database[key])

    def close(self) -> None:
        self.database.close()


class LmdbWriter(Packed):
    """LMDB: one transaction a call, its pages left to the kernel."""

    def open(self, folder: Path) -> None:
        lmdb = package("lmdb")
        self.version = lmdb.__version__
        self.environment = lmdb.open(str(folder), map_size=16 << 30, sync=False)

    def write(self, keys: Array, rows: Array) -> None:
        with self.environment.begin(write=True) as writing:
            for key, row in self.packed(keys, rows):
                writing.put(key, row)

    def get(self, key: bytes) -> bytes:
        with self.environment.begin() as reading:
            return bytes(reading.get(key))

    def close(self) -> None:
        self.environment.close()


class SqliteWriter(Packed):
    """SQLite: one transaction a call, in its write-ahead log."""

    version = sqlite3.sqlite_version

    def open(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.database = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def write(self, keys: Array, rows: Array) -> None:
        self.database.execute("BEGIN")
        self.database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", self.packed(keys, rows))
        self.database.execute("COMMIT")

    def get(self, key: bytes) -> bytes:
        return bytes(self.database.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()[0])

    def close(self) -> None:
        self.database.close()


class HeadraceWriter(Writer):
    """`FeatureStore.push` of Arrow tables: log, table, history, statistics; acknowledged when it returns."""

    note = "push of an Arrow table to a PushSource view: log, table, history for training and statistics"

    def open(self, folder: Path) -> None:
        self.version = package("headrace").__version__
        fields = self.inputs.table.shape[1]
        self.store = open_project(folder, fields, PUSH_SOURCE)
        self.frame = frame_of(self.inputs.keys, self.inputs.table)

    def caller(self, rows: int) -> Call:
        push, frame = self.store.push, self.frame
        return lambda asked: push(VIEW, frame.slice(asked[0], rows))

    def read(self, keys: Array) -> Array:
        out = np.empty((len(keys), self.inputs.table.shape[1]), np.float32)
        self.store.online_plan(SERVICE).read_into(keys, out)
        return out

    def close(self) -> None:
        self.store.close()


def open_project(folder: Path, fields: int, source: str) -> Any:
    """A new project with one view, its definitions applied."""
    (folder / "features").mkdir(parents=True)
    (folder / "headrace.toml").write_text('[project]\nname = "bench"\n')
    (folder / "features" / "rows.py").write_text(DEFINITIONS.format(fields=fields, source=source))
    store = package("headrace").FeatureStore(folder)
    store.apply()
    return store


def frame_of(keys: Array, rows: Array) -> Any:
    pyarrow = package("pyarrow")
    times = pyarrow.array(np.full(len(keys), time.time_ns() // 1000 - 60_000_000, np.int64))
    columns = {KEY: pyarrow.array(keys), "event_ts": times.cast(pyarrow.timestamp("us", tz="UTC"))}
    for at in range(rows.shape[1]):
        columns[f"f{at}"] = pyarrow.array(np.ascontiguousarray(rows[:, at]))
    return pyarrow.table(columns)


def make_parquet(folder: Path, rows: int, fields: int) -> Path:
    """A file of random rows, made once a run."""
    path = folder / f"rows-{rows}-{fields}.parquet"
    if not path.exists():
        inputs = LookupInputs(rows, 1, fields, 1)
        package("pyarrow.parquet").write_table(frame_of(inputs.keys, inputs.table), path)
    return path


def bulk(options: dict[str, Any]) -> dict[str, Any]:
    """Loads a Parquet file into an empty store of one engine; reading the file is part of it."""
    source = make_parquet(Path(options["folder"]), options["rows"], options["fields"])
    folder = Path(options["folder"]) / f"bulk-{options['engine']}"
    shutil.rmtree(folder, ignore_errors=True)
    if options["engine"] == "headrace":
        store = open_project(folder, options["fields"], FILE_SOURCE)
        (folder / "rows.parquet").symlink_to(source)
        start = time.perf_counter_ns()
        [counts] = store.materialize().values()
        took = time.perf_counter_ns() - start
        assert counts.inserted == options["rows"]
        found = package("headrace").__version__
        store.close()
    else:
        writer = WRITERS[f"{options['engine']}_writer"]()
        assert isinstance(writer, Packed)
        writer.open(folder)
        start = time.perf_counter_ns()
        table = package("pyarrow.parquet").read_table(source)
        keys = table.column(KEY).to_numpy()
        rows = np.column_stack([table.column(f"f{at}").to_numpy() for at in range(options["fields"])])
        for first in range(0, len(keys), BATCH_ROWS):
            writer.write(keys[first : first + BATCH_ROWS], rows[first : first + BATCH_ROWS])
        took = time.perf_counter_ns() - start
        found = writer.version
        writer.close()
    shutil.rmtree(folder)
    return {"ns": took, "version": found}


ANSWER_ONE = """
import sys
import numpy
from headrace import FeatureStore

out = numpy.empty((1, 250), numpy.float32)
FeatureStore(sys.argv[1]).online_plan("all_rows").read_into(numpy.array([int(sys.argv[2])]), out)
assert not numpy.isnan(out).any()
"""


def restart(options: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the start of a process to its first answer, over a store of rows of 1 kB that was closed before."""
    folder = Path(options["folder"]) / "restart"
    source = make_parquet(Path(options["folder"]), options["rows"], 250)
    store = open_project(folder, 250, FILE_SOURCE)
    (folder / "rows.parquet").symlink_to(source)
    start = time.perf_counter()
    store.materialize()
    materialized_s = time.perf_counter() - start
    start = time.perf_counter()
    store.close()
    closed_s = time.perf_counter() - start
    key = package("pyarrow.parquet").ParquetFile(source).read_row_group(0, [KEY]).column(KEY)[0].as_py()
    took = []
    for _ in range(options["repeats"]):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ANSWER_ONE, str(folder), str(key)], check=True)
        took.append(time.perf_counter() - start)
    shutil.rmtree(folder)
    return {"after_close_s": took, "materialize_s": materialized_s, "close_s": closed_s}


def memory(options: dict[str, Any]) -> dict[str, Any]:
    """What a table takes beside the raw bytes: resident bytes of the region it reserves, as the kernel says."""
    inputs = LookupInputs(options["keys"], options["views"], options["fields"], options["seed"])
    lookup = package("headrace_engines").HeadraceLookup()
    lookup.load(inputs, options)
    [stats] = lookup.store.stats().values()
    resident = sum(resident for size, resident in mappings() if size >= RESERVED_BYTES_MIN)
    return {"raw_bytes": inputs.table.nbytes, "resident_bytes": resident, **stats}


RESERVED_BYTES_MIN = 32 << 30
"""A mapping as large as this is a table's: it reserves its bound at once, and takes memory as it grows."""


def mappings() -> list[tuple[int, int]]:
    """(bytes, resident bytes) of each mapping of this process."""
    sizes: dict[str, list[int]] = {"Size": [], "Rss": []}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name].append(int(rest.split()[0]) * 1024)
    return list(zip(sizes["Size"], sizes["Rss"], strict=True))


WRITERS: dict[str, Callable[[], Engine]] = {
    "headrace_writer": HeadraceWriter,
    "numpy_copy_writer": NumpyCopyWriter,
    "rocksdict_writer": RocksDictWriter,
    "lmdb_writer": LmdbWriter,
    "sqlite_writer": SqliteWriter,
}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"bulk": bulk, "restart": restart, "memory": memory}
