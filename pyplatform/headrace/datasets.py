"""Datasets: training sets that are kept by name and version, with their query, splits, statistics and lineage.

`.headrace/datasets/NAME/VERSION/` holds `data.parquet` and `dataset.json`, which has its digest. A version never
changes; the same rows of the same query are the same version. Reading one later gives the same bytes, or an error.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.dataset_statistics import column_statistics
from headrace.digests import canonical_json, digest_bytes, digest_file, digest_json
from headrace.dtypes import DType
from headrace.errors import HeadraceError, make_error, nearest_hint
from headrace.files import sync_folder, sync_tree, write_atomic
from headrace.frames import cast_column, take_columns
from headrace.history import Reference

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
SPLIT = "__split"
"""The column of a dataset that says which part a row belongs to."""


@dataclass(frozen=True)
class TimeSplit:
    """Rows by the time in a column: from each part's start on, until the next one's.

    Attributes:
        column: a column of times; rows without one belong to the last part.
        starts: part -> its first moment, in order; what is earlier belongs to `first`.
        first: the name of the part before all of them.
    """

    column: str
    starts: Mapping[str, dt.datetime]
    first: str = "train"

    def parts(self, table: pa.Table) -> pa.Array:
        moments = [_utc(moment) for moment in self.starts.values()]
        names = [self.first, *self.starts]
        if moments != sorted(moments) or len(set(names)) != len(names):
            raise make_error("invalid_argument", f"the split {names} is not in order of time", "earlier parts first")
        column = take_columns(table, [self.column], "the training set").column(self.column)
        times = cast_column(column, DType("timestamp"), f"the split's column '{self.column}'")
        part = pa.chunked_array([pa.repeat(pa.scalar(names[0]), table.num_rows)])
        for name, moment in zip(names[1:], moments, strict=True):
            later = pc.fill_null(pc.greater_equal(times, pa.scalar(moment, times.type)), True)
            part = pc.if_else(later, name, part)
        return part

    def to_json(self) -> dict[str, Any]:
        starts = {name: _utc(moment).isoformat() for name, moment in self.starts.items()}
        return {"by": "time", "column": self.column, "first": self.first, "starts": starts}


@dataclass(frozen=True)
class HashSplit:
    """Rows by a hash of some columns: all rows of a key are in one part, and stay in it in later versions.

    Attributes:
        columns: the key.
        shares: part -> its share of the keys; together 1.
        salt: another salt gives another split.
    """

    columns: Sequence[str]
    shares: Mapping[str, float]
    salt: str = ""

    def parts(self, table: pa.Table) -> pa.Array:
        if not self.shares or min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise make_error("invalid_argument", f"the shares {dict(self.shares)} do not add up to 1", "correct them")
        keys = take_columns(table, list(self.columns), "the training set")
        found: dict[str, str] = {}
        part = []
        for row in keys.to_pylist():
            key = json.dumps(list(row.values()), default=str)
            if key not in found:
                found[key] = self._part(key)
            part.append(found[key])
        return pa.array(part, pa.string())

    def _part(self, key: str) -> str:
        digest = hashlib.blake2b(f"{self.salt}\0{key}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for name, share in self.shares.items():
            place -= share
            if place < 0:
                return name
        return list(self.shares)[-1]

    def to_json(self) -> dict[str, Any]:
        return {"by": "hash", "columns": list(self.columns), "shares": dict(self.shares), "salt": self.salt}


Split = TimeSplit | HashSplit


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


@dataclass(frozen=True)
class Dataset:
    """One version of a dataset.

    Attributes:
        folder: `.headrace/datasets/NAME/VERSION`.
        manifest: what dataset.json says: `name`, `version`, `digest` (of data.parquet), `rows`, `columns`, `parts`
            (rows of each part of the split), `split`, `statistics` (of each column), `query`, `lineage`, `created_at`.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Reads the manifest.

        Raises:
            StoreError: `corrupt_store`, `newer_format`.
        """
        path = folder / "dataset.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
            number = manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise make_error("corrupt_store", f"{path} cannot be read: {error!r}", "restore the dataset") from error
        if number > FORMAT:
            raise make_error("newer_format", f"{path} has format {number}", "read it with a newer headrace")
        return cls(folder, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> int:
        return int(self.manifest["version"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return self.folder / "data.parquet"

    @property
    def erased(self) -> dict[str, Any] | None:
        """Of a version whose rows are gone because keys in it were erased: `erasure` (its id) and `replaced_by`."""
        found: dict[str, Any] | None = self.manifest.get("erased")
        return found

    def verify(self) -> None:
        """Makes sure that the rows are the ones that were kept.

        Raises:
            StoreError: `corrupt_store`.
            UnknownNameError: `not_found`, keys in it were erased.
        """
        if self.erased is not None:
            raise make_error(
                "not_found",
                f"dataset '{self.name}' version {self.version} held keys that were erased",
                f"use version {self.erased['replaced_by']}, which is without them",
            )
        try:
            found = digest_file(self.path)
        except HeadraceError as error:
            found = error.message
        if found != self.digest:
            raise make_error(
                "corrupt_store",
                f"{self.path} is not what was kept: {found} in place of {self.digest}",
                "restore the file from a backup, or make the dataset again",
            )

    def to_arrow(self, split: str | None = None) -> pa.Table:
        """The rows, in the order of the entity frame.

        Args:
            split: only those of this part; None gives all, with the column `__split` where there is a split.

        Raises:
            StoreError: `corrupt_store`, the file has changed.
            UnknownNameError: `not_found`, there is no such part.
        """
        self.verify()
        table = pq.read_table(self.path)
        if split is None:
            return table
        if split not in self.manifest["parts"]:
            raise make_error(
                "not_found",
                f"dataset '{self.name}' version {self.version} has no part '{split}'",
                nearest_hint(split, self.manifest["parts"], "parts"),
            )
        return table.filter(pc.equal(table.column(SPLIT), split)).drop_columns([SPLIT])

    def to_pandas(self, split: str | None = None) -> pd.DataFrame:
        """As `to_arrow`, as a pandas frame."""
        frame: pd.DataFrame = self.to_arrow(split).to_pandas()
        return frame

    def diff(self, other: Dataset) -> dict[str, Any]:
        """What is different in this version: digests, rows, columns, and what of query, lineage and statistics changed.

        The values are (the other's, this one's).
        """
        mine, theirs = self.manifest, other.manifest
        found: dict[str, Any] = {}
        for key in ("digest", "rows", "parts", "split"):
            if theirs.get(key) != mine.get(key):
                found[key] = [theirs.get(key), mine.get(key)]
        for key in ("columns", "query", "lineage", "statistics"):
            changes = dict(_changes(theirs.get(key, {}), mine.get(key, {})))
            if changes:
                found[key] = changes
        return found


def _changes(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, list[Any]]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), f"{place}.{key}" if place else key)
    elif old != new:
        yield place, [old, new]


@dataclass(frozen=True)
class DatasetFolder:
    """All datasets of a project."""

    folder: Path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*") if self.versions(path.name))

    def versions(self, name: str) -> list[Dataset]:
        """The versions of a dataset, oldest first."""
        folders = [path for path in (self.folder / name).glob("*") if path.name.isdecimal()]
        return [Dataset.open(path) for path in sorted(folders, key=lambda path: int(path.name))]

    def get(self, name: str, version: int | str | None = None) -> Dataset:
        """A version by its number or by its digest; by default the newest.

        Raises:
            UnknownNameError: `not_found`.
        """
        versions = self.versions(name)
        if not versions:
            hint = nearest_hint(name, self.names(), "datasets")
            raise make_error("not_found", f"there is no dataset '{name}'", hint)
        if version is None:
            return versions[-1]
        for one in reversed(versions):
            if version in (one.version, one.digest, str(one.version)):
                return one
        numbers = ", ".join(str(one.version) for one in versions)
        raise make_error("not_found", f"dataset '{name}' has no version {version}", f"it has: {numbers}")

    def put(
        self,
        name: str,
        table: pa.Table,
        split: Split | None,
        query: Mapping[str, Any],
        lineage: Mapping[str, Any],
        now_us: int,
        split_json: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Keeps a table as the next version of a dataset; what is kept already is given back as it is.

        Args:
            name: the dataset's name.
            table: the rows.
            split: how they are to be split.
            query: what they were asked by, as JSON.
            lineage: what they come from, as JSON.
            now_us: the time of the version.
            split_json: in place of `split`, where the table has its column `__split` already.

        Raises:
            InputError: `invalid_argument`, the name or the split is wrong.
            StoreError: `io`, there is no room.
        """
        if not name.replace("_", "a").replace("-", "a").isalnum() or len(name) > 128:
            raise make_error(
                "invalid_argument", f"'{name}' is not a name for a dataset", "use letters, digits, _ and -"
            )
        if split is not None:
            table = table.append_column(SPLIT, split.parts(table))
        shape = split.to_json() if split is not None else split_json
        parent = self.folder / name
        unfinished = parent / f".{uuid.uuid4().hex}"
        try:
            unfinished.mkdir(parents=True)
            pq.write_table(table.replace_schema_metadata(None), unfinished / "data.parquet", compression="zstd")
            manifest = _manifest(table, digest_file(unfinished / "data.parquet"), shape, query, lineage)
            return self._publish(name, unfinished, manifest, now_us)
        except OSError as error:
            raise make_error("io", f"dataset '{name}' cannot be kept: {error}", "make room on the disk") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def replace(self, old: Dataset, table: pa.Table, erasure: str, now_us: int) -> Dataset:
        """Makes a version of the remaining rows of another, whose rows and statistics then go.

        The old version's digest, query and lineage stay, so that what refers to it can say what became of it.
        """
        query = {**old.manifest["query"], "erased_from": old.version, "erasure": erasure}
        new = self.put(old.name, table, None, query, old.manifest["lineage"], now_us, old.manifest["split"])
        kept = {key: value for key, value in old.manifest.items() if key != "statistics"}
        marked = {**kept, "statistics": {}, "erased": {"erasure": erasure, "replaced_by": new.version}}
        write_atomic(old.folder / "dataset.json", canonical_json(json.dumps(marked)).encode())
        old.path.unlink(missing_ok=True)
        return new

    def _publish(self, name: str, unfinished: Path, manifest: dict[str, Any], now_us: int) -> Dataset:
        while True:
            versions = self.versions(name)
            for one in reversed(versions):
                if one.manifest.get("content_digest") == manifest["content_digest"]:
                    return one
            number = versions[-1].version + 1 if versions else 1
            created_at = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC).isoformat()
            full = {**manifest, "name": name, "version": number, "created_at": created_at}
            (unfinished / "dataset.json").write_text(canonical_json(json.dumps(full)), "utf-8")
            sync_tree(unfinished)
            folder = self.folder / name / str(number)
            try:
                unfinished.rename(folder)
            except OSError:
                if folder.exists():  # another process was quicker
                    continue
                raise
            sync_folder(folder.parent)
            return Dataset.open(folder)


def _manifest(
    table: pa.Table, digest: str, split: Mapping[str, Any] | None, query: Mapping[str, Any], lineage: Mapping[str, Any]
) -> dict[str, Any]:
    parts = [] if split is None else table.column(SPLIT).value_counts().to_pylist()
    counts = {row["values"]: row["counts"] for row in parts}
    content = {
        "format": FORMAT,
        "digest": digest,
        "rows": table.num_rows,
        "columns": {field.name: str(field.type) for field in table.schema},
        "split": None if split is None else dict(split),
        "parts": counts,
        "query": dict(query),
        "lineage": dict(lineage),
    }
    content_digest = digest_json(json.dumps(content))
    statistics = {name: column_statistics(table.column(name)) for name in table.column_names if name != SPLIT}
    return {**content, "content_digest": content_digest, "statistics": statistics}


def history_references(folder: Path) -> dict[str, list[Reference]]:
    """View -> which rows of its history the datasets were made of."""
    found: dict[str, list[Reference]] = {}
    datasets = DatasetFolder(folder)
    for name in datasets.names():
        for dataset in datasets.versions(name):
            for view, source in dataset.manifest["lineage"].get("views", {}).items():
                if source["kind"] == "push":
                    reference = Reference(source["before_part"], source["event_us_from"])
                    found.setdefault(view, []).append(reference)
    return found


def frame_digest(table: pa.Table) -> str:
    """The digest of a frame's rows, whatever its chunks."""
    sink = pa.BufferOutputStream()
    whole = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return digest_bytes(sink.getvalue().to_pybytes())


def view_lineage(
    document: Mapping[str, Any],
    names: Sequence[str],
    sources_root: Path,
    history_root: Path,
    first_event_us: int | None,
    as_of: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the rows of some views come from now, and the state to read them in (`as_of` of the join).

    Args:
        document: the plan.
        names: the views.
        sources_root: where paths of files start.
        history_root: `.headrace/history`.
        first_event_us: the earliest time for which features are read.
        as_of: what the caller wants, as `FeatureStore.get_historical_features` takes it.

    Raises:
        UnknownNameError, StoreError: a source cannot be read.
    """
    from headrace.history import position
    from headrace.sources import ViewRows, fingerprint, source_files

    lineage: dict[str, Any] = {}
    states: dict[str, Any] = {}
    for name in names:
        view = ViewRows(dict(document), name)
        wanted = as_of.get(name) if isinstance(as_of, Mapping) else as_of
        ttl_us = document["views"][name]["ttl_us"]
        if view.is_pushed:
            end = position(history_root / name)
            reach_us = None if ttl_us is None or first_event_us is None else first_event_us - ttl_us
            states[name] = end if wanted is None else wanted
            lineage[name] = {"kind": "push", "before_part": end, "event_us_from": reach_us}
        elif view.source["format"] == "delta":
            version = fingerprint(view, sources_root, wanted)
            states[name] = version
            lineage[name] = {"kind": "delta", "path": view.source["path"], "version": version}
        else:
            if wanted is not None:
                states[name] = wanted  # the join says that files keep no past
            lineage[name] = {"kind": "file", "files": source_files(view, sources_root)}
    return lineage, states
