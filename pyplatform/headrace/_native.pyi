# ruff: noqa: PYI021, A002 (people read the docstrings here; `id` and `format` are the words of the formats)
"""The engine as Python sees it. Private: use it through `headrace`.

Errors of the engine are raised as the classes of `headrace.errors`. Long work runs without the interpreter lock and can
be interrupted with Ctrl-C where it says so. A handle that is used after a fork raises `used_after_fork`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

__all__ = [
    "DistinctSketch",
    "Embedded",
    "EmbeddedAnswer",
    "Engine",
    "Expressions",
    "JoinedTable",
    "LocalStore",
    "Model",
    "OnlinePlan",
    "Plan",
    "Profile",
    "QuantileSketch",
    "__version__",
    "canonical_json",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "PointInTimeJoin",
    "RecordRows",
    "StoreSnapshot",
    "complete_join",
    "partition_rows",
    "serve",
    "skip_inherited_exit_handlers",
    "source_digest",
    "write_log",
]

__version__: str

def canonical_json(text: str) -> str:
    """The same JSON with sorted keys and without white space."""

def digest_json(text: str) -> str:
    """`sha256:<hex>` of the canonical form."""

def digest_bytes(data: bytes) -> str: ...
def digest_file(path: str | os.PathLike[str]) -> str: ...
def source_digest() -> str:
    """The digest of the Rust sources of this module; `native/python/build.rs` says over which files."""

def skip_inherited_exit_handlers() -> None:
    """In a forked child: end without the C exit handlers of the parent, which may wait for the parent's threads."""

@final
class Plan:
    """The compiled definitions of a project. Immutable."""

    @staticmethod
    def from_json(text: str) -> Plan: ...
    @property
    def digest(self) -> str: ...
    @property
    def json(self) -> str:
        """Canonical."""

    @property
    def project(self) -> str: ...
    def diff(self, old: Plan | None = None) -> str:
        """JSON: added, changed and removed definitions, and breaking changes."""

    def services(self) -> list[str]: ...
    def service(self, name: str) -> str:
        """JSON: join_keys, request_fields, features and views of a service, and every stored feature that it reads."""

    def unbound_functions(self) -> list[str]:
        """Digests of the functions that services call and that have no code in this process yet."""

    def bind_compiled(self, digest: str, address: int, owner: object) -> None:
        """The address of a native function as `headrace.functions` compiles it, and what keeps it in place."""

    def bind_python(self, digest: str, function: object) -> None:
        """A callable that takes a list for each argument and returns a sequence."""

    def tables(self) -> str:
        """JSON: the online tables, their join keys and views."""

@final
class JoinedTable:
    """The result of a join; any Arrow library can take it over without a copy."""

    @property
    def counts(self) -> dict[str, Any]: ...
    @property
    def num_rows(self) -> int: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class StoreSnapshot:
    def finish(self) -> None: ...

@final
class PointInTimeJoin:
    """A join whose source rows are given as they are read, each view's in their order. Ctrl-C ends it."""

    def __new__(
        cls,
        plan: Plan,
        service: str,
        entities: object,
        event_ts_column: str,
        as_known_at: bool | str | None = None,
        threads: int | None = None,
        statuses: bool = False,
        held_bytes_max: int = 0,
        views: Sequence[str] | None = None,
    ) -> PointInTimeJoin:
        """With `views` it is one partition of a join, of those views only."""

    def views(self) -> list[str]: ...
    def keeps_all(self, view: str) -> bool:
        """Whether all source rows of a view are kept until the end, rather than the newest."""

    def add(self, view: str, rows: object) -> None: ...
    def finish(self) -> JoinedTable: ...
    def finish_stored(self) -> JoinedTable:
        """What was found, in the form that `complete_join` takes."""

def complete_join(
    plan: Plan,
    service: str,
    entities: object,
    stored: object,
    event_ts_column: str,
    threads: int | None = None,
    statuses: bool = False,
) -> JoinedTable:
    """Completes a join that was run in partitions, for some of its entity rows. Its counts are empty."""

@final
class RecordRows:
    """Some rows; any Arrow library can take them over without a copy."""

    @property
    def num_rows(self) -> int: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

def partition_rows(rows: object, keys: Sequence[str], count: int) -> list[RecordRows]:
    """The rows in `count` parts by the hash of their key, which is the same everywhere."""

@final
class LocalStore:
    """The online tables of a plan, in this process's memory. Reads never wait for writes."""

    def __new__(cls, plan: Plan, bytes_max: int | None = None) -> LocalStore: ...
    @staticmethod
    def open_snapshot(
        plan: Plan, folder: str | os.PathLike[str], read_only: bool = False, bytes_max: int | None = None
    ) -> LocalStore: ...
    def begin_snapshot(self, folder: str | os.PathLike[str]) -> StoreSnapshot: ...
    def write_snapshot(self, folder: str | os.PathLike[str]) -> None: ...
    def encode(
        self,
        view: str,
        batch: object,
        first_sequence: int,
        now_us: int,
        max_future_skew_us: int,
        resets: bool = False,
    ) -> tuple[bytes, int, dict[str, int]]:
        """The rows as one value of the log, how many they are, and how many were refused for which reason."""

    def apply(self, data: bytes) -> dict[str, int]:
        """Applies a value of the log: rows, inserted, replaced, stale, deleted, skipped."""

    def without_keys(self, columns: Sequence[str], keys: Sequence[bytes]) -> tuple[LocalStore, dict[str, int]]:
        """The same rows without those of some keys, and how many keys each table has lost.

        Args:
            columns: join keys; a table that has them all loses what has these values.
            keys: the canonical bytes of the columns' values, one after the other.
        """

    def online_plan(self, service: str) -> OnlinePlan: ...
    def stats(self) -> dict[str, dict[str, int]]:
        """Table -> keys, row_bytes, used_bytes, index_bytes."""

    def windows_stats(self) -> dict[str, dict[str, int]]:
        """View of aggregates -> keys, used_bytes."""

    def __len__(self) -> int: ...

@final
class OnlinePlan:
    """A feature service prepared for reading."""

    @property
    def service(self) -> str: ...
    @property
    def feature_names(self) -> list[str]: ...
    @property
    def dtypes(self) -> list[str]: ...
    @property
    def join_keys(self) -> list[str]: ...
    def read_into(self, keys: Any, out: Any, status: Any = None, now_us: int | None = None) -> None:
        """Fills `out` with the features of some keys, row by row; what is missing is NaN.

        Args:
            keys: of one join key, a NumPy int64 array or a sequence of values; of several, a sequence of tuples.
            out: a writable C-contiguous float32 or float64 array of shape [keys, features].
            status: a writable uint8 array of the same shape for the statuses, or None.
            now_us: microseconds UTC; None is now.
        """

    def read(
        self,
        entities: Mapping[str, Sequence[Any]],
        request: Mapping[str, Sequence[Any]] | None = None,
        now_us: int | None = None,
    ) -> dict[str, Any]:
        """`{"features": {name: [values]}, "statuses": {name: [names]}}`."""

@final
class Model:
    """A loaded model, by itself. `runtimes` are those of `headrace.runtimes`; by default what this Python has."""

    @staticmethod
    def open(path: str | os.PathLike[str], runtimes: Mapping[str, Any] | None = None) -> Model:
        """Opens a version's folder: verifies its digests, loads the model, replays its golden rows."""

    @staticmethod
    def create(
        models: str | os.PathLike[str],
        name: str,
        draft: str,
        data: bytes,
        files: Sequence[tuple[str, str | os.PathLike[str]]] | None = None,
        runtimes: Mapping[str, Any] | None = None,
    ) -> Model:
        """Makes the next version of a model from its draft (JSON), its file and further files (names and paths).

        It is opened before it becomes visible.
        """

    @staticmethod
    def from_bytes(
        format: str,
        data: bytes,
        task: str | None = None,
        settings: str | None = None,
        runtimes: Mapping[str, Any] | None = None,
    ) -> Model:
        """Reads a model file by itself; it has no name, no signature and no golden rows.

        Args:
            format: the name of its format.
            data: its bytes.
            task: what it answers; only ONNX needs it, to know probabilities from values.
            settings: JSON, as in a manifest.
            runtimes: what runs it, if that is not headrace itself.
        """

    @property
    def name(self) -> str | None: ...
    @property
    def version(self) -> int | None: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def manifest(self) -> str | None:
        """JSON."""

    @property
    def features_count(self) -> int: ...
    @property
    def outputs_count(self) -> int: ...
    @property
    def text_features(self) -> list[int]:
        """The places of the features that may be given as text."""

    def categories(self, feature: int) -> list[str] | None:
        """The texts that a feature has codes for, in the order of their codes.

        None of a feature that takes numbers, and where the file knows texts by their hashes (CatBoost).
        """

    def codes(self, feature: int) -> list[float] | None:
        """The codes that stand for texts of a feature, in increasing order; None of one that takes numbers."""

    def encode(self, x: Any) -> Any:
        """The rows as the model computes with them: float64 [rows, features], with codes in the place of texts."""

    def margins(self, x: Any, threads: int | None = None) -> Any:
        """Raw margins: float64 [rows, outputs] of a float32 or float64 [rows, features]; NaN is missing.

        Where features are text, x may also be a frame (pandas, Polars, Arrow), a dict of columns, or rows of objects.
        Columns are found by the names of the signature; a model without one takes them in their order. None and NaN are
        missing texts. An array of numbers holds codes in the place of texts, as `encode` gives them.

        Raises:
            HeadraceError: `invalid_argument`, a text is none that the model was trained on, and its library raises an
                error for such a one.
        """

    def scores(self, x: Any, threads: int | None = None) -> Any:
        """As `margins`, turned into scores."""

    def contributions(self, x: Any, threads: int | None = None) -> Any:
        """What each feature adds to the margins: float64 [rows, features + 1], or [rows, outputs, features + 1] for a
        model with several outputs. The last value is the expected margin: a row's values sum to its margin.
        """

    def check_explainable(self) -> None:
        """Raises what `contributions` would, without any work."""

    @property
    def bytes(self) -> int:
        """Memory that the compiled model takes."""

    @property
    def explainer_bytes(self) -> int:
        """Memory that explanations take now: none before the first one of a model that has a folder."""

@final
class Expressions:
    """The on-demand features of a service over the columns of a request, without a store. For one thread at a time."""

    def __new__(cls, plan: Plan, service: str, request: Mapping[str, Any]) -> Expressions: ...
    def run(self, first: int, rows: int) -> None:
        """Computes `rows` rows from row `first` of the request on."""

    def values(self) -> dict[str, list[Any]]:
        """The features of the last run; None where there is no value."""

@final
class Engine:
    """The request path: lookup, transform, model."""

    def __new__(
        cls,
        plan: Plan | None = None,
        store: LocalStore | None = None,
        clock_us: int | None = None,
        payload: dict[str, Any] | None = None,
        queue: dict[str, Any] | None = None,
    ) -> Engine: ...
    def install(self, plan: Plan, store: LocalStore) -> None: ...
    def add_model(self, path: str | os.PathLike[str], runtimes: Mapping[str, Any] | None = None) -> tuple[str, int]: ...
    def unload_model(self, name: str) -> None:
        """Takes every version of a model out, which lists them as unavailable."""

    def add_fixtures(self) -> None: ...
    def forget_model(self, name: str, version: int) -> None: ...
    def models(self) -> list[dict[str, Any]]: ...
    def set_clock(self, now_us: int) -> None: ...
    def get_online_features(
        self,
        service: str,
        entities: Mapping[str, Sequence[Any]] | None = None,
        request: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, Any]: ...
    def note_applied(self, rows: int) -> None: ...
    def flush_payload(self) -> None: ...
    def payload_stats(self) -> dict[str, int] | None: ...
    def set_consistency(self, report: str | None) -> None: ...
    def predict(
        self,
        name: str,
        entities: Mapping[str, Sequence[Any]] | None = None,
        request: Mapping[str, Sequence[Any]] | None = None,
        features: Mapping[str, Sequence[Any]] | None = None,
        outputs: Sequence[str] | None = None,
        version: int | None = None,
        id: str | None = None,
        explain: bool | Mapping[str, int] | None = None,
    ) -> dict[str, Any]: ...
    def predict_arrays(
        self,
        name: str,
        entities: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
        features: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        version: int | None = None,
    ) -> dict[str, Any]: ...

@final
class Profile:
    """The statistics of named columns, gathered in one pass; mergeable."""

    def __new__(cls) -> Profile: ...
    @staticmethod
    def from_bytes(data: bytes) -> Profile: ...
    def to_bytes(self) -> bytes: ...
    def add(self, frame: object) -> None:
        """Adds the rows of anything with `__arrow_c_stream__` or `__arrow_c_array__`."""

    def merge(self, other: Profile) -> None: ...
    @property
    def rows(self) -> int: ...
    def describe(self) -> str:
        """JSON: `{"rows", "columns": {name: {"dtype", "nulls", "min", "quantiles", "distinct", "top", ..}}}`."""

@final
class QuantileSketch:
    """Approximate quantiles of many numbers, each within 1/128 of its value. NaN is left out."""

    def __new__(cls, values: Sequence[float] = ...) -> QuantileSketch: ...
    @staticmethod
    def from_bytes(data: bytes) -> QuantileSketch: ...
    def to_bytes(self) -> bytes: ...
    def add(self, value: float) -> None: ...
    def merge(self, other: QuantileSketch) -> None: ...
    @property
    def count(self) -> int: ...
    def quantile(self, q: float) -> float | None:
        """The value of rank `floor(q * (count - 1))`, approximately."""

@final
class DistinctSketch:
    """How many distinct values there are: exact up to 512, then with a standard error of 1.6 %."""

    def __new__(cls, values: Sequence[bytes] = ...) -> DistinctSketch: ...
    @staticmethod
    def from_bytes(data: bytes) -> DistinctSketch: ...
    def to_bytes(self) -> bytes: ...
    def add(self, value: bytes) -> None: ...
    def add_int(self, value: int) -> None: ...
    def add_float(self, value: float) -> None: ...
    def merge(self, other: DistinctSketch) -> None: ...
    def estimate(self) -> float: ...

def write_log(engine: Engine, format: str, level: int, event: str, message: str, fields: Mapping[str, str]) -> None:
    """Writes one line on stderr in the form of the server's log, if the engine's log settings let it through."""

_HttpReply: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]

@final
class Embedded:
    """Answers HTTP requests without a socket."""

    def __new__(
        cls, engine: Engine, body_bytes_max: int, writes: bool = False, model_control: bool = False
    ) -> Embedded: ...
    def begin(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> _HttpReply | EmbeddedAnswer: ...

@final
class EmbeddedAnswer:
    """An answer that takes long, or that the program around it makes."""

    @property
    def kind(self) -> str: ...
    def finish(
        self, write: Callable[..., str] | None = None, change_model: Callable[[str, bool], None] | None = None
    ) -> _HttpReply: ...

def serve(
    engine: Engine,
    config: Mapping[str, Any],
    callbacks: Mapping[str, Callable[..., Any] | None],
    tick_seconds: float = 1.0,
) -> None:
    """Answers requests until SIGINT or SIGTERM, then ends what has begun and returns."""
