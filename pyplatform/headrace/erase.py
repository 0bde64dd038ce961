"""Erasure: what is kept about some keys goes, with a receipt of what went and of who still holds it.

Late and repeated writes do not bring an erased key back: the log keeps a salted digest of it, and rows of the key with
an event time until the erasure (static rows: at any time) are refused as `erased`. Events after it are taken again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.config import CONSISTENCY_FILE, PAYLOAD_FOLDER
from headrace.datasets import Dataset, DatasetFolder
from headrace.digests import canonical_json
from headrace.dtypes import DType
from headrace.errors import HeadraceError, make_error, nearest_hint
from headrace.files import write_atomic
from headrace.frames import cast_column, take_keys, to_table
from headrace.history import remove_rows
from headrace.history_export import exports_of
from headrace.online_store import OnlineStore
from headrace.payload import remove_rows as remove_lookups
from headrace.sources import EVENT_TS, ViewRows, leave_out, read_rows

FORMAT = 1
ERASED = "erased"


@dataclass(frozen=True)
class ErasedKeys:
    """Keys of an entity: a table of its join keys, and the bytes by which the engine knows them."""

    dtypes: dict[str, DType]
    table: pa.Table

    @classmethod
    def of(cls, document: Mapping[str, Any], entity: str, keys: Any) -> ErasedKeys:
        """Keys as they were given, cast to their types.

        Raises:
            UnknownNameError: `unknown_entity`.
            InputError: `missing_column`, `type_mismatch`, `null_key`.
        """
        if entity not in document["entities"]:
            raise make_error(
                "unknown_entity",
                f"there is no entity '{entity}'",
                nearest_hint(entity, document["entities"], "entities"),
            )
        dtypes = {key["name"]: DType(key["dtype"]) for key in document["entities"][entity]["join_keys"]}
        place = f"the frame of keys of entity '{entity}'"
        given = take_keys(to_table(keys, place), list(dtypes), place)
        table = pa.table(
            {name: cast_column(given.column(name), dtype, f"{place}, {name}") for name, dtype in dtypes.items()}
        )
        if any(column.null_count for column in table.columns):
            raise make_error("null_key", f"{place} holds a null", "give whole keys")
        return cls(dtypes, table)

    @property
    def columns(self) -> list[str]:
        return list(self.dtypes)

    def canonical(self) -> list[bytes]:
        return canonical_keys(self.table, self.dtypes)

    def found_in(self, table: pa.Table) -> Any:
        """Which rows have one of the keys; no row where the table lacks a column of the key."""
        if any(name not in table.column_names for name in self.columns):
            return pa.repeat(pa.scalar(False), table.num_rows)
        columns = {}
        for name, dtype in self.dtypes.items():
            try:
                columns[name] = cast_column(table.column(name), dtype, name)
            except HeadraceError:  # of another type: a column of the same name, and not the key
                return pa.repeat(pa.scalar(False), table.num_rows)
        if len(columns) == 1:
            [name] = columns
            return pc.is_in(columns[name], value_set=self.table.column(name).combine_chunks())
        found = pa.repeat(pa.scalar(False), table.num_rows)
        for row in self.table.to_pylist():
            same = pa.repeat(pa.scalar(True), table.num_rows)
            for name, column in columns.items():
                same = pc.and_(same, pc.fill_null(pc.equal(column, pa.scalar(row[name], column.type)), False))
            found = pc.or_(found, same)
        return found

    def stand_in(self, text: str) -> bool:
        """Whether a refused row may be about one of the keys: by its columns, or, of a broken line, by its text."""
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if isinstance(row, dict) and all(name in row for name in self.columns):
            values = {name: str(row[name]) for name in self.columns}
            return any(
                all(_shown(key[name]) == values[name] for name in self.columns) for key in self.table.to_pylist()
            )
        return any(all(_shown(value) in text for value in key.values()) for key in self.table.to_pylist())


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def canonical_keys(table: pa.Table, dtypes: Mapping[str, DType]) -> list[bytes]:
    """The bytes of each row's key, as the engine writes them: numbers in 8 bytes, text after its length.

    A row with a null has the empty key.
    """
    keys = []
    columns = []
    for name, dtype in dtypes.items():
        column = table.column(name)
        columns.append((dtype, column.cast(pa.int64()) if dtype == "timestamp" else column))
    values = [column.to_pylist() for _, column in columns]
    for row in zip(*values, strict=True):
        if any(value is None for value in row):
            keys.append(b"")
            continue
        parts = []
        for (dtype, _), value in zip(columns, row, strict=True):
            if dtype in ("string", "bytes"):
                data = value.encode() if isinstance(value, str) else value
                parts.append(struct.pack("<I", len(data)) + data)
            else:
                parts.append(struct.pack("<Q", int(value) & (2**64 - 1)))
        keys.append(b"".join(parts))
    return keys


@dataclass(frozen=True)
class Blocked:
    """Erased keys that may not come back, as the log keeps them: `{"salt": .., "entries": [..]}`."""

    document: dict[str, Any]

    @classmethod
    def of(cls, store: OnlineStore) -> Blocked:
        return cls(store.blocked or {"salt": secrets.token_hex(16), "entries": []})

    def digest(self, columns: Sequence[str], key: bytes) -> str:
        salt = bytes.fromhex(self.document["salt"])
        return hashlib.blake2b("\0".join(columns).encode() + b"\0" + key, key=salt, digest_size=16).hexdigest()

    def adding(self, keys: ErasedKeys, now_us: int, until_us: int | None) -> dict[str, Any]:
        digests = [self.digest(keys.columns, key) for key in keys.canonical()]
        entry = {"columns": keys.columns, "event_us": now_us, "until_us": until_us, "digests": digests}
        return {**self.document, "entries": [*self.document["entries"], entry]}

    def without(self, view: ViewRows, batch: pa.RecordBatch, now_us: int) -> tuple[pa.RecordBatch, int]:
        """The rows of a batch that may be written, and how many may not."""
        entries = [
            entry
            for entry in self.document["entries"]
            if set(entry["columns"]) <= set(view.keys) and (entry["until_us"] is None or now_us < entry["until_us"])
        ]
        if not entries or not batch.num_rows:
            return batch, 0
        table = pa.Table.from_batches([batch])
        # Newer events may be written: most batches have nothing to look at.
        newest_us = max(entry["event_us"] for entry in entries)
        times = None if view.is_static else table.column(EVENT_TS).cast(pa.int64())
        old = None if times is None else pc.fill_null(pc.less_equal(times, newest_us), True).to_numpy()
        rows = list(range(batch.num_rows)) if old is None else old.nonzero()[0].tolist()
        if not rows:
            return batch, 0
        events = None if times is None else times.to_pylist()
        keep = [True] * batch.num_rows
        chosen = table.take(pa.array(rows, pa.int64()))
        for entry in entries:
            digests = set(entry["digests"])
            canonical = canonical_keys(chosen, {name: view.keys[name] for name in entry["columns"]})
            for row, key in zip(rows, canonical, strict=True):
                is_old = events is None or events[row] is None or events[row] <= entry["event_us"]
                if key and is_old and self.digest(entry["columns"], key) in digests:
                    keep[row] = False
        removed = keep.count(False)
        return (batch.filter(pa.array(keep)) if removed else batch), removed


@dataclass(frozen=True)
class Eraser:
    """One erasure in a project; the caller is the writer of its store."""

    state: Path
    sources_root: Path
    document: dict[str, Any]
    store: OnlineStore
    keys: ErasedKeys
    now_us: int

    def run(self, entity: str, until_us: int | None, rewrite_datasets: bool) -> dict[str, Any]:
        """Erases and returns the receipt, which is written to `.headrace/erasures/ID.json`."""
        blocked = Blocked.of(self.store)
        # The block comes first and stays: whatever ends the erasure, running it again completes it.
        online = self.store.erase(
            self.keys.columns, self.keys.canonical(), blocked.adding(self.keys, self.now_us, until_us)
        )
        views = [name for name in self.document["views"] if self._concerns(name)]
        receipt: dict[str, Any] = {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            "at": _moment(self.now_us),
            "entity": entity,
            "columns": self.keys.columns,
            "keys": self.keys.table.num_rows,
            "blocked_until": None if until_us is None else _moment(until_us),
            "removed": {
                "online": online,
                "history": {name: rows for name in views if (rows := self._history(name))},
                "dead_letters": self._dead_letters(),
                "payload": self._payload(),
                "statistics": self.store.forget_statistics(views),
                "datasets": [],
            },
            "still_held": [],
        }
        self._datasets(receipt, rewrite_datasets)
        receipt["still_held"] += [held for name in views if (held := self._source(name)) is not None]
        receipt["still_held"] += [held for name in views for held in self._exports(name)]
        receipt["still_held"].append(
            {"kind": "backup", "where": "every backup made before", "hint": "erase again after restoring one"}
        )
        if (self.state / PAYLOAD_FOLDER).is_dir():
            hint = "erase again when payload.segment_seconds have gone by"
            receipt["still_held"].append(
                {"kind": "payload", "where": "what servers have not written yet", "hint": hint}
            )
        path = self.state / "erasures" / f"{receipt['id']}.json"
        write_atomic(path, canonical_json(json.dumps(receipt)).encode())
        return {**receipt, "path": str(path)}

    def _concerns(self, view: str) -> bool:
        return set(self.keys.columns) <= set(ViewRows(self.document, view).keys)

    def _exports(self, view: str) -> list[dict[str, str]]:
        hint = "delete the keys' rows there and vacuum the table"
        found = exports_of(self.state / "history" / view)
        return [{"kind": "export", "where": uri, "hint": hint} for uri in found]

    def _history(self, view: str) -> int:
        return remove_rows(self.state / "history" / view, self.keys.found_in)

    def _dead_letters(self) -> dict[str, int]:
        removed: dict[str, int] = {}
        for path in sorted((self.state / "dead-letter").glob("*/*.parquet")):
            letters = pq.read_table(path)
            keep = [not self.keys.stand_in(text) for text in letters.column("row").to_pylist()]
            count = keep.count(False)
            if not count:
                continue
            if count == letters.num_rows:
                path.unlink()
            else:
                temporary = path.with_suffix(".tmp")
                pq.write_table(letters.filter(pa.array(keep)), temporary, compression="zstd")
                temporary.replace(path)
            removed[path.parent.name] = removed.get(path.parent.name, 0) + count
        return removed

    def _payload(self) -> dict[str, int]:
        """Lookups of the keys in the payload log, and the examples in the report of the last verification."""
        (self.state / CONSISTENCY_FILE).unlink(missing_ok=True)
        return remove_lookups(self.state / PAYLOAD_FOLDER, self.keys.found_in)

    def _datasets(self, receipt: dict[str, Any], rewrite: bool) -> None:
        folder = DatasetFolder(self.state / "datasets")
        for name in folder.names():
            for dataset in folder.versions(name):
                if dataset.erased is not None:
                    continue
                table = pq.read_table(dataset.path)
                found = pc.fill_null(self.keys.found_in(table), False)
                rows = pc.sum(found).as_py() or 0
                if not rows:
                    continue
                held = {"kind": "dataset", "where": f"{name} version {dataset.version}", "rows": rows}
                held["models"] = self._models(dataset)
                if not rewrite:
                    receipt["still_held"].append({**held, "digest": dataset.digest})
                    continue
                new = folder.replace(dataset, table.filter(pc.invert(found)), receipt["id"], self.now_us)
                receipt["removed"]["datasets"].append({**held, "replaced_by": new.version})

    def _models(self, dataset: Dataset) -> list[str]:
        """The model versions that were trained on the dataset: what they learnt is not undone."""
        found = []
        for path in sorted((self.state / "models").glob("*/*/model.json")):
            lineage = json.loads(path.read_text("utf-8")).get("lineage", {}).get("dataset", {})
            if isinstance(lineage, dict) and lineage.get("digest") == dataset.digest:
                found.append("/".join(path.parts[-3:-1]))
        return found

    def _source(self, name: str) -> dict[str, Any] | None:
        """Whether the files of a view's source, which are not headrace's to change, hold the keys."""
        view = ViewRows(self.document, name)
        if view.is_pushed:
            return None
        held = {"kind": "source", "where": view.source["path"], "view": name, "hint": "erase it there"}
        try:
            rows = 0
            for batch in read_rows(view, self.sources_root, self.now_us, leave_out):
                rows += pc.sum(self.keys.found_in(pa.Table.from_batches([batch]))).as_py() or 0
        except HeadraceError as error:
            return {**held, "rows": None, "error": error.message}
        return {**held, "rows": rows} if rows else None


def _moment(us: int) -> str:
    return dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC).isoformat()


__all__ = ["ERASED", "Blocked", "ErasedKeys", "Eraser"]
