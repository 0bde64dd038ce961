"""ONNX models: the engine's answers beside those of the Python package `onnxruntime`, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from headrace import Engine, HeadraceError, Model
from headrace.export import ExportedModel, export_onnx
from headrace.runtimes import find_runtimes

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
RANDOM = np.random.default_rng(7)
ROWS: NDArray[np.float64] = RANDOM.normal(size=(300, 6)).astype(np.float32).astype(np.float64)
CLASSES = np.digitize(ROWS[:, 0] + ROWS[:, 1], [-0.7, 0.7])


def graph_model(
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    initializers: dict[str, Any] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (initializers or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def weighted(element: int = FLOAT, rows: Any = "N", columns: int = 1) -> bytes:
    """A matrix product with `columns` outputs."""
    dtype = np.float32 if element == FLOAT else np.float64
    weights = np.random.default_rng(columns).normal(size=(6, columns)).astype(dtype)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return graph_model(nodes, [("x", element, [rows, 6])], [("y", element, [rows, columns])], {"w": weights})


def answers(data: bytes, output: str, feed: dict[str, Any]) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run([output], feed)
    return np.asarray(found, dtype=np.float64).reshape(len(found), -1)


def draft_of(exported: ExportedModel, features: int) -> str:
    names = exported.features or [f"f{index}" for index in range(features)]
    return json.dumps(
        {
            "task": exported.task,
            "labels": exported.labels,
            "format": exported.format,
            "settings": exported.settings,
            "golden": exported.golden,
            "signature": {"features": [{"name": name, "dtype": "float64"} for name in names]},
            "trainer": {"library": exported.library, "version": exported.library_version},
            "created_at": "2026-01-01T00:00:00Z",
        }
    )


def register(exported: ExportedModel, models: Path, name: str = "m") -> Model:
    return Model.create(models, name, draft_of(exported, 6), exported.file.read_bytes())


@pytest.fixture(scope="module")
def classifiers() -> dict[str, bytes]:
    options = {"zipmap": False}
    sample = ROWS[:1].astype(np.float32)
    fitted = {
        "mlp": MLPClassifier((16,), max_iter=30, random_state=0),
        "forest": RandomForestClassifier(10, max_depth=4, random_state=0),
        "logistic": LogisticRegression(),
    }
    return {
        name: to_onnx(
            model.fit(ROWS.astype(np.float32), CLASSES), sample, options={id(model): options}, target_opset=17
        ).SerializeToString()
        for name, model in fitted.items()
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["mlp", "forest", "logistic"])
def test_classifiers_of_scikit_learn_answer_as_in_python(
    kind: str, classifiers: dict[str, bytes], tmp_path: Path
) -> None:
    exported = export_onnx(
        classifiers[kind], tmp_path / "m.onnx", ROWS[:40], task="classification", labels=["low", "mid", "high"]
    )
    model = register(exported, tmp_path / "models")
    expected = answers(classifiers[kind], "probabilities", {"X": ROWS.astype(np.float32)})
    for features in (ROWS, ROWS.astype(np.float32)):
        for threads in (1, 2):
            np.testing.assert_allclose(model.scores(features, threads=threads), expected, rtol=1e-6, atol=1e-7)
    for row in (0, 17):
        np.testing.assert_allclose(model.scores(ROWS[row : row + 1]), expected[row : row + 1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("element", [FLOAT, DOUBLE])
@pytest.mark.parametrize("rows", ["N", 1])
def test_floats_of_both_widths_free_and_single_rows(element: int, rows: Any) -> None:
    dtype = np.float32 if element == FLOAT else np.float64
    data = weighted(element, rows)
    expected = np.concatenate([answers(data, "y", {"x": ROWS[i : i + 1].astype(dtype)}) for i in range(50)])
    model = Model.from_bytes("onnx", data)
    for features in (ROWS[:50], ROWS[:50].astype(np.float32)):
        np.testing.assert_allclose(model.margins(features), expected, rtol=1e-5, atol=1e-6)


def test_several_inputs_take_the_features_in_order() -> None:
    nodes = [
        helper.make_node("Cast", ["count"], ["count_"], to=DOUBLE),
        helper.make_node("Cast", ["flag"], ["flag_"], to=DOUBLE),
        helper.make_node("Cast", ["pair"], ["pair_"], to=DOUBLE),
        helper.make_node("Unsqueeze", ["alone", "one"], ["alone_"]),
        helper.make_node("Concat", ["count_", "flag_", "pair_", "alone_"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["y"]),
    ]
    inputs: list[tuple[str, int, list[Any]]] = [
        ("count", INT64, ["N", 1]),
        ("flag", TensorProto.BOOL, ["N", 1]),
        ("pair", FLOAT, ["N", 2]),
        ("alone", DOUBLE, ["N"]),
    ]
    weights = np.array([[1.0], [10.0], [100.0], [1000.0], [10000.0]])
    data = graph_model(nodes, inputs, [("y", DOUBLE, ["N", 1])], {"w": weights, "one": np.array([1], dtype=np.int64)})
    model = Model.from_bytes("onnx", data)
    assert (model.features_count, model.outputs_count) == (5, 1)
    rows = np.array([[7, 1, 0.5, 2, 3], [-2, 0, 1, 1, 1], [0.5, 0, 1, 1, 1], [1, np.nan, 1, 1, 1], [1, 2, 1, 1, 1]])
    found = model.margins(rows)[:, 0]
    np.testing.assert_array_equal(found[:2], rows[:2] @ weights[:, 0])
    assert np.isnan(found[2:]).all(), "half a count, a missing and a double flag are no values of those inputs"


def sigmoid(columns: int) -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"])]
    weights = np.linspace(-1, 1, 6 * columns, dtype=np.float32).reshape(6, columns)
    return graph_model(nodes, [("x", FLOAT, ["N", 6])], [("y", FLOAT, ["N", columns])], {"w": weights})


@pytest.mark.parametrize(
    ("data", "task", "labels", "logits", "link"),
    [
        (sigmoid(1), "classification", ["no", "yes"], False, None),
        (weighted(columns=1), "classification", ["no", "yes"], True, "sigmoid"),
        (weighted(columns=2), "classification", ["no", "yes"], True, "softmax"),
        (weighted(columns=3), "multi_label", ["a", "b", "c"], True, "sigmoid"),
        (sigmoid(3), "multi_label", ["a", "b", "c"], False, None),
        (weighted(), "regression", None, False, None),
    ],
)
def test_outputs_become_the_answers_of_the_task(
    data: bytes, task: str, labels: list[str] | None, logits: bool, link: str | None, tmp_path: Path
) -> None:
    project = tmp_path
    (project / "headrace.toml").touch()
    exported = export_onnx(data, project / "m.onnx", ROWS[:20], task=task, labels=labels, logits=logits)
    register(exported, project / ".headrace" / "models")
    raw = answers(data, "y", {"x": ROWS[:5].astype(np.float32)})
    if link == "sigmoid":
        raw = 1 / (1 + np.exp(-raw))
    elif link == "softmax":
        raw = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    with Engine(project) as engine:
        found = engine.predict("m", features={f"f{i}": list(ROWS[:5, i]) for i in range(6)})["predictions"]
    for answer, expected in zip(found, raw, strict=True):
        scores = np.array(list(answer["scores"].values())) if labels else np.array([answer["value"]])
        if task == "classification":
            assert answer["label"] == labels[int(np.argmax(scores))] if labels else False
            assert scores.sum() == pytest.approx(1.0)
            assert scores[-1] == pytest.approx(expected[-1], rel=1e-5)
        else:
            np.testing.assert_allclose(scores, expected, rtol=1e-5)


def refusal(data: bytes, task: str | None = None, settings: str | None = None) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        Model.from_bytes("onnx", data, task, settings)
    return caught.value


def external_data() -> bytes:
    model = onnx.load_from_string(weighted())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return bytes(model.SerializeToString())


def custom_operator() -> bytes:
    node = helper.make_node("Magic", ["x"], ["y"], domain="org.example")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_what_cannot_be_served_is_refused_by_name(classifiers: dict[str, bytes]) -> None:
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    strings = graph_model(identity, [("x", TensorProto.STRING, ["N", 2])], [("y", TensorProto.STRING, ["N", 2])])
    cube = graph_model(identity, [("x", FLOAT, ["N", 2, 2])], [("y", FLOAT, ["N", 2, 2])])
    label_only = graph_model(
        [helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)],
        [("x", FLOAT, ["N", 2])],
        [("y", INT64, ["N"])],
    )
    forest = LogisticRegression().fit(ROWS, CLASSES)
    zip_map = to_onnx(forest, ROWS[:1].astype(np.float32), target_opset=17).SerializeToString()
    cases = [
        (strings, "unsupported_model", "input 'x' takes string"),
        (cube, "unsupported_model", "input 'x' has shape [-1, 2, 2]"),
        (weighted(rows=16), "unsupported_model", "input 'x' has shape [16, 6]"),
        (label_only, "unsupported_model", "'y'"),
        (zip_map, "unsupported_model", "sequence of maps"),
        (external_data(), "unsupported_model", "tensor 'w' is in another file"),
        (custom_operator(), "corrupt_model", "org.example"),
    ]
    for data, code, part in cases:
        error = refusal(data)
        assert error.code == code and part in str(error), error
    assert "zipmap" in refusal(zip_map).hint
    assert "probabilities" in refusal(classifiers["mlp"], settings='{"output": "nothing"}').hint
    assert refusal(weighted(), settings='{"unknown": 1}').code == "corrupt_model"


def test_golden_rows_of_another_model_are_refused(tmp_path: Path) -> None:
    exported = export_onnx(weighted(), tmp_path / "m.onnx", ROWS[:20], task="regression")
    exported.file.write_bytes(weighted(DOUBLE))
    register(exported, tmp_path / "models")  # the same weights, rounded: within the bound
    exported.golden["margins"][3] = [1.001 * (exported.golden["margins"][3][0] or 0.0)]
    with pytest.raises(HeadraceError, match="golden row 3"):
        register(exported, tmp_path / "models")


def test_exporting_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for data, task, part in [
        (b"no model", "regression", "onnxruntime does not load"),
        (weighted(), "classification", "logits=True"),
        (weighted(rows=16), "regression", "does not run"),
    ]:
        with pytest.raises(HeadraceError) as caught:
            export_onnx(data, path, ROWS[:5], task=task)
        assert part in str(caught.value), caught.value
    with pytest.raises(HeadraceError, match="shape"):
        export_onnx(weighted(), path, ROWS[:5, :4], task="regression")


def test_without_the_library_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    runtimes = {**find_runtimes(), "onnx_library": None}
    with pytest.raises(HeadraceError, match="pip install onnxruntime") as caught:
        Model.from_bytes("onnx", weighted(), runtimes=runtimes)
    assert caught.value.code == "unavailable"
    # A process of its own: the library of a process is opened once.
    code = f"""
import sys
from headrace import HeadraceError, Model
from headrace.runtimes import find_runtimes
for path in ("/nowhere/libonnxruntime.so", {str(shutil.which("python"))!r}):
    try:
        Model.from_bytes("onnx", sys.stdin.buffer.read() or data, runtimes={{**find_runtimes(), "onnx_library": path}})
    except HeadraceError as error:
        assert error.code == "unavailable", error
    data = b""
"""
    code = code.replace("sys.stdin.buffer.read() or data", "open(sys.argv[1], 'rb').read()")
    file = tmp_path / "m.onnx"
    file.write_bytes(weighted())
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from headrace import Model; import sys; Model.from_bytes('onnx', open(sys.argv[1], 'rb').read());"
            "assert 'onnxruntime' not in sys.modules",
            str(file),
        ],
        check=True,
    )


def test_hostile_bytes_end_in_an_error(classifiers: dict[str, bytes]) -> None:
    """In a process of its own, so that its end would be seen."""
    code = """
import sys, numpy as np
from headrace import HeadraceError, Model
data = open(sys.argv[1], "rb").read()
random = np.random.default_rng(1)
cases = [data[:cut] for cut in range(0, len(data), max(1, len(data) // 60))]
cases += [random.bytes(200) for _ in range(20)]
for _ in range(150):
    changed = bytearray(data)
    for place in random.integers(0, len(data), 3):
        changed[place] = random.integers(256)
    cases.append(bytes(changed))
loaded = 0
for case in cases:
    try:
        Model.from_bytes("onnx", case).margins(np.zeros((2, 6)))
        loaded += 1
    except HeadraceError:
        pass
print(loaded, len(cases))
"""
    for data in (weighted(), classifiers["logistic"], classifiers["forest"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "/dev/stdin"], input=data, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_regressor_with_many_threads_at_once() -> None:
    fitted = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    with pytest.warns(Warning, match="Maximum iterations"):
        fitted.fit(ROWS.astype(np.float32), ROWS[:, 0].astype(np.float32))
    data = to_onnx(fitted, ROWS[:1].astype(np.float32), target_opset=17).SerializeToString()
    model = Model.from_bytes("onnx", data)
    expected = model.margins(ROWS, threads=1)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.margins(ROWS, threads=1), range(40)):
            np.testing.assert_array_equal(found, expected)


def reshaped(columns: int, *last: Any) -> bytes:
    """The product with `columns` outputs, put into another form."""
    weights = np.ones((6, columns), dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), *last]
    constants = {"w": weights, "all": np.array([-1]), "first": np.array([0]), "two": np.array([columns, -1])}
    constants["zero"] = np.zeros(1, np.float32)
    output: Any = ("y", FLOAT, None)
    return graph_model(nodes, [("x", FLOAT, ["N", 6])], [output], constants)


def test_an_output_whose_rows_do_not_come_first_is_refused() -> None:
    transposed = helper.make_node("Transpose", ["z"], ["y"])
    flat = helper.make_node("Reshape", ["z", "all"], ["y"])
    split = helper.make_node("Reshape", ["z", "two"], ["y"])
    for data, shape in [
        (reshaped(1, transposed), "[1, 3] for 3 rows"),
        (reshaped(3, transposed), "[3, 1] for 1 row"),
        (reshaped(2, flat), "[2] for 1 row"),
        (reshaped(3, split), "[3, 1] for 1 row"),
    ]:
        error = refusal(data)
        assert error.code == "unsupported_model" and shape in error.message, error
    assert Model.from_bytes("onnx", reshaped(1, flat)).outputs_count == 1


def test_an_output_of_other_rows_than_were_given_fails() -> None:
    """It leaves out rows that begin with another number than zero, which the rows at load do not."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["x0"], axis=1),
        helper.make_node("Equal", ["x0", "zero"], ["is_zero"]),
        helper.make_node("Reshape", ["is_zero", "all"], ["kept"]),
        helper.make_node("Compress", ["z", "kept"], ["y"], axis=0),
    ]
    model = Model.from_bytes("onnx", reshaped(2, *nodes))
    rows = np.zeros((4, 6))
    assert model.margins(rows).shape == (4, 2)
    rows[:2, 0] = 1.0
    with pytest.raises(HeadraceError, match=r"an output of shape \[2, 2\], for 4 rows it is \[4, 2\]") as caught:
        model.margins(rows)
    assert caught.value.code == "model_failed"


def test_a_forked_child_runs_what_it_loads_itself(tmp_path: Path) -> None:
    """The pool's threads are the parent's, so a child that counted on them would wait for ever."""
    code = """
import os, sys, warnings
import numpy as np
from headrace import HeadraceError, Model
from headrace.runtimes import find_runtimes

warnings.simplefilter("ignore", DeprecationWarning)
data = open(sys.argv[1], "rb").read()
runtimes = {**find_runtimes(), "onnx_threads": 4}
rows = np.random.default_rng(1).normal(size=(4096, 6))
model = Model.from_bytes("onnx", data, runtimes=runtimes)
expected = model.margins(rows, threads=1)
child = os.fork()
if child == 0:
    try:
        model.margins(rows, threads=1)
    except HeadraceError as error:
        print(error.code, flush=True)
    own = Model.from_bytes("onnx", data, runtimes=runtimes)
    for threads in (1, 2):
        print(np.array_equal(own.margins(rows, threads=threads), expected), flush=True)
    del model, own
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(model.margins(rows, threads=1), expected))
"""
    weights = {"w": RANDOM.normal(size=(6, 256)), "v": RANDOM.normal(size=(256, 1))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Tanh", ["z"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    file = tmp_path / "m.onnx"
    file.write_bytes(graph_model(nodes, [("x", DOUBLE, ["N", 6])], [("y", DOUBLE, ["N", 1])], weights))
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["used_after_fork", "True", "True", "0 True"], done.stderr
