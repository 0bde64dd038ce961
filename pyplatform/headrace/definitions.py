"""The words in which features are defined: entities, views, on-demand views, services and where rows come from.

Definitions are data: they describe, check what they can see of themselves, and do nothing. `headrace.project` collects
them and `headrace.compiler` turns them into the plan that the engine runs.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from headrace.aggregations import Aggregation
from headrace.dtypes import DType, DTypeLike, as_dtype
from headrace.errors import DefinitionError, make_error, nearest_hint
from headrace.expression_nodes import for_plan
from headrace.expressions import Expr

_VERSION_MAX = 2**32 - 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
FileFormat = Literal["parquet", "csv", "jsonl", "delta"]


def _check_name(kind: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        raise DefinitionError(
            "invalid_definition",
            f"{name!r} is not a name for {kind}",
            "use a letter, then up to 127 letters, digits and single underscores",
        )


def _check_distinct(owner: str, what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DefinitionError("name_clash", f"{owner} has two {what} named '{name}'", "rename one of them")
        seen.add(name)


def versioned_name(name: str, version: Any) -> str:
    """The name of a version of a view: `weather`, `weather@v2`."""
    if type(version) is not int or not 1 <= version <= _VERSION_MAX:
        raise DefinitionError(
            "invalid_definition", f"feature view '{name}': its version is {version!r}", "give a number from 1 on"
        )
    return name if version == 1 else f"{name}@v{version}"


def duration_us(owner: str, what: str, value: Any) -> int | None:
    """A non-negative timedelta in microseconds; None stays None."""
    if value is None:
        return None
    if not isinstance(value, dt.timedelta) or value < dt.timedelta(0):
        raise DefinitionError(
            "invalid_definition",
            f"{owner}: {what} is {value!r}",
            "give a datetime.timedelta that is not negative, or None",
        )
    return value // dt.timedelta(microseconds=1)


def _caller_place() -> str | None:
    """File and line outside this package that the definition is written in."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "headrace":
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclass(frozen=True, eq=False)
class Field:
    """A named, typed value: a feature, a join key, a request input, or (with `expr`) an output of an on-demand view."""

    name: str
    dtype: DType
    expr: Expr | None = None
    place: str | None = dataclasses.field(default=None, repr=False, compare=False)
    """File and line of a field with an expression, for errors in it."""

    def __init__(self, name: str, dtype: DTypeLike, expr: Expr | None = None) -> None:
        _check_name("a field", name)
        if expr is not None and not isinstance(expr, Expr):
            raise DefinitionError(
                "invalid_expression",
                f"field '{name}': {expr!r} is not an expression",
                'write it with col("..") and lit(..)',
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "dtype", as_dtype(dtype))
        object.__setattr__(self, "expr", expr)
        object.__setattr__(self, "place", None if expr is None else _caller_place())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Field) or (self.name, self.dtype) != (other.name, other.dtype):
            return False
        if self.expr is None or other.expr is None:
            return self.expr is other.expr
        return for_plan(self.expr.node) == for_plan(other.expr.node)

    def __hash__(self) -> int:
        return hash((self.name, self.dtype))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Described:
    """What every definition may carry for people."""

    description: str = ""
    tags: Mapping[str, str] | None = None
    owner: str = ""

    def described(self) -> dict[str, Any]:
        return {"description": self.description, "tags": dict(self.tags or {}), "owner": self.owner}


@dataclass(frozen=True, eq=False)
class Entity(_Described):
    """Something that features are about, found by its join keys.

    Args:
        name: for example "airport".
        join_keys: the columns that identify one; their order is part of the key.
    """

    name: str
    join_keys: Sequence[Field]

    def __post_init__(self) -> None:
        _check_name("an entity", self.name)
        keys = [self.join_keys] if isinstance(self.join_keys, Field) else list(self.join_keys)
        if not keys or not all(isinstance(key, Field) for key in keys):
            raise DefinitionError(
                "invalid_definition",
                f"entity '{self.name}' has no join keys",
                'give a list of fields: join_keys=[Field("origin", String)]',
            )
        for key in keys:
            if key.dtype.is_list or key.dtype.is_float:
                raise DefinitionError(
                    "invalid_definition",
                    f"entity '{self.name}': join key '{key.name}' is a {key.dtype}",
                    "a key is a string, bytes, integer, bool or timestamp",
                )
        _check_distinct(f"entity '{self.name}'", "join keys", [key.name for key in keys])
        object.__setattr__(self, "join_keys", keys)


@dataclass(frozen=True, eq=False)
class FileSource:
    """Rows in files: one file, a folder of them, a glob, or a Delta Lake table (`format="delta"`).

    The files are on this machine or at any URL that fsspec knows (`s3://`, `gs://`, `https://`), whose package for the
    protocol must be installed. In a CSV file an empty value, NA, N/A, NULL and null are null unless quoted; NaN is a
    number. Times are ISO 8601.

    Args:
        path: relative paths start from `sources.root` of headrace.toml (the project's folder by default); or a URL.
        event_ts: the column with the time at which a row became true; None for static rows, which are always true.
        created_ts: the column with the time at which a row became known; it decides between rows of equal event time,
            and online a row is served from then on.
        available_after: without `created_ts` (or where it is null), a row became known this long after its event time.
        format: by default from the file's ending.
        rename: column in the file -> name in the view.
        as_of: the version or the time at which a Delta table is read; by default as it is now.
    """

    path: str
    event_ts: str | None = None
    created_ts: str | None = None
    available_after: dt.timedelta | None = None
    format: FileFormat | None = None
    rename: Mapping[str, str] | None = None
    as_of: int | dt.datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        if self.as_of is not None and (
            self.format != "delta" or isinstance(self.as_of, bool) or not isinstance(self.as_of, int | dt.datetime)
        ):
            raise DefinitionError(
                "invalid_definition",
                f"file source '{self.path}': as_of is {self.as_of!r}",
                'give a version or a datetime, of a source with format="delta"',
            )
        if self.event_ts is None and (self.created_ts is not None or self.available_after is not None):
            raise DefinitionError(
                "invalid_definition",
                f"file source '{self.path}' has created_ts or available_after, and no event_ts",
                "name the column of the event time",
            )
        self.file_format()
        duration_us(f"file source '{self.path}'", "available_after", self.available_after)

    def file_format(self) -> FileFormat:
        if self.format is not None:
            if self.format not in get_args(FileFormat):
                raise DefinitionError(
                    "invalid_definition",
                    f"file source '{self.path}': there is no format '{self.format}'",
                    "use parquet, csv, jsonl or delta",
                )
            return self.format
        for ending, file_format in _FORMAT_OF_ENDING.items():
            if self.path.endswith(ending):
                return file_format
        raise DefinitionError(
            "invalid_definition",
            f"file source '{self.path}': its name does not tell its format",
            'add format="parquet", "csv" or "jsonl"',
        )

    def to_json(self) -> dict[str, Any]:
        as_of = self.as_of
        if isinstance(as_of, dt.datetime):
            as_of = as_of.replace(tzinfo=as_of.tzinfo or dt.UTC).isoformat()  # type: ignore[assignment]
        return {
            **({} if as_of is None else {"as_of": str(as_of)}),
            "kind": "file",
            "path": self.path,
            "format": self.file_format(),
            "event_ts": self.event_ts,
            "created_ts": self.created_ts,
            "available_after_us": duration_us(self.path, "available_after", self.available_after),
            "rename": dict(self.rename or {}),
        }


_FORMAT_OF_ENDING: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True, eq=False)
class PushSource:
    """Rows that programs send with `FeatureStore.push`. They are kept as the view's history, for training.

    Args:
        event_ts: the column with the time at which a row became true; None for static rows.
        created_ts: the column with the time at which a row became known; without it, the time of the push.
    """

    event_ts: str | None = None
    created_ts: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "push",
            "event_ts": self.event_ts,
            "created_ts": self.created_ts,
            "available_after_us": None,
            "rename": {},
        }


@dataclass(frozen=True, eq=False)
class FeatureSelection:
    """Some features of a view, in an order: `weather[["temp", "wind_speed"]]`."""

    view: FeatureView | OnDemandFeatureView
    names: tuple[str, ...]


def _select(view: FeatureView | OnDemandFeatureView, names: Any) -> FeatureSelection:
    listed = [names] if isinstance(names, str) else list(names)
    known = [field.name for field in view.features]
    for name in listed:
        if name not in known:
            raise make_error(
                "unknown_feature", f"view '{view.name}' has no feature '{name}'", nearest_hint(name, known, "features")
            )
    return FeatureSelection(view, tuple(listed))


@dataclass(frozen=True, eq=False)
class FeatureView(_Described):
    """Features of one or more entities that come from one source.

    Args:
        name: for example "weather".
        entities: whose features they are; the key is all their join keys, in this order. May be empty.
        schema: the features; with aggregations, the columns of an event.
        source: where rows come from.
        ttl: online and in training, an older row does not count; None keeps it for ever. Static rows have none.
        online: whether `materialize` loads it into the online table.
        aggregations: functions over windows; then each row is an event, and these give the features.
        version: a changed view can be defined beside the one in use: version 2 of "weather" is the view "weather@v2",
            with its own rows and statistics; who reads "weather" notices nothing. Version 1 is the plain name.
    """

    name: str
    entities: Sequence[Entity]
    schema: Sequence[Field]
    source: FileSource | PushSource
    ttl: dt.timedelta | None = None
    online: bool = True
    aggregations: Sequence[Aggregation] = ()
    version: int = 1

    def __post_init__(self) -> None:
        _check_name("a feature view", self.name)
        object.__setattr__(self, "name", versioned_name(self.name, self.version))
        owner = f"feature view '{self.name}'"
        entities = [self.entities] if isinstance(self.entities, Entity) else list(self.entities)
        schema = list(self.schema)
        object.__setattr__(self, "entities", entities)
        object.__setattr__(self, "schema", schema)
        if not schema or not all(isinstance(field, Field) and field.expr is None for field in schema):
            raise DefinitionError(
                "invalid_definition",
                f"{owner}: its schema is not a list of plain fields",
                'write schema=[Field("temp", Float64)]; expressions belong in an OnDemandFeatureView',
            )
        if not all(isinstance(entity, Entity) for entity in entities):
            raise DefinitionError(
                "invalid_definition", f"{owner}: its entities are not all Entity", "pass the Entity itself"
            )
        if not isinstance(self.source, FileSource | PushSource):
            raise DefinitionError(
                "invalid_definition", f"{owner}: its source is {self.source!r}", "use a FileSource or a PushSource"
            )
        ttl_us = duration_us(owner, "ttl", self.ttl)
        if ttl_us is not None and self.source.event_ts is None:
            raise DefinitionError(
                "invalid_definition",
                f"{owner} has a ttl, and its rows have no event time",
                "name the source's event_ts, or leave the ttl out",
            )
        names = [key.name for key in self.join_keys]
        _check_distinct(owner, "columns", names + [field.name for field in schema])
        aggregations = [self.aggregations] if isinstance(self.aggregations, Aggregation) else list(self.aggregations)
        object.__setattr__(self, "aggregations", aggregations)
        if aggregations:
            if ttl_us is not None or self.source.event_ts is None:
                raise DefinitionError(
                    "invalid_definition",
                    f"{owner} has aggregations and {'no event time' if ttl_us is None else 'a ttl'}",
                    "name the source's event_ts, and leave the ttl out: the windows say what is too old",
                )
            _check_distinct(owner, "features", names + [field.name for field in self.features])

    @property
    def features(self) -> list[Field]:
        """What the view gives: its schema, or its aggregates."""
        if not self.aggregations:
            return list(self.schema)
        return [Field(name, dtype) for name, dtype, _ in self._aggregates()]

    def _aggregates(self) -> Iterator[tuple[str, DType, dict[str, Any]]]:
        for aggregation in self.aggregations:
            yield from aggregation.features(f"feature view '{self.name}'", self.schema)

    @property
    def join_keys(self) -> list[Field]:
        """The columns of the key: all join keys of the entities, in order."""
        return [key for entity in self.entities for key in entity.join_keys]

    def __getitem__(self, names: str | Sequence[str]) -> FeatureSelection:
        return _select(self, names)

    def to_json(self) -> dict[str, Any]:
        ttl_us = duration_us(self.name, "ttl", self.ttl)
        return {
            "entities": [entity.name for entity in self.entities],
            "fields": [{"name": field.name, "dtype": str(field.dtype)} for field in self.schema],
            **({"aggregations": [json for _, _, json in self._aggregates()]} if self.aggregations else {}),
            "ttl_us": ttl_us or None,  # a ttl of zero is no ttl
            "online": self.online,
            "source": self.source.to_json(),
            **self.described(),
        }


@dataclass(frozen=True, eq=False)
class OnDemandFeatureView(_Described):
    """Features computed from other features and from the request by expressions, the same in training and in serving.

    Args:
        name: for example "departure_time".
        inputs: the columns that the expressions may use: a `Field` comes with the request; a view or a selection of one
            gives stored features.
        schema: the outputs, each a `Field` with an expression.
    """

    name: str
    inputs: Sequence[Field | FeatureView | FeatureSelection]
    schema: Sequence[Field]

    def __post_init__(self) -> None:
        _check_name("an on-demand feature view", self.name)
        owner = f"on-demand feature view '{self.name}'"
        object.__setattr__(self, "inputs", list(self.inputs))
        object.__setattr__(self, "schema", list(self.schema))
        if not self.schema or not all(isinstance(field, Field) and field.expr is not None for field in self.schema):
            raise DefinitionError(
                "invalid_definition",
                f"{owner}: its schema is not a list of fields with expressions",
                'write schema=[Field("hour", Int64, col("planned_departure").dt.hour())]',
            )
        _check_distinct(owner, "features", [field.name for field in self.schema])
        for source in self.inputs:
            stored = isinstance(source, FeatureView) or (
                isinstance(source, FeatureSelection) and isinstance(source.view, FeatureView)
            )
            if not stored and not isinstance(source, Field):
                raise DefinitionError(
                    "invalid_definition",
                    f"{owner}: its input {source!r} is neither a request field nor of a stored view",
                    "use a Field, a FeatureView, or view[[names]]",
                )

    @property
    def features(self) -> list[Field]:
        """What the view gives."""
        return list(self.schema)

    def __getitem__(self, names: str | Sequence[str]) -> FeatureSelection:
        return _select(self, names)


@dataclass(frozen=True, eq=False)
class FeatureService(_Described):
    """The features of a model, from any number of views, in the model's order.

    Args:
        name: for example "departure_risk".
        features: views (all their features) and selections (`weather[["temp"]]`).
        full_feature_names: name each feature `view__feature` in place of `feature`.
    """

    name: str
    features: Sequence[FeatureView | OnDemandFeatureView | FeatureSelection]
    full_feature_names: bool = False

    def __post_init__(self) -> None:
        _check_name("a feature service", self.name)
        object.__setattr__(self, "features", list(self.features))
        for part in self.features:
            if not isinstance(part, FeatureView | OnDemandFeatureView | FeatureSelection):
                raise DefinitionError(
                    "invalid_definition",
                    f"feature service '{self.name}': {part!r} is neither a view nor a selection of one",
                    "use a view or view[[names]]",
                )
        if not self.features:
            raise DefinitionError(
                "invalid_definition", f"feature service '{self.name}' has no features", "list at least one view"
            )
        _check_distinct(f"feature service '{self.name}'", "features", [entry["name"] for entry in self._entries()])

    def _entries(self) -> list[dict[str, str]]:
        entries = []
        for part in self.selections():
            for feature in part.names:
                name = f"{part.view.name}__{feature}" if self.full_feature_names else feature
                entries.append({"view": part.view.name, "feature": feature, "name": name})
        return entries

    def selections(self) -> list[FeatureSelection]:
        """Its parts, each as a selection."""
        return [
            part
            if isinstance(part, FeatureSelection)
            else FeatureSelection(part, tuple(field.name for field in part.features))
            for part in self.features
        ]

    def to_json(self) -> dict[str, Any]:
        return {"features": self._entries(), "full_feature_names": self.full_feature_names, **self.described()}


Definition = Entity | FeatureView | OnDemandFeatureView | FeatureService
