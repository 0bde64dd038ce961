"""headrace.toml: the settings of a project and their defaults. `HEADRACE_SECTION_KEY` in the environment overrides."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headrace.errors import make_error, nearest_hint

CONFIG_FILE = "headrace.toml"
STATE_FOLDER = ".headrace"
PAYLOAD_FOLDER = "payload"
"""In the state folder: what was served, as `headrace.payload` reads it."""
CONSISTENCY_FILE = "consistency.json"
"""In the state folder: what `headrace verify consistency` has found last."""


@dataclass(frozen=True)
class ProjectSection:
    name: str = ""
    """The project's name; by default that of its folder."""
    features: str = "features"
    """The folder of the definitions (`*.py`)."""


@dataclass(frozen=True)
class SourcesSection:
    root: str = "."
    """Where relative paths of file sources start from."""


@dataclass(frozen=True)
class OnlineSection:
    durability: str = "process"
    """An acknowledged write survives the end of the "process" (`kill -9` included), or a power cut ("disk")."""
    bytes_max: int = 0
    """Bound of the online table in bytes; 0 leaves the engine's default."""
    snapshot_log_bytes: int = 256 * 1024 * 1024
    """A snapshot is made when the log since the last one exceeds this."""
    max_future_skew_seconds: float = 300.0
    """A row whose event time is further ahead of the clock is refused and counted."""
    statistics: bool = True
    """Whether statistics of each feature are gathered from what is written, for `headrace describe`."""


@dataclass(frozen=True)
class OfflineSection:
    memory: str = ""
    """What a join of training sets may hold, such as "2GB"; what does not fit is joined in partitions. By default half
    of the machine's memory."""
    spill: str = ""
    """The folder for partitions that do not fit into memory; by default in the project's state."""


@dataclass(frozen=True)
class IngestSection:
    dead_letter_rows_max: int = 1000
    """Of the rows that one load refuses for one reason, the first so many are kept in `.headrace/dead-letter`."""
    dead_letter_files_max: int = 100
    """So many files of refused rows are kept for each view; older ones are removed."""


@dataclass(frozen=True)
class HistorySection:
    retention_days: float = 0.0
    """`headrace compact` removes pushed rows with an older event time, unless a dataset refers to them; 0 keeps all."""
    file_bytes: int = 128 * 1024 * 1024
    """`headrace compact` joins files until they have this size."""


@dataclass(frozen=True)
class EraseSection:
    block_days: float = 0.0
    """So long are old rows of erased keys refused; 0 is for good. Make it longer than any topic or file is replayed."""


@dataclass(frozen=True)
class ServerSection:
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc: bool = True
    """Whether the same is served over gRPC."""
    grpc_port: int = 8001
    """Where `http_port` is 0, gRPC takes a free port too."""
    metrics_port: int = 8002
    metrics_host: str = "127.0.0.1"
    """Of the metrics alone; opening `host` to other machines does not open them."""
    access: str = ""
    """The file that says who may do what, relative to the project. Without one the server listens on loopback only."""
    insecure_no_auth: bool = False
    """Lets everybody do everything from other machines too, where there is no access file."""
    threads: int = 0
    """Threads that answer requests; 0 takes one for each core."""
    body_bytes_max: int = 64 * 1024 * 1024
    """A larger request body is refused."""
    memory_bytes_max: int = 1024 * 1024 * 1024
    """What the bodies and answers of all requests at work may hold; a request that needs more is answered with 503."""
    writes: bool = False
    """Whether rows may be pushed and deleted over HTTP. From the first write on the server is the store's writer."""
    writes_max: int = 256
    """Writes that may wait for the writer; a further one is answered with 503."""
    model_control: bool = False
    """Whether models may be loaded and unloaded over HTTP."""
    refresh_seconds: float = 1.0
    """How often a server looks for writes of other processes to the online store."""
    log: str = "text"
    """How the lines of the log on stderr look: "text" for people, "json" for one object a line."""
    access_log: bool = False
    """Whether every request gets a line."""
    slow_request_seconds: float = 0.0
    """A request that takes as long gets a line of its own; 0 for none."""


@dataclass(frozen=True)
class TracesSection:
    """Traces of requests, sent to a collector by OTLP. What is empty here comes from OpenTelemetry's own variables."""

    endpoint: str = ""
    """Where they go, such as "http://127.0.0.1:4318"; by default OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or
    OTEL_EXPORTER_OTLP_ENDPOINT, and nowhere where neither is set."""
    sampler: str = ""
    """By OpenTelemetry's names; by default OTEL_TRACES_SAMPLER with OTEL_TRACES_SAMPLER_ARG, then
    "parentbased_traceidratio": the caller's flag decides, and `sample` where there is none."""
    sample: float = 1.0
    """The share of traces that a sampler of ratios records, from 0 to 1."""
    service_name: str = ""
    """What the spans are said to come from; by default OTEL_SERVICE_NAME, then "headrace-" and the project's name."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each export. A value `env:NAME` is read from the environment, `file:PATH` from a file. By default
    OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS."""


@dataclass(frozen=True)
class PayloadSection:
    sample: float = 0.0
    """The share of entity keys whose lookups are logged, from 0 (nothing) to 1 (all)."""
    salt: str = ""
    """Another text samples other keys."""
    memory_bytes_max: int = 64 * 1024 * 1024
    """What sampled rows may hold until they are written; rows that find no room are dropped and counted."""
    segment_seconds: float = 60.0
    """How long a sampled row may wait for its file; what a process loses when it is killed."""


@dataclass(frozen=True)
class QueueSection:
    """How requests wait for models of which one call is dear: Python classes, functions, slow models of any kind."""

    objective_seconds: float = 1.0
    """How long a request shall take at most, unless it brings a deadline. What would take longer is refused at once
    with 503; a batch may take half as long."""
    objectives: dict[str, float] = field(default_factory=dict)
    """The same for single models: `objectives = {risk = 0.02}`."""
    requests_max: int = 10_000
    """Requests that wait for one model; a further one is answered with 503."""
    calls_at_a_time: int = 0
    """Calls at a time of all slow models that compute in the server's process; 0 for one for each core."""


@dataclass(frozen=True)
class ModelsSection:
    onnxruntime: str = ""
    """The path of libonnxruntime.so; by default that of the installed wheel. HEADRACE_ONNXRUNTIME goes before it."""
    onnx_threads: int = 1
    """Threads that all ONNX models of a process share for one call; 1 runs a model on the request's thread."""
    python: str = ""
    """The Python that runs model classes; by default this one. Another one needs numpy and pyarrow."""
    workers: int = 1
    """Processes for each version of a Python model: so many batches run at a time."""
    deadline_seconds: float = 10.0
    """A batch of a Python model that takes longer fails, and its worker is replaced; it waits as long for a worker."""
    start_seconds: float = 60.0
    """How long a worker may take to import and make its class."""
    memory_bytes_max: int = 0
    """A worker whose own memory exceeds this is replaced between two batches; 0 for no bound."""
    address_bytes_max: int = 0
    """The address space that the kernel gives a worker; 0 for no bound."""
    batch_bytes_max: int = 64 * 1024 * 1024
    """Shared memory of a worker for one batch and its scores; a larger batch is run in parts."""
    environment: str = ""
    """Names of further environment variables that workers get, separated by commas."""


@dataclass(frozen=True)
class Config:
    """The settings of one project. Paths are absolute."""

    root: Path
    project: ProjectSection = field(default_factory=ProjectSection)
    sources: SourcesSection = field(default_factory=SourcesSection)
    ingest: IngestSection = field(default_factory=IngestSection)
    history: HistorySection = field(default_factory=HistorySection)
    erase: EraseSection = field(default_factory=EraseSection)
    online: OnlineSection = field(default_factory=OnlineSection)
    offline: OfflineSection = field(default_factory=OfflineSection)
    server: ServerSection = field(default_factory=ServerSection)
    payload: PayloadSection = field(default_factory=PayloadSection)
    models: ModelsSection = field(default_factory=ModelsSection)
    queue: QueueSection = field(default_factory=QueueSection)
    traces: TracesSection = field(default_factory=TracesSection)

    @property
    def name(self) -> str:
        return self.project.name or self.root.name

    @property
    def state(self) -> Path:
        """The folder of everything that headrace keeps."""
        return self.root / STATE_FOLDER

    @property
    def spill(self) -> Path:
        """The folder for temporary files of joins that are larger than memory."""
        return self.root / self.offline.spill if self.offline.spill else self.state / "spill"

    @property
    def features(self) -> Path:
        return self.root / self.project.features

    @property
    def sources_root(self) -> Path:
        return self.root / self.sources.root


Section = TypeVar("Section")
_SECTIONS = {
    "project": ProjectSection,
    "sources": SourcesSection,
    "ingest": IngestSection,
    "history": HistorySection,
    "erase": EraseSection,
    "online": OnlineSection,
    "offline": OfflineSection,
    "server": ServerSection,
    "payload": PayloadSection,
    "models": ModelsSection,
    "queue": QueueSection,
    "traces": TracesSection,
}
_CONTROL_TABLES = ("dataset", "model")  # of the control plane, which reads and checks them


def load_config(root: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """Reads `root/headrace.toml`, then the environment.

    Raises:
        UnknownNameError: `not_found`, there is no such file.
        InputError: a section, a key or a value is wrong; the message names it.
    """
    folder = Path(root).resolve()
    path = folder / CONFIG_FILE
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise make_error(
            "not_found",
            f"there is no {CONFIG_FILE} in {folder}",
            "go to a project's folder, or make one with `headrace init`",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise make_error("invalid_argument", f"{path}: {error}", "correct the TOML at that position") from None
    for name in document:
        if name not in _SECTIONS and name not in _CONTROL_TABLES:
            raise make_error(
                "invalid_argument", f"{path}: unknown section [{name}]", nearest_hint(name, _SECTIONS, "sections")
            )
    environment = os.environ if environ is None else environ
    sections: dict[str, Any] = {
        name: _section(path, name, kind, document.get(name, {}), environment) for name, kind in _SECTIONS.items()
    }
    config = Config(root=folder, **sections)
    if config.online.durability not in ("process", "disk"):
        raise make_error(
            "invalid_argument",
            f"online.durability is '{config.online.durability}'",
            'use "process" (survives the end of the process) or "disk" (and that of the machine)',
        )
    if config.server.log not in ("text", "json"):
        raise make_error("invalid_argument", f"server.log is '{config.server.log}'", 'use "text" or "json"')
    objectives = {"objective_seconds": config.queue.objective_seconds, **config.queue.objectives}
    for name, seconds in objectives.items():
        if type(seconds) not in (int, float) or not 0 < seconds <= 86_400:
            raise make_error(
                "invalid_argument",
                f"queue's objective '{name}' is {seconds!r}",
                "give seconds, above 0 and at most a day",
            )
    payload = config.payload
    if not 0 <= payload.sample <= 1 or not 0 <= payload.segment_seconds <= 3600 or payload.memory_bytes_max < 0:
        raise make_error(
            "invalid_argument",
            f"payload is {payload}",
            "sample is a share from 0 to 1, segment_seconds at most 3600, memory_bytes_max not negative",
        )
    return config


def _section(path: Path, name: str, kind: type[Section], given: Any, environ: Mapping[str, str]) -> Section:
    if not isinstance(given, dict):
        raise make_error("invalid_argument", f"{path}: {name} is not a section", f"write [{name}]")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in fields:
            raise make_error("invalid_argument", f"{path}: unknown key {name}.{key}", nearest_hint(key, fields, "keys"))
        values[key] = _typed(f"{path}: {name}.{key}", _default(fields[key]), value)
    for key, item in fields.items():
        variable = f"HEADRACE_{name}_{key}".upper()
        if variable in environ:
            values[key] = _parsed(variable, _default(item), environ[variable])
    return kind(**values)


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _typed(place: str, default: Any, value: Any) -> Any:
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise make_error("invalid_argument", f"{place} is {value!r}", f"give a value of type {type(default).__name__}")
    return value


def _parsed(variable: str, default: Any, text: str) -> Any:
    try:
        if isinstance(default, bool):  # bool("false") is true
            return {"true": True, "1": True, "false": False, "0": False, "": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        raise make_error(
            "invalid_argument",
            f"the environment variable {variable} is '{text}'",
            f"give a value of type {type(default).__name__}",
        ) from None
