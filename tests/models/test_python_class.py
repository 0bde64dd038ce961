"""Python classes in worker processes: their answers, and everything that a class can do to its worker."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace import Engine, HeadraceError, Model
from headrace.config import ModelsSection
from headrace.export import ExportedModel, export_python_class
from headrace.runtimes import find_runtimes

FEATURES = {"a": "float64", "b": "int64", "c": "bool"}
ROWS: NDArray[np.float64] = np.array([[0.5, 1, 0], [1.5, 2, 1], [2.5, -3, 1]])

# What a batch asks for is in its column `b`.
CLASS = """
import ctypes, os, sys, time
import numpy as np

CRASH, FAULT, RAISE, HANG, SHAPE, LEAK, PRINT, EXIT, PID, MUTE = range(101, 111)
kept = []

class Mute(Exception):
    def __str__(self):
        raise OSError("no text")

class Model:
    def __init__(self, folder):
        self.weights = np.loadtxt(folder / "weights.txt")

    def predict(self, batch):
        a, b, c = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("a", "b", "c"))
        if CRASH in b:
            os._exit(3)
        if FAULT in b:
            ctypes.string_at(0)
        if RAISE in b:
            raise ValueError("a" * 100_000)
        if HANG in b:
            time.sleep(1_000)
        if SHAPE in b:
            return np.zeros((len(b) + 1, 2))
        if LEAK in b:
            kept.append(np.ones(40_000_000 // 8))
        if PRINT in b:
            for number in range(20_000):
                print(f"line {number}", "x" * 200)
            print("y" * 3_000_000)
        if EXIT in b:
            sys.exit("enough")
        if MUTE in b:
            raise Mute
        if PID in b:
            return np.full(len(b), float(os.getpid()))
        return np.nan_to_num(a.astype(float)) * self.weights[0] + b.astype(float) * self.weights[1] + c.astype(float)
"""
CRASH, FAULT, RAISE, HANG, SHAPE, LEAK, PRINT, EXIT, PID, MUTE = range(101, 111)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "weights.txt").write_text("2.0 10.0")
    (folder / "churn.py").write_text(CLASS)
    return folder / "churn.py"


def expected(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return (rows[:, 0] * 2 + rows[:, 1] * 10 + rows[:, 2]).reshape(-1, 1)


def asking(what: float) -> NDArray[np.float64]:
    return np.array([[0.5, what, 1.0]])


def create(exported: ExportedModel, models: Path, settings: ModelsSection | None = None, name: str = "churn") -> Model:
    draft = {
        "task": exported.task,
        "labels": exported.labels,
        "format": exported.format,
        "settings": exported.settings,
        "golden": exported.golden,
        "signature": {"features": [{"name": name, "dtype": FEATURES[name]} for name in exported.features or ()]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    runtimes = find_runtimes(settings)
    return Model.create(models, name, json.dumps(draft), exported.file.read_bytes(), exported.files, runtimes)


@pytest.fixture(scope="module")
def exported(source: Path) -> ExportedModel:
    return export_python_class(source, ROWS, FEATURES, task="regression", files=[source.with_name("weights.txt")])


@pytest.fixture(scope="module")
def models(exported: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    create(exported, folder)
    return folder


def opened(models: Path, **settings: Any) -> Model:
    return Model.open(models / "churn" / "1", find_runtimes(ModelsSection(**settings)))


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return opened(models, workers=2, deadline_seconds=60.0)


def gone(pids: set[int], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


def worker_of(model: Model) -> int:
    return int(model.margins(asking(PID))[0, 0])


def failure(model: Model, rows: NDArray[np.float64]) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        model.margins(rows)
    return caught.value


def test_a_class_answers_batches_of_any_size(model: Model) -> None:
    random = np.random.default_rng(3)
    for rows in (1, 2, 63, 64, 65, 1000, 1):
        features = np.column_stack(
            [random.normal(size=rows), random.integers(-9, 9, rows), random.integers(0, 2, rows)]
        ).astype(np.float64)
        np.testing.assert_array_equal(model.margins(features), expected(features))
        narrow = features.astype(np.float32)
        np.testing.assert_array_equal(model.scores(narrow), expected(narrow.astype(np.float64)))
    missing = np.array([[np.nan, 3.0, 1.0], [1.0, np.nan, 0.0], [1.0, 2.0, np.nan]])
    found = model.margins(missing)
    assert found[0, 0] == 31.0 and np.isnan(found[1:]).all()


def test_a_batch_larger_than_the_shared_memory_runs_in_parts(models: Path) -> None:
    model = opened(models, batch_bytes_max=64 * 1024, deadline_seconds=60.0)
    rows = np.tile(ROWS, (5000, 1))
    np.testing.assert_array_equal(model.margins(rows), expected(rows))


@pytest.mark.parametrize(
    ("what", "part"),
    [
        (RAISE, "ValueError: aaa"),
        (SHAPE, "shape (2, 2), the batch needs (1,) or (1, 1)"),
        (EXIT, "SystemExit: enough"),
        (CRASH, "ended with status 3"),
        (FAULT, "SIGSEGV"),
        (MUTE, "Mute: (its text cannot be told: OSError)"),
    ],
)
def test_what_a_class_does_fails_its_batch_only(model: Model, what: int, part: str) -> None:
    error = failure(model, asking(what))
    assert error.code == "model_failed" and part in error.message and len(error.message) < 6_000
    np.testing.assert_array_equal(model.margins(ROWS), expected(ROWS))


def test_the_traceback_is_told(model: Model) -> None:
    assert "in predict" in failure(model, asking(RAISE)).message


def test_a_hang_ends_at_the_deadline(models: Path) -> None:
    model = opened(models, deadline_seconds=2.0)
    worker = worker_of(model)
    error = failure(model, asking(HANG))
    assert error.code == "deadline_exceeded" and "within 2 s" in error.message
    assert gone({worker})


def test_a_leak_replaces_the_worker_and_fails_nothing(models: Path) -> None:
    model = opened(models, memory_bytes_max=200 * 1024 * 1024, deadline_seconds=60.0)
    first = worker_of(model)
    rows = asking(LEAK)
    for _ in range(60):
        np.testing.assert_array_equal(model.margins(rows), expected(rows))
        if not Path(f"/proc/{first}").exists():
            break
        time.sleep(0.03)
    assert gone({first})
    assert worker_of(model) != first


def test_what_a_class_prints_is_forwarded_within_bounds(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    rows = asking(PRINT)
    np.testing.assert_array_equal(model.margins(rows), expected(rows))
    until = time.monotonic() + 20
    seen = ""
    while "lines left out" not in seen and time.monotonic() < until:
        time.sleep(0.05)
        model.margins(ROWS)
        seen += capfd.readouterr().err
        if "line 0 " in seen:
            failure(model, asking(CRASH))  # its output ends, and so does the forwarding
    assert "headrace: model churn/1: worker " in seen and "line 0 " in seen and len(seen) < 1_000_000


def test_batches_run_in_parallel_while_workers_die(models: Path) -> None:
    model = opened(models, workers=2, deadline_seconds=60.0)

    def ask(number: int) -> bool:
        rows = np.tile(ROWS, (number + 1, 1))
        if number % 8 == 3:
            return failure(model, asking(CRASH)).code == "model_failed"
        return bool((model.margins(rows) == expected(rows)).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(20)))


def test_a_worker_that_dies_while_idle_fails_nobody(models: Path) -> None:
    model = opened(models, deadline_seconds=60.0)
    worker = worker_of(model)
    os.kill(worker, signal.SIGKILL)
    assert gone({worker}), "it is reaped at the supervisor's next look"
    np.testing.assert_array_equal(model.margins(ROWS), expected(ROWS))


def test_dropping_the_model_ends_its_worker(models: Path) -> None:
    model = opened(models)
    worker = worker_of(model)
    del model
    assert gone({worker})


def write_class(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "bad.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("class Other: pass", "has no class 'Model'"),
        ("class Model:\n    def __init__(self): raise OSError('no weights')", "no weights"),
        ("class Model: pass", "'Model' object has no attribute 'predict'"),
        ("import os; os._exit(9)", "ended with 9"),
        ("class Model:\n    def predict(self, batch): return 'text'", "ValueError"),
    ],
)
def test_exporting_a_class_that_does_not_work_says_why(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError) as caught:
        export_python_class(write_class(tmp_path / "c", text), ROWS, FEATURES, task="regression")
    assert caught.value.code == "model_failed" and part in caught.value.message, caught.value


def test_an_answer_of_any_size_is_exported_while_a_grandchild_lives(tmp_path: Path) -> None:
    text = (
        "import subprocess\nsubprocess.Popen(['sleep', '10'], close_fds=False)\n"
        "class Model:\n    def predict(self, batch): return [[0.125] * 400] * batch.num_rows\n"
    )
    rows = np.zeros((100, 3))
    source = write_class(tmp_path / "c", text)
    gc.collect()  # what other tests have left would be closed meanwhile
    held = len(list(Path("/proc/self/fd").iterdir()))
    exported = export_python_class(source, rows, FEATURES, task="multi_label", settings=ModelsSection(start_seconds=30))
    margins = exported.golden["margins"]
    assert (len(margins), {len(row) for row in margins}) == (100, {400})
    assert len(list(Path("/proc/self/fd").iterdir())) <= held


def test_exporting_without_python_or_features_is_refused(source: Path) -> None:
    with pytest.raises(HeadraceError) as caught:
        export_python_class(source, ROWS, FEATURES, task="regression", settings=ModelsSection(python="/nowhere/python"))
    assert caught.value.code == "unavailable" and "/nowhere/python" in caught.value.message
    with pytest.raises(HeadraceError) as caught:
        export_python_class(source, np.zeros((3, 0)), {}, task="regression")
    assert caught.value.code == "invalid_argument" and "no feature" in caught.value.message


def test_a_class_whose_answers_have_changed_is_refused(models: Path, exported: ExportedModel, tmp_path: Path) -> None:
    folder = tmp_path / "churn" / "1"
    shutil.copytree(models / "churn" / "1", folder)
    (folder / "weights.txt").write_text("2.0 11.0")
    with pytest.raises(HeadraceError, match=r"weights.txt"):
        Model.open(folder)
    changed = json.loads(json.dumps(exported.golden))
    changed["margins"][1][0] += 1e-9
    wrong = ExportedModel(**{**vars(exported), "golden": changed})
    with pytest.raises(HeadraceError) as caught:
        create(wrong, tmp_path, name="other")
    assert caught.value.code == "golden_row_mismatch"
    near = ExportedModel(**{**vars(wrong), "settings": {**(exported.settings or {}), "tolerance": 1e-6}})
    near.golden["scores"][1][0] = changed["margins"][1][0]
    model = create(near, tmp_path, name="near")
    np.testing.assert_array_equal(model.margins(ROWS), expected(ROWS))


@pytest.mark.parametrize(
    "settings", [{"class": "Model"}, {"module": "../x", "class": "M", "outputs": 1}, {"pickle": 1}]
)
def test_settings_that_are_none_are_refused(settings: dict[str, Any], exported: ExportedModel, tmp_path: Path) -> None:
    wrong = ExportedModel(**{**vars(exported), "settings": settings})
    with pytest.raises(HeadraceError) as caught:
        create(wrong, tmp_path)
    assert caught.value.code in ("corrupt_model", "invalid_argument")


def test_a_slow_start_and_another_python(exported: ExportedModel, models: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError) as caught:
        opened(models, start_seconds=0.02)
    assert caught.value.code == "deadline_exceeded"
    with pytest.raises(HeadraceError) as caught:
        opened(models, python="/nowhere/python")
    assert caught.value.code == "unavailable" and "/nowhere/python" in caught.value.message
    linked = tmp_path / "python"
    linked.symlink_to(sys.executable)
    wrapper = tmp_path / "wrapped"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    model = opened(models, python=str(wrapper))
    np.testing.assert_array_equal(model.margins(ROWS), expected(ROWS))


def test_a_worker_gets_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("MODEL_REGION", "7")
    text = (
        "import os\nclass Model:\n    def predict(self, batch):\n"
        "        assert 'SECRET_TOKEN' not in os.environ\n"
        "        return [float(os.environ['MODEL_REGION'])] * batch.num_rows\n"
    )
    source = write_class(tmp_path / "c", text)
    settings = ModelsSection(environment="MODEL_REGION, OTHER")
    exported = export_python_class(source, ROWS, FEATURES, task="regression", settings=settings)
    assert create(exported, tmp_path / "models", settings).margins(ROWS)[0, 0] == 7.0
    with pytest.raises(HeadraceError, match="MODEL_REGION"):
        export_python_class(source, ROWS, FEATURES, task="regression")


def test_while_no_worker_can_be_started_batches_are_refused_at_once(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    text = (
        f"import os\nif os.path.exists({str(flag)!r}): raise OSError('the disk is away')\n"
        "class Model:\n    def predict(self, batch):\n"
        "        if batch.column('b')[0].as_py() == 101: os._exit(1)\n"
        "        return [1.0] * batch.num_rows\n"
    )
    exported = export_python_class(write_class(tmp_path / "c", text), ROWS, FEATURES, task="regression")
    model = create(exported, tmp_path / "models")
    flag.touch()
    assert failure(model, asking(CRASH)).code == "model_failed"
    error = failure(model, ROWS)
    assert error.code == "unavailable" and "the disk is away" in error.message
    flag.unlink()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(HeadraceError):
            assert model.margins(ROWS)[0, 0] == 1.0
            break
        time.sleep(0.05)
    else:
        pytest.fail("no worker came back")


@pytest.fixture
def project(models: Path, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "headrace.toml").write_text(
        "[models]\nworkers = 2\ndeadline_seconds = 60\n[server]\nhttp_port = 0\nmetrics_port = 0\n"
    )
    (tmp_path / ".headrace").mkdir()
    (tmp_path / ".headrace" / "models").symlink_to(models)
    yield tmp_path


def test_the_embedded_engine_runs_it(project: Path) -> None:
    with Engine(project) as engine:
        features: dict[str, list[Any]] = {"a": [0.5, 1.5], "b": [1, 2], "c": [False, True]}
        found = engine.predict("churn", features=features)["predictions"]
        assert [answer["value"] for answer in found] == [11.0, 24.0]
        with pytest.raises(HeadraceError) as caught:
            engine.predict("churn", features={"a": [0.5], "b": [RAISE], "c": [False]})
        assert caught.value.code == "model_failed"
        found = engine.predict("churn", features={"a": [0.5], "b": [PID], "c": [False]})["predictions"]
    assert gone({int(found[0]["value"])})


def test_a_server_that_is_killed_leaves_no_worker(project: Path) -> None:
    code = f"""
import sys
from headrace import Engine
from headrace.serving import serve
serve(Engine({str(project)!r}), on_ready=lambda at: print(at["http"], flush=True))
"""
    for end in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                address = server.stdout.readline().strip()
                workers = workers_of(server.pid)
                assert workers, "the server runs workers"
                status, body = post(address, {"features": {"a": [0.5], "b": [1], "c": [False]}})
                assert status == 200 and json.loads(body)["predictions"][0]["value"] == 11.0
                status, body = post(address, {"features": {"a": [0.5], "b": [CRASH], "c": [False]}})
                assert status == 500 and json.loads(body)["code"] == "model_failed"
                server.send_signal(end)
                server.wait(30)
            finally:
                server.kill()
        assert gone(workers)


def workers_of(parent: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{parent}/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def post(address: str, body: dict[str, Any]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", "/v1/deployments/churn/predict", json.dumps(body))
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found
