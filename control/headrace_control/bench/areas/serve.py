"""`headrace serve` beside other servers: rates, latencies at a given rate, overload, memory, start."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_control.bench.areas.trees import TRAINER, Model, trained_model, xgboost_model
from headrace_control.bench.measure import difference
from headrace_control.bench.results import Bar, BarRule, Measured, Report, Result
from headrace_control.bench.serving import servers
from headrace_control.bench.serving.load import Load, Sample, sample_of_generator
from headrace_control.bench.serving.servers import Server
from headrace_control.bench.serving.turns import Turn, measure_turns
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Session
from headrace_control.demo.load import connect, exchange
from headrace_control.errors import ControlError

TITLE = "HTTP and gRPC, 64 connections, one row of 50 features, XGBoost 100 x 6; client and server share the cores"
NGINX, BARE, TONIC, MLSERVER, FASTAPI = "nginx", "bare hyper", "bare tonic", "mlserver", "fastapi"
NOT_SCRAPED, BUSY_PROCESS, ONE_CALLER = f"{OURS}, not scraped", f"{OURS}, busy process", f"{OURS}, one caller"
PEERS = (NGINX, BARE, TONIC, MLSERVER, FASTAPI)
ENGINES = (OURS, *PEERS, NOT_SCRAPED, BUSY_PROCESS, ONE_CALLER)

JSON, BINARY, GRPC, COMMON, ENTITIES = "http-json", "http-binary", "grpc", "http-common-json", "http-entity-keys"
OPEN, BUSY, METRICS = "open-loop-half-of-peak", "busy-python-thread", "metrics"
FIXED_COST, OVERLOAD, MEMORY, START = "fixed-cost-1-ms", "overload-10-x-peak", "memory", "start"
CASES = (JSON, BINARY, GRPC, COMMON, ENTITIES, OPEN, BUSY, METRICS, FIXED_COST, OVERLOAD, MEMORY, START)
POINTS = [(case, 1) for case in CASES]

CONNECTIONS = 64
OVERLOAD_CONNECTIONS = 512
OVERLOAD_FACTOR = 10
SERVICE_US = 5000.0
BUSY_SHARE = 0.1
"""Of the peak, where a busy loop has one of the cores."""
OPEN_P99_US = 1500.0
REQUESTS = 4096
COMPARED = 64
INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
TOLERANCE = 1e-5

BARS = (
    BarRule("serve_json_over_nginx", 0.35, ">=", JSON, 1, OURS, NGINX, figure="rows_per_s"),
    BarRule("serve_json_over_bare_hyper", 0.7, ">=", JSON, 1, OURS, BARE, figure="rows_per_s"),
    BarRule("serve_binary_over_nginx", 0.5, ">=", BINARY, 1, OURS, NGINX, figure="rows_per_s"),
    BarRule("serve_grpc_over_bare_tonic", 0.8, ">=", GRPC, 1, OURS, TONIC, figure="rows_per_s"),
    BarRule("serve_grpc_over_mlserver", 15.0, ">=", GRPC, 1, OURS, MLSERVER, figure="rows_per_s"),
    BarRule("serve_entity_keys_over_features", 1.0, ">=", ENTITIES, 1, OURS, OURS, figure="rows_per_s", to_case=JSON),
    BarRule("serve_busy_thread_p99_over_process", 1.2, "<=", BUSY, 1, OURS, BUSY_PROCESS, figure="p99_us"),
    BarRule("serve_64_callers_over_one", 8.0, ">=", FIXED_COST, 1, OURS, ONE_CALLER, figure="rows_per_s"),
    BarRule("serve_metrics_on_over_off", 0.97, ">=", METRICS, 1, OURS, NOT_SCRAPED, figure="rows_per_s"),
)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        seconds: of a block of load.
        starts: of servers from nothing.
    """

    keys: int = 10_000
    seconds: float = 2.0
    starts: int = 5
    model: Model = field(default_factory=lambda: xgboost_model(100, 6))


QUICK = Size(keys=2_000, seconds=0.25, starts=2)


def run(session: Session, size: Size | None = None) -> Report:
    """Measures what was asked for: the rates first, since other cases are set by them."""
    size = size or (QUICK if session.settings.quick else Size())
    with ExitStack() as stack:
        bench = Bench(session, size, stack)
        results = bench.rates()
        results += bench.open_loop(peak_of(results))
        results += bench.busy(peak_of(results))
        results += bench.metrics()
        results += bench.fixed_cost()
        bars = [*open_loop_bar(session, results), *bench.overload(), *bench.memory()]
        started = bench.start()
        results += started
        bars += start_bar(session, started)
    return session.report("serve", results, [rule for rule in BARS if is_judged(session, rule)], bars)


def is_judged(session: Session, rule: BarRule) -> bool:
    """A rule between cases needs both of them."""
    return rule.to_case is None or session.settings.takes_point(rule.to_case, 1)


class Bench:
    """What the cases share: the projects, the files of requests, and the servers that are started at first use."""

    def __init__(self, session: Session, size: Size, stack: ExitStack) -> None:
        self.session, self.size, self.stack = session, size, stack
        self.load = Load.found(session.root, quick=session.settings.quick)
        session.details["load"] = {"closed": "wrk" if self.load.wrk else "bench/load", "open": "bench/load"}
        if self.load.wrk is None and not session.settings.quick:
            session.note("wrk is not installed (apt-get install wrk): bench/load takes its place")
        self.model = trained_model(session, size.model)
        self.folder = session.folder / "serving"
        self.folder.mkdir()
        options = {
            "folder": str(self.folder),
            "model": str(self.model),
            "keys": size.keys,
            "seed": session.settings.seed,
        }
        worker = session.worker(TRAINER)
        session.note("make projects and requests")
        worker.ask("job", JOB_TIMEOUT_S, name="make_projects", options=options)
        worker.ask("job", JOB_TIMEOUT_S, name="make_requests", options={**options, "requests": REQUESTS})
        self.expected: NDArray[Any] = np.load(self.folder / "expected.npy")[:COMPARED].astype(np.float64)
        self.started: dict[str, Server | None] = {}
        self.version = ours_version()

    # what is measured with

    def takes(self, case: str, engine: str = OURS) -> bool:
        settings = self.session.settings
        wanted = settings.takes_point(case, 1) or (
            case == JSON and any(map(settings.takes_point, (OPEN, BUSY), (1, 1)))
        )
        return wanted and settings.takes_engine(engine, (OURS, NOT_SCRAPED, BUSY_PROCESS, ONE_CALLER))

    def requests(self, kind: str) -> Path:
        return self.folder / f"{kind}.requests"

    def first_requests(self, kind: str, count: int) -> list[bytes]:
        """The first requests of a file."""
        data, at = self.requests(kind).read_bytes(), 0
        found: list[bytes] = []
        while at < len(data) and len(found) < count:
            length = int.from_bytes(data[at : at + 4], "little")
            found.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        return found

    def server(self, name: str, make: Callable[[], AbstractContextManager[Server]]) -> Server | None:
        """The run's server of a name, started at first use; `None`, with the reason kept, when it cannot be."""
        if name not in self.started:
            self.session.note(f"start {name}")
            try:
                self.started[name] = self.stack.enter_context(make())
            except ControlError as error:
                self.session.skip(name, error)
                self.started[name] = None
        return self.started[name]

    def ours(self, name: str = OURS, project: str = "served", *, busy: bool = False) -> Server:
        """Our server.

        Raises:
            ControlError: `unavailable`: without it there is nothing to measure.
        """
        log = self.folder / f"{name.replace(' ', '-')}.log"
        found = self.server(name, lambda: servers.headrace_server(self.folder / project, log, busy=busy))
        if found is None:
            raise ControlError("unavailable", self.session.skipped[name], "start `headrace serve` by hand to see why")
        return found

    def closed(self, server: Server, kind: str, connections: int = CONNECTIONS) -> Callable[[float], Sample]:
        requests = self.requests(kind)
        return lambda seconds: self.load.closed(server.port, requests, connections, seconds)

    def open(self, server: Server, kind: str, rate: float) -> Callable[[float], Sample]:
        requests, seed = self.requests(kind), self.session.settings.seed
        return lambda seconds: sample_of_generator(
            self.load.generate(server.port, requests, CONNECTIONS, seconds, rate=rate, seed=seed)
        )

    def agrees(self, engine: str, case: str, server: Server, kind: str, value: Callable[[bytes], float]) -> bool:
        """Whether a server's answers to the first requests are the model's; if not it is left out and named."""

        def ask() -> list[float]:
            with connect("127.0.0.1", server.port) as connection:
                replies = [exchange(connection, request) for request in self.first_requests(kind, COMPARED)]
            return [value(reply.body) for reply in replies]

        return self.compares(engine, case, ask)

    def compares(self, engine: str, case: str, ask: Callable[[], list[float]]) -> bool:
        try:
            problem = difference(np.array(ask()), self.expected, TOLERANCE)
        except (ControlError, OSError, LookupError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            self.session.compared[f"{engine} {case}"] = f"within {TOLERANCE:g} of the largest magnitude as xgboost"
            return True
        self.session.skip(
            f"{engine} {case}", ControlError("differs", f"its output is not xgboost's: {problem}", "see its log")
        )
        return False

    # the cases

    def rates(self) -> list[Result]:
        """Closed loops, all in one rotation, so that any two of them can be compared."""
        turns: list[Turn] = []
        for case, kind, value in (
            (JSON, "json", value_of_json),
            (BINARY, "binary", value_of_binary),
            (COMMON, "common", value_of_common),
            (ENTITIES, "entities", value_of_common),
        ):
            if not self.takes(case):
                continue
            server = self.ours()
            if not self.agrees(OURS, case, server, kind, value):
                continue
            turns.append(Turn(OURS, self.version, case, self.closed(server, kind)))
            if case in (JSON, BINARY):
                turns += self.bounds(case, kind, server)
        turns += self.model_servers()
        turns += self.grpc_calls()
        return measure_turns(self.session, turns, self.size.seconds)

    def bounds(self, case: str, kind: str, server: Server) -> Iterator[Turn]:
        """Servers that run no model and answer the bytes that ours answered."""
        with connect("127.0.0.1", server.port) as connection:
            answer = exchange(connection, self.first_requests(kind, 1)[0]).body
        self.session.details.setdefault("answer_bytes", {})[case] = len(answer)
        for engine, asked in ((NGINX, "static"), (BARE, kind)):
            if self.takes(case, engine):
                peer = self.bound(engine, case, answer)
                if peer is not None:
                    yield Turn(engine, "", case, self.closed(peer, asked))

    def bound(self, engine: str, case: str, answer: bytes) -> Server | None:
        folder = self.folder / f"{engine.replace(' ', '-')}-{case}"
        if engine == NGINX:
            return self.server(f"{engine} {case}", lambda: servers.nginx_server(folder, answer))
        return self.server(f"{engine} {case}", lambda: servers.bare_server(self.session, folder, answer))

    def model_servers(self) -> Iterator[Turn]:
        """Other servers of the same model."""
        for engine, start, kind, value in (
            (MLSERVER, servers.mlserver_server, "json", value_of_json),
            (FASTAPI, servers.fastapi_server, "fastapi", value_of_fastapi),
        ):
            if not self.takes(JSON, engine):
                continue
            folder = self.folder / engine
            peer = self.server(engine, partial(start, self.session, folder, self.model))
            if peer is not None and self.agrees(engine, JSON, peer, kind, value):
                yield Turn(engine, "", JSON, self.closed(peer, kind))

    def grpc_calls(self) -> Iterator[Turn]:
        """The same messages to ours, to a server that only reads and answers them, and to MLServer."""
        if not self.takes(GRPC):
            return
        ours, requests = self.ours(), self.first_requests("grpc", COMPARED)
        if not self.agrees_over_grpc(OURS, ours, requests):
            return
        yield Turn(OURS, self.version, GRPC, self.called(ours))
        if self.takes(GRPC, TONIC):
            answer = grpc_answers(ours, requests[:1])[0]
            self.session.details.setdefault("answer_bytes", {})[GRPC] = len(answer)
            folder = self.folder / "bare-tonic"
            bare = self.server(TONIC, lambda: servers.bare_grpc_server(self.session, folder, answer))
            if bare is not None:
                yield Turn(TONIC, "", GRPC, self.called(bare))
        if self.takes(GRPC, MLSERVER):
            start = partial(servers.mlserver_server, self.session, self.folder / MLSERVER, self.model)
            peer = self.server(MLSERVER, start)
            if peer is not None and self.agrees_over_grpc(MLSERVER, peer, requests):
                yield Turn(MLSERVER, "", GRPC, self.called(peer))

    def called(self, server: Server) -> Callable[[float], Sample]:
        requests = self.requests("grpc")
        return lambda seconds: sample_of_generator(
            self.load.generate(server.grpc or 0, requests, CONNECTIONS, seconds, grpc=INFER_PATH)
        )

    def agrees_over_grpc(self, engine: str, server: Server, requests: list[bytes]) -> bool:
        """As `agrees`."""
        return self.compares(engine, GRPC, lambda: [value_of_grpc(one) for one in grpc_answers(server, requests)])

    def open_loop(self, peak_per_s: float | None) -> list[Result]:
        """Half of our peak, on ours and on nginx."""
        if not self.takes(OPEN) or peak_per_s is None:
            return []
        rate = peak_per_s / 2
        self.session.details["open_loop_per_s"] = round(rate)
        turns = [Turn(OURS, self.version, OPEN, self.open(self.ours(), "json", rate))]
        if self.takes(OPEN, NGINX):
            answer = bytes(self.session.details.get("answer_bytes", {}).get(JSON, 200))
            nginx = self.bound(NGINX, JSON, answer)
            if nginx is not None:
                turns.append(Turn(NGINX, "", OPEN, self.open(nginx, "static", rate)))
        return measure_turns(self.session, turns, self.size.seconds)

    def busy(self, peak_per_s: float | None) -> list[Result]:
        """A Python thread that computes without end, in the server's process or in another one."""
        if not self.takes(BUSY) or peak_per_s is None:
            return []
        rate = peak_per_s * BUSY_SHARE
        inside = self.ours("headrace, busy thread", busy=True)
        beside = self.stack.enter_context(servers.busy_process())
        for one in (inside, beside):
            one.pause()
        turns = [
            Turn(OURS, self.version, BUSY, self.open(inside, "json", rate), inside.resumed),
            Turn(BUSY_PROCESS, self.version, BUSY, self.open(self.ours(), "json", rate), beside.resumed),
        ]
        results = measure_turns(self.session, turns, self.size.seconds)
        self.session.details["busy_per_s"] = round(rate)
        return results

    def metrics(self) -> list[Result]:
        """Scraped once a second, and not scraped. Counting itself is always on."""
        if not self.takes(METRICS):
            return []
        server = self.ours()
        block = self.closed(server, "json")
        turns = [
            Turn(OURS, self.version, METRICS, block, lambda: scraped(server.metrics)),
            Turn(NOT_SCRAPED, self.version, METRICS, block),
        ]
        return measure_turns(self.session, turns, self.size.seconds)

    def fixed_cost(self) -> list[Result]:
        """A model that a call costs 1 ms, asked by 64 callers and by one, whose calls nothing can batch."""
        if not self.takes(FIXED_COST):
            return []
        many, one = (self.closed(self.ours(), "fixed-cost", count) for count in (CONNECTIONS, 1))
        turns = [Turn(OURS, self.version, FIXED_COST, many), Turn(ONE_CALLER, self.version, FIXED_COST, one)]
        return measure_turns(self.session, turns, self.size.seconds)

    def overload(self) -> list[Bar]:
        """Ten times what a model of 5 ms a call can do: what is answered, and how fast the rest is refused."""
        if not self.takes(OVERLOAD):
            return []
        server, requests, found = self.ours(), self.requests("slow"), []
        seconds, seed = self.size.seconds * 2, self.session.settings.seed
        try:
            for repeat in range(2 if self.session.settings.quick else self.session.settings.repeats):
                peak = sample_of_generator(self.load.generate(server.port, requests, 4, seconds)).per_s
                report = self.load.generate(
                    server.port,
                    requests,
                    OVERLOAD_CONNECTIONS,
                    seconds,
                    rate=peak * OVERLOAD_FACTOR,
                    seed=seed + repeat,
                )
                found.append({"peak_per_s": peak, **figures_of_overload(report, peak)})
        except ControlError as error:
            self.session.skip(OVERLOAD, error)
        self.session.details["overload"] = found
        return overload_bars(found)

    def memory(self) -> list[Bar]:
        """Resident memory of a server with one small model and no table, after some requests."""
        if not self.takes(MEMORY):
            return []
        with servers.headrace_server(self.folder / "small", self.folder / "small.log") as server:
            with connect("127.0.0.1", server.port) as connection:
                for request in self.first_requests("json", COMPARED):
                    exchange(connection, request)
            resident_mib = server.resident_mib()
        self.session.details["resident_mib"] = round(resident_mib, 1)
        return [Bar("serve_resident_mb", resident_mib * 1.048576, 60.0, "<")]

    def start(self) -> list[Result]:
        """From the start of the process, Python included, to the first answer."""
        if not self.takes(START):
            return []
        request, took_us = self.first_requests("json", 1)[0], []
        for _ in range(self.size.starts + 1):
            began = time.perf_counter()
            with (
                servers.headrace_server(self.folder / "small", self.folder / "start.log") as server,
                connect("127.0.0.1", server.port) as connection,
            ):
                exchange(connection, request)
                took_us.append((time.perf_counter() - began) * 1e6)
        warm_us = took_us[1:]
        return [Result(OURS, self.version, START, 1, median(warm_us), max(warm_us), 1e6 / median(warm_us))]


def ours_version() -> str:
    import headrace

    return str(headrace.__version__)


def peak_of(results: list[Result]) -> float | None:
    """Our rate of JSON requests on 64 connections."""
    found = Measured(results).find(OURS, JSON, 1)
    return None if found is None else found.rows_per_s


def open_loop_bar(session: Session, results: list[Result]) -> list[Bar]:
    """Our p99 over 1.5 ms, or over twice that of nginx at the same rate if that is larger."""
    if not session.settings.takes_point(OPEN, 1):
        return []
    measured = Measured(results)
    ours, nginx = (measured.find(engine, OPEN, 1) for engine in (OURS, NGINX))
    allowed_us = max(OPEN_P99_US, 2 * nginx.p99_us if nginx else 0.0)
    return [Bar("serve_open_loop_p99_over_allowed", ours.p99_us / allowed_us if ours else None, 1.0, "<=")]


def start_bar(session: Session, results: list[Result]) -> list[Bar]:
    if not session.settings.takes_point(START, 1):
        return []
    return [Bar("serve_start_s", results[0].median_us / 1e6 if results else None, 0.5, "<")]


def figures_of_overload(report: dict[str, Any], peak_per_s: float) -> dict[str, float | None]:
    """Goodput over peak, accepted p99 over the service time, and the slowest refusal, of one report."""
    accepted, refused = report["by_status"].get("200"), report["by_status"].get("503")
    return {
        "goodput_over_peak": accepted["per_s"] / peak_per_s if accepted else 0.0,
        "accepted_p99_over_service": accepted["p99_us"] / SERVICE_US if accepted else None,
        "refused_max_ms": refused["max_us"] / 1000 if refused else None,
        "refused_p99_ms": refused["p99_us"] / 1000 if refused else None,
        "unanswered": report["unanswered"],
    }


def overload_bars(found: list[dict[str, Any]]) -> list[Bar]:
    """Medians over the repeats."""

    def of(name: str) -> float | None:
        values = [one[name] for one in found if one[name] is not None]
        return median(values) if values else None

    return [
        Bar("serve_overload_goodput_over_peak", of("goodput_over_peak"), 0.9, ">="),
        Bar("serve_overload_accepted_p99_over_service", of("accepted_p99_over_service"), 4.0, "<="),
        Bar("serve_overload_slowest_refusal_ms", of("refused_max_ms"), 2.0, "<="),
    ]


@contextmanager
def scraped(address: str | None) -> Iterator[None]:
    """Reads a page of metrics once a second during the block."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(1.0):
            with urllib.request.urlopen(f"http://{address}/metrics") as page:
                page.read()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def grpc_answers(server: Server, requests: list[bytes]) -> list[bytes]:
    """The messages that a server answers to messages, all as bytes.

    Raises:
        ControlError: `missing_program` without grpcio; `unavailable` for a call that fails.
    """
    try:
        import grpc
    except ImportError:
        raise ControlError("missing_program", "grpcio is not installed", "pip install 'headrace[client]'") from None
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        call = channel.unary_unary(INFER_PATH)
        try:
            return [call(request, timeout=JOB_TIMEOUT_S, wait_for_ready=True) for request in requests]
        except grpc.RpcError as error:
            raise ControlError("unavailable", f"a call failed: {error}", "see the server's log") from None


def value_of_grpc(answer: bytes) -> float:
    """The first value of the first output of an `inference.ModelInferResponse`, in the form that the server chose."""
    from headrace.client.messages import message

    told = message("inference.ModelInferResponse").FromString(answer)
    output, wide = told.outputs[0], told.outputs[0].datatype == "FP64"
    if told.raw_output_contents:
        return float(np.frombuffer(told.raw_output_contents[0], "<f8" if wide else "<f4")[0])
    return float((output.contents.fp64_contents if wide else output.contents.fp32_contents)[0])


def value_of_json(body: bytes) -> float:
    return float(json.loads(body)["outputs"][0]["data"][0])


def value_of_binary(body: bytes) -> float:
    """The first output, a float64 behind the JSON."""
    end = body.index(b"]}") + 2
    return float(np.frombuffer(body[end : end + 8], "<f8")[0])


def value_of_common(body: bytes) -> float:
    return float(json.loads(body)["predictions"][0]["value"])


def value_of_fastapi(body: bytes) -> float:
    return float(json.loads(body)["value"])
