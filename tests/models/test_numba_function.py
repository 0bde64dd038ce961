"""Functions of rows as models: native code beside the same function in Python, and what hostile files come to."""

from __future__ import annotations

import builtins
import http.client
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Engine, HeadraceError, Model, python_function, scalar_function
from headrace.export import ExportedModel, export_numba_function
from headrace.runtimes import find_runtimes
from headrace_control.named_models import open_model

KEPT = Path(__file__).parents[1] / "attacks" / "kept" / "model_numba_function"
RATE = 0.25
LIMIT = 40


@scalar_function
def cost(amount: float, count: int, member: bool, age: float | None) -> float:
    if amount < -1000.0:
        raise ValueError("no such amount")
    if member and count > LIMIT:
        return None  # type: ignore[return-value]
    per_item = amount / count
    if age is None:
        return per_item * RATE
    return per_item + math.log1p(age) - math.sin(amount)


@scalar_function
def chance(amount: float, member: bool) -> float:
    return 1.0 / (1.0 + math.exp(-amount)) if member else 0.5


@scalar_function
def inverse(count: int) -> float:
    return math.inf if count == 0 else 1.0 / count


@scalar_function
def tens(count: int) -> int:
    return count // 10


@scalar_function
def heavy(x: float) -> float:
    total = 0.0
    for i in range(65536):
        total += math.sin(total) * math.cos(x + i) + math.exp(-total * total)
    return total


@python_function(returns="float64")
def any_python(counts: list[float]) -> list[float]:
    return counts


FEATURES = ("amount", "count", "member", "age")
GOLDEN = [[10.0, 4, 0, 3.0], [7.5, 1, 1, math.nan], [1.0, 0, 1, 2.0], [math.nan, 1, 1, 2.0], [1.0, 0.5, 1, 2.0]]


def create(exported: ExportedModel, models: Path, name: str = "cost", features: Sequence[str] | None = None) -> Model:
    draft = {
        "task": exported.task,
        "labels": exported.labels,
        "format": exported.format,
        "settings": exported.settings,
        "golden": exported.golden,
        "signature": {"features": [{"name": it, "dtype": "float64"} for it in features or exported.features or ()]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return Model.create(models, name, json.dumps(draft), exported.file.read_bytes())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "headrace.toml").write_text("[server]\nhttp_port = 0\nmetrics_port = 0\n")
    models = folder / ".headrace" / "models"
    create(export_numba_function(cost, folder / "cost.json", GOLDEN, task="regression"), models)
    labels = ["stays", "goes"]
    exported = export_numba_function(
        chance, folder / "c.json", [[0.5, 1], [2.0, 0]], task="classification", labels=labels
    )
    create(exported, models, "chance")
    return folder


@pytest.fixture(scope="module")
def model(project: Path) -> Model:
    return Model.open(project / ".headrace" / "models" / "cost" / "1")


def in_python(function: Callable[..., Any], kinds: Sequence[Any], row: Sequence[float]) -> float:
    """The function's value for a row by Python alone; NaN where it has none."""
    arguments: list[Any] = []
    for (kind, is_optional), value in zip(kinds, row, strict=True):
        if math.isnan(value):
            if not is_optional:
                return math.nan
            arguments.append(None)
            continue
        if kind is not float and (abs(value) > 2**53 or value != int(value)):
            return math.nan
        if kind is bool and value not in (0.0, 1.0):
            return math.nan
        arguments.append(kind(value))
    try:
        value = function(*arguments)
    except (ArithmeticError, ValueError):
        return math.nan
    return math.nan if value is None else float(value)


KINDS = ((float, False), (int, False), (bool, False), (float, True))
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-2000, 2000),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, 2.0**53, 2.0**53 + 2, -(2.0**63), 1e300, math.nan]),
    st.integers(-50, 50).map(float),
)
ROWS = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.sampled_from([0.0, 1.0, 2.0, math.nan]), NUMBERS), min_size=1, max_size=30
)


@given(rows=ROWS)
def test_a_row_means_what_python_means(model: Model, rows: list[tuple[float, ...]]) -> None:
    expected = [in_python(cost.function, KINDS, row) for row in rows]
    found = model.margins(np.array(rows))
    np.testing.assert_array_equal(found[:, 0], expected)
    for at, row in enumerate(rows[:3]):
        np.testing.assert_array_equal(model.scores(np.array([row]))[0, 0], expected[at])


def test_large_batches_threads_and_float32_agree_with_single_rows(model: Model) -> None:
    random = np.random.default_rng(5)
    rows = np.column_stack(
        [random.normal(size=3000), random.integers(-2, 60, 3000), random.integers(0, 2, 3000), random.normal(size=3000)]
    )
    rows[random.random(rows.shape) < 0.1] = np.nan
    narrow = rows.astype(np.float32)
    for features in (rows, narrow):
        expected = np.array([in_python(cost.function, KINDS, row) for row in features.tolist()])
        for threads in (1, 2, 8):
            np.testing.assert_array_equal(model.margins(features, threads=threads)[:, 0], expected)


def test_whole_results_and_logits(tmp_path: Path) -> None:
    exported = export_numba_function(tens, tmp_path / "t.json", [[1.0], [25.0], [-1.0]], task="ranking")
    found = create(exported, tmp_path / "models").margins(np.array([[19.0], [-19.0], [2.5], [np.nan]]))
    np.testing.assert_array_equal(found[:, 0], [1.0, -2.0, np.nan, np.nan])
    exported = export_numba_function(
        cost, tmp_path / "l.json", GOLDEN, task="classification", labels=["no", "yes"], logits=True
    )
    model = create(exported, tmp_path / "models", "logit")
    margins = model.margins(np.array(GOLDEN))
    np.testing.assert_allclose(model.scores(np.array(GOLDEN)), 1 / (1 + np.exp(-margins)), rtol=1e-15)


def asked(rows: Sequence[Sequence[float]]) -> dict[str, list[Any]]:
    columns = {name: [row[at] for row in rows] for at, name in enumerate(FEATURES)}
    return {name: [None if value != value else value for value in values] for name, values in columns.items()}


def check_predictions(found: list[dict[str, Any]], rows: Sequence[Sequence[float]]) -> None:
    for answer, row in zip(found, rows, strict=True):
        expected = in_python(cost.function, KINDS, row)
        if math.isnan(expected):
            assert answer.get("value") is None and answer["status"]
        else:
            assert answer["value"] == expected and "status" not in answer


def test_an_engine_answers_and_a_row_without_a_value_fails_alone(project: Path) -> None:
    with Engine(project) as engine:
        assert {it["platform"] for it in engine.models()} == {"numba_function"}
        check_predictions(engine.predict("cost", features=asked(GOLDEN))["predictions"], GOLDEN)
        (answer,) = engine.predict("chance", features={"amount": [1.5], "member": [1.0]})["predictions"]
        assert answer["label"] == "goes"
        assert answer["scores"]["goes"] == chance.function(1.5, True)


def test_a_server_answers_over_http(project: Path) -> None:
    code = f"""
from headrace import Engine
from headrace.serving import serve
serve(Engine({str(project)!r}), on_ready=lambda at: print(at["http"], flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            connection = http.client.HTTPConnection(server.stdout.readline().strip(), timeout=30)
            connection.request("POST", "/v1/deployments/cost/predict", json.dumps({"features": asked(GOLDEN)}))
            check_predictions(json.loads(connection.getresponse().read())["predictions"], GOLDEN)
            connection.close()
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
        finally:
            server.kill()


def test_the_command_line_knows_its_file(tmp_path: Path) -> None:
    exported = export_numba_function(tens, tmp_path / "tens.function.json", [[1.0]], task="regression")
    named = open_model(tmp_path, str(exported.file))
    assert named.model.margins(np.array([[25.0]]))[0, 0] == 2.0


def test_threads_run_it_at_once(model: Model) -> None:
    rows = np.tile(np.array([[10.0, 4, 0, 3.0]]), (20_000, 1))
    expected = model.margins(rows, threads=1)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda threads: model.margins(rows, threads=threads), [1, 2] * 4):
            np.testing.assert_array_equal(found, expected)


def test_other_threads_of_python_run_while_it_loops(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("")
    exported = export_numba_function(heavy, tmp_path / "heavy.json", [[1.0]], task="regression")
    create(exported, tmp_path / ".headrace" / "models", "heavy")
    rows = 15  # few enough that a native model is answered without letting go of the interpreter
    with Engine(tmp_path) as engine, ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.predict, "heavy", features={"x": [1.0] * rows})
        ticks = 0
        while not running.done():
            time.sleep(0.001)
            ticks += 1
        assert len(running.result()["predictions"]) == rows
    assert ticks >= 5


def test_columns_are_found_by_the_names_of_the_parameters(tmp_path: Path) -> None:
    wide = [[3.0, 9.9, 1.0, 0, 4], [1.0, 9.9, 2.0, 1, 2]]
    exported = export_numba_function(
        cost, tmp_path / "m.json", wide, ["age", "other", "amount", "member", "count"], task="regression"
    )
    assert exported.features == FEATURES
    assert exported.golden["features"][0] == [1.0, 4.0, 0.0, 3.0]
    with pytest.raises(
        HeadraceError, match="feature 0 of the signature is 'count', the function's parameter"
    ) as caught:
        create(exported, tmp_path / "models", features=["count", "amount", "member", "age"])
    assert caught.value.code == "corrupt_model"


def test_exporting_says_what_is_wrong(tmp_path: Path) -> None:
    cases: list[tuple[Any, Any, Sequence[str] | None, str]] = [
        (any_python, [[1.0]], None, "is not compiled"),
        (tens, [[1.0]], ["number"], "has the parameter 'count', which no feature is"),
        (tens, [[1.0, 2.0]], None, "shape"),
        (len, [[1.0]], None, "is not a function"),
        (inverse, [[1.0], [0.0]], None, "infinite for golden row 1"),
    ]
    for function, golden, features, part in cases:
        with pytest.raises(HeadraceError, match=part):
            export_numba_function(function, tmp_path / "m.json", golden, features, task="regression")
    with pytest.raises(HeadraceError, match="logits=True"):
        export_numba_function(cost, tmp_path / "m.json", GOLDEN, task="classification")
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_golden_rows_of_another_function_are_refused(tmp_path: Path) -> None:
    exported = export_numba_function(cost, tmp_path / "m.json", GOLDEN, task="regression")
    exported.golden["margins"][1] = exported.golden["scores"][1] = [1.0]
    with pytest.raises(HeadraceError, match="golden row 1"):
        create(exported, tmp_path / "models")
    exported.golden["margins"][1] = exported.golden["scores"][1] = [None]
    with pytest.raises(HeadraceError, match="golden row 1"):
        create(exported, tmp_path / "models")


def test_without_numba_the_extra_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (KEPT / "plain.json").read_bytes().replace(b"0.25", b"0.125")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"No module named '{name}'")
        return real(name, *rest)

    for name in [it for it in sys.modules if it == "headrace.numba_backend"]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr("headrace.numba_backend")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(HeadraceError, match=r"pip install 'headrace\[numba\]'") as caught:
        Model.from_bytes("numba-function", data)
    assert caught.value.code == "unavailable"


@pytest.mark.parametrize("file", sorted(KEPT.iterdir()), ids=lambda path: path.stem)
def test_what_a_hostile_file_may_say(file: Path) -> None:
    if file.stem == "plain":
        assert Model.from_bytes("numba-function", file.read_bytes()).features_count == 4
        return
    if file.stem == "power":  # a float, and too large a one
        assert np.isnan(Model.from_bytes("numba-function", file.read_bytes()).margins(np.array([[1.0]]))).all()
        return
    with pytest.raises(HeadraceError) as caught:
        Model.from_bytes("numba-function", file.read_bytes())
    code = {"newer": "newer_format", "no_parameters": "unsupported_model"}.get(file.stem, "corrupt_model")
    assert caught.value.code == code, caught.value
    assert len(caught.value.message) < 20_000


def test_settings_and_runtimes(tmp_path: Path) -> None:
    data = (KEPT / "plain.json").read_bytes()
    with pytest.raises(HeadraceError, match="settings"):
        Model.from_bytes("numba-function", data, settings='{"pickle": 1}')
    broken = {**find_runtimes(), "compile_function": lambda _: (0, None)}
    with pytest.raises(HeadraceError, match="address"):
        Model.from_bytes("numba-function", data, runtimes=broken)
