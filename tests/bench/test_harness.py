"""The harness on a small store and a small model, in worker processes of this interpreter.

Outputs are compared, engines that differ or fail are left out and named, and every call is asked something else.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from headrace_control.bench import Report, Session, Settings
from headrace_control.bench.areas import expr, lookup, pit, predict, shap, trees, windows
from headrace_control.bench.measure import difference
from headrace_control.bench.workers import Worker, WorkerError

COMPARE = Path(__file__).resolve().parents[2] / "bench" / "compare"
SMALL = lookup.Size(keys=2_000, views=2, fields=3, rows=(1, 10))
SMALL_MODEL = trees.Model(
    "xgboost-100x6",
    "xgboost",
    3,
    {"objective": "reg:squarederror", "max_depth": 3, "nthread": 1},
    rows=500,
    features=50,
)


def small_settings(**changes: Any) -> Settings:
    chosen = {"block_ms": 1, "repeats": 2, "pin": False, "calibrate": False, "python": Path(sys.executable)}
    return Settings(**{**chosen, **changes})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run_lookup(**changes: Any) -> Report:
    with Session(small_settings(**changes), note=lambda _: None) as session:
        return lookup.run(session, SMALL)


def test_lookup_measures_the_engine_beside_its_bound_and_a_peer() -> None:
    report = run_lookup(peers=("dict",))
    assert {(one.engine, one.rows) for one in report.results} == {
        (engine, rows) for engine in ("headrace", "numpy_take", "numpy_take_new", "dict") for rows in SMALL.rows
    }
    assert all(0 < one.median_us <= one.p99_us for one in report.results)
    assert report.machine["outputs_compared"][f"headrace {lookup.CASE}"] == "the same bits as numpy_take"
    # 100 keys and LMDB were not asked for, and 1 key was.
    assert {bar.name: bar.value is None for bar in report.bars if "1_key" in bar.name} == {"lookup_1_key_us": False}
    assert not any("lmdb" in bar.name for bar in report.bars)


def test_only_the_named_point_is_measured() -> None:
    report = run_lookup(peers=(), only=(f"{lookup.CASE}/10",))
    assert {one.rows for one in report.results} == {10}
    assert report.bars == []


def test_a_peer_that_is_not_installed_is_named_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    report = run_lookup(peers=("redis",))
    assert "apt-get install redis-server" in report.machine["not_measured"]["redis"]
    assert "headrace" in {one.engine for one in report.results}


def test_what_the_time_limit_cuts_off_is_named() -> None:
    report = run_lookup(peers=(), time_limit_s=0.0)
    assert report.results == []
    assert "time limit" in report.machine["not_measured"][f"{lookup.CASE}/1"]
    assert not any(bar.holds for bar in report.bars)


@pytest.mark.needs_server("redis-server")
def test_redis_is_started_and_ended_by_the_harness(tmp_path: Path) -> None:
    import socket

    from headrace_control.bench.redis_server import redis_server

    with redis_server(tmp_path) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_trees_trains_once_and_compares_bits(cache: Path) -> None:
    def run() -> Report:
        with Session(small_settings(peers=("xgboost",)), note=notes.append) as session:
            return trees.run(session, (SMALL_MODEL,))

    notes: list[str] = []
    report = run()
    assert {one.engine for one in report.results} == {"headrace", "xgboost"}
    assert report.machine["outputs_compared"]["headrace xgboost-100x6"] == "the same bits as xgboost"
    assert "train xgboost-100x6" in notes
    notes.clear()
    run()
    assert "train xgboost-100x6" not in notes


def test_explanations_agree_with_those_of_the_library() -> None:
    # Without shap, which takes seconds to import.
    with Session(small_settings(peers=()), note=lambda text: None) as session:
        report = shap.run(session, (SMALL_MODEL,), (16,))
    assert {(one.engine, one.rows) for one in report.results} == {(engine, 16) for engine in ("headrace", "xgboost")}
    assert "headrace xgboost-100x6" in report.machine["outputs_compared"]


def test_one_call_answers_as_two() -> None:
    with Session(small_settings(), note=lambda text: None) as session:
        report = predict.run(session, (SMALL_MODEL,))
    assert {one.engine for one in report.results} == {"headrace", "headrace, two calls"}
    assert report.machine["outputs_compared"]["headrace xgboost-100x6"] == "the same bits as headrace, two calls"


def test_expressions_of_both_engines_agree() -> None:
    with Session(small_settings(), note=lambda text: None) as session:
        report = expr.run(session, rows=(1, 100), pool_rows=2_003)
    assert {(one.engine, one.rows) for one in report.results} == {
        (engine, n) for engine in expr.ENGINES for n in (1, 100)
    }
    assert "polars 12-features" in report.machine["outputs_compared"]


def test_windows_of_both_engines_agree() -> None:
    with Session(small_settings(), note=lambda text: None) as session:
        report = windows.run(session, windows.Size(users=20, events=2_000, questions=200))
    assert {(one.engine, one.case, one.rows) for one in report.results} == {
        ("headrace", windows.CASE, 200),
        ("duckdb", windows.CASE, 200),
        ("headrace", windows.INGEST, windows.INGEST_EVENTS),
    }
    assert "duckdb 6-aggregates" in report.machine["outputs_compared"]


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("stores", Path(sys.executable), COMPARE, {}) as started:
        yield started


def test_a_worker_names_what_went_wrong_and_lives_on(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="KeyError: 'no_such_engine'"):
        worker.ask(
            "load", 30, engine="no_such_engine", key="k", data={"area": "trees", "features": 1, "seed": 1}, options={}
        )
    assert worker.ask("hello", 30)["numpy"] == np.__version__


def test_a_worker_that_ends_is_noticed(worker: Worker) -> None:
    worker.process.kill()
    with pytest.raises(WorkerError, match="ended in 'hello'"):
        worker.ask("hello", 30)


def test_a_worker_that_does_not_answer_is_ended(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="no reply"):
        worker.ask("load", 0.1, engine="dict", key="k", data=big_data(), options={})
    assert worker.process.wait(30) != 0


def big_data() -> dict[str, Any]:
    return {"area": "lookup", "keys": 200_000, "views": 5, "fields": 50, "seed": 1}


@pytest.mark.parametrize(
    ("found", "allowed", "problem"),
    [
        (np.array([1.0, 2.0], np.float32), 0.0, None),
        (np.array([1.0, 2.0], np.float64), 0.0, None),
        (np.array([[1.0], [2.0]], np.float32), 0.0, None),
        (np.array([1.0, np.nextafter(np.float32(2), np.float32(3))], np.float32), 0.0, "1 of 2 values"),
        (np.array([1.0, 2.00001], np.float32), 1e-4, None),
        (np.array([1.0, 2.1], np.float32), 1e-4, "largest difference"),
        (np.array([1.0, 2.0, 3.0], np.float32), 1e-4, "shape"),
        (np.array([1.0, np.nan], np.float32), 1e-4, "largest difference"),
    ],
)
def test_difference(found: Any, allowed: float, problem: str | None) -> None:
    said = difference(found, np.array([1.0, 2.0], np.float32), allowed)
    assert (said is None) if problem is None else (said is not None and problem in said)


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(COMPARE / "host"))  # as a worker has it
    spec = importlib.util.spec_from_file_location("bench_inputs", COMPARE / "host" / "inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_inputs_differ_from_call_to_call(inputs: ModuleType, rows: int) -> None:
    pool = np.arange(1009)
    asked = inputs.windows(pool, rows, 0, 300)
    assert all(len(one) == rows for one in asked)
    assert all(not np.array_equal(one, after) for one, after in pairwise(asked))
    again = inputs.windows(pool, rows, 100, 5)
    assert all(np.array_equal(one, other) for one, other in zip(again, asked[100:105], strict=True))


def test_lookup_inputs_are_made_from_the_seed(inputs: ModuleType) -> None:
    one, same, other = (inputs.LookupInputs(100, 2, 3, seed) for seed in (5, 5, 6))
    assert len(np.unique(one.keys)) == 100
    assert np.array_equal(one.keys, same.keys)
    assert np.array_equal(one.table, same.table)
    assert not np.array_equal(one.keys, other.keys)
    assert np.array_equal(one.kinds["keys"], one.keys[one.kinds["row_numbers"]])


@pytest.mark.slow
def test_joins_agree_and_those_of_files_show_their_memory(cache: Path) -> None:
    small = pit.Size(keys=50, rows=200, events=3_000, factor=2)
    with Session(small_settings(peers=("polars",)), note=lambda _: None) as session:
        report = pit.run(session, small)
    assert report.machine["outputs_compared"][f"polars {pit.MEMORY}"] == "the same bits as headrace"
    assert {(one.case, one.rows) for one in report.results} == {
        (pit.MEMORY, 200),
        (pit.FILES, 3_000),
        (pit.FILES, 6_000),
    }
    bars = {bar.name: bar for bar in report.bars}
    assert bars["pit_files_2x_events_over_1x_time"].value is not None
    assert bars["pit_files_peak_resident_mib"].holds
    assert len(list((cache / "events").glob("*/about.json"))) == 2, "the files are kept for the next run"
