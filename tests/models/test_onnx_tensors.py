"""ONNX models of tensors: registered as their file is, gated by golden tensors, and answered as onnxruntime answers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from headrace import Engine, FeatureStore, HeadraceError, _native
from headrace.export import export_onnx_tensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own dependencies
    client_http = pytest.importorskip("tritonclient.http", reason="install it with: pip install 'tritonclient[http]'")

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2)
serve(Engine(sys.argv[1]), settings, lambda found: print(found["http"], flush=True))
"""

Shape = list[int | str]


def graph(nodes: list[Any], inputs: list[tuple[str, int, Shape]], outputs: list[tuple[str, int, Shape]]) -> bytes:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())


def several() -> bytes:
    """Tensors of five types, some of them of any size, one without a batch."""
    nodes = [
        helper.make_node("Cast", ["count"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Identity", ["text"], ["same"]),
        helper.make_node("Not", ["flag"], ["unflagged"]),
        helper.make_node("Cast", ["scaled"], ["half"], to=TensorProto.FLOAT16),
    ]
    inputs: list[tuple[str, int, Shape]] = [
        ("count", TensorProto.INT64, ["N", "M"]),
        ("scale", TensorProto.FLOAT, [1]),
        ("text", TensorProto.STRING, ["T"]),
        ("flag", TensorProto.BOOL, [2]),
    ]
    outputs: list[tuple[str, int, Shape]] = [
        ("scaled", TensorProto.FLOAT, ["N", "M"]),
        ("same", TensorProto.STRING, ["T"]),
        ("unflagged", TensorProto.BOOL, [2]),
        ("half", TensorProto.FLOAT16, ["N", "M"]),
    ]
    return graph(nodes, inputs, outputs)


def argmax() -> bytes:
    """Scores of classes by row, with a batch."""
    nodes = [helper.make_node("Softmax", ["x"], ["probabilities"], axis=1)]
    return graph(nodes, [("x", TensorProto.FLOAT, ["N", 3])], [("probabilities", TensorProto.FLOAT, ["N", 3])])


GOLDEN = {
    "count": np.array([[1, 2, 3]]),
    "scale": np.array([0.5]),
    "text": np.array(["a", "späť"], dtype=np.object_),
    "flag": np.array([True, False]),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tensors")
    (root / "headrace.toml").write_text('[project]\nname = "tensors"\n')
    with FeatureStore(root) as store:
        store.register_model("several", export_onnx_tensors(several(), root / "several.onnx", GOLDEN))
        labels = {"probabilities": ["low", "middle", "high"]}
        golden = [{"x": np.eye(3)}, {"x": np.zeros((1, 3))}]
        exported = export_onnx_tensors(argmax(), root / "argmax.onnx", golden, batch_max=4, labels=labels)
        store.register_model("argmax", exported)
    return root


@pytest.fixture(scope="module")
def client(project: Path) -> Iterator[Any]:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(project)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        with client_http.InferenceServerClient(child.stdout.readline().strip()) as client:
            yield client
    finally:
        child.terminate()
        child.communicate(timeout=60)


def tensor(name: str, values: np.ndarray[Any, Any], datatype: str, binary: bool) -> Any:
    made = client_http.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [False, True])
def test_every_type_goes_in_and_out(client: Any, binary: bool) -> None:
    count = np.arange(8, dtype=np.int64).reshape(4, 2)
    text = np.array([b"x", "ž".encode(), b""], dtype=np.object_)
    inputs = [
        tensor("flag", np.array([False, True]), "BOOL", binary),
        tensor("text", text, "BYTES", binary),
        tensor("count", count, "INT64", binary),
        tensor("scale", np.array([0.25], dtype=np.float32), "FP32", binary),
    ]
    result = client.infer("several", inputs)
    np.testing.assert_array_equal(result.as_numpy("scaled"), count.astype(np.float32) * np.float32(0.25))
    np.testing.assert_array_equal(result.as_numpy("half"), (count * 0.25).astype(np.float16))
    np.testing.assert_array_equal(result.as_numpy("same"), text)
    assert result.as_numpy("unflagged").tolist() == [True, False]


def test_metadata_is_that_of_the_file(client: Any) -> None:
    metadata = client.get_model_metadata("several")
    assert metadata["platform"] == "onnx"
    assert metadata["inputs"][0] == {"name": "count", "datatype": "INT64", "shape": [-1, -1]}
    assert [output["datatype"] for output in metadata["outputs"]] == ["FP32", "BYTES", "BOOL", "FP16"]
    config = client.get_model_config("argmax")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (4, [3])


def test_labels_are_told_with_the_classes(client: Any) -> None:
    outputs = [client_http.InferRequestedOutput("probabilities", class_count=1)]
    x = np.array([[0, 9, 0], [9, 0, 0]], dtype=np.float32)
    result = client.infer("argmax", [tensor("x", x, "FP32", True)], outputs=outputs)
    assert [text.decode().split(":")[1:] for text in result.as_numpy("probabilities").ravel()] == [
        ["1", "middle"],
        ["0", "low"],
    ]


def test_a_text_that_the_library_cannot_hold_is_refused(client: Any) -> None:
    inputs = [
        tensor("flag", np.array([False, True]), "BOOL", True),
        tensor("text", np.array([b"a\0b"], dtype=np.object_), "BYTES", True),
        tensor("count", np.zeros((1, 1), dtype=np.int64), "INT64", True),
        tensor("scale", np.zeros(1, dtype=np.float32), "FP32", True),
    ]
    with pytest.raises(Exception, match="zero byte"):
        client.infer("several", inputs)


def changed(project: Path, name: str, edit: Any) -> None:
    """Golden file and manifest of version 1, edited and with right digests."""
    folder = project / ".headrace" / "models" / name / "1"
    manifest, golden = json.loads((folder / "model.json").read_text()), json.loads((folder / "golden.json").read_text())
    edit(manifest, golden)
    (folder / "golden.json").write_text(json.dumps(golden))
    manifest["golden"]["digest"] = _native.digest_file(folder / "golden.json")
    text = _native.canonical_json(json.dumps(manifest))
    (folder / "model.json").write_text(text)
    (folder / "digest").write_text(_native.digest_bytes(text.encode()) + "\n")


def other_output(_manifest: Any, golden: Any) -> None:
    golden["calls"][0]["outputs"][0]["data"] = base64.b64encode(
        np.array([0.5, 1.0, 1.6], dtype=np.float32).tobytes()
    ).decode()


def other_text(_manifest: Any, golden: Any) -> None:
    golden["calls"][0]["outputs"][1]["data"] = base64.b64encode(b"\1\0\0\0b\1\0\0\0c").decode()


def too_short(_manifest: Any, golden: Any) -> None:
    golden["calls"][0]["inputs"][0]["data"] = "AAAA"


def huge_shape(_manifest: Any, golden: Any) -> None:
    golden["calls"][0]["inputs"][0]["shape"] = [2**40, 2**40]


def other_name(manifest: Any, _golden: Any) -> None:
    manifest["signature"]["tensors"]["inputs"][0]["name"] = "counts"


def other_shape(manifest: Any, _golden: Any) -> None:
    manifest["signature"]["tensors"]["outputs"][0]["shape"] = [-1, 3]


def no_tensors(manifest: Any, _golden: Any) -> None:
    del manifest["signature"]["tensors"]


def no_calls(_manifest: Any, golden: Any) -> None:
    golden["calls"] = []


@pytest.mark.parametrize(
    ("edit", "code", "part"),
    [
        (other_output, "golden_row_mismatch", "'scaled': element 2"),
        (other_text, "golden_row_mismatch", "'same': its elements differ"),
        (too_short, "corrupt_model", "3 elements of INT64 need 24"),
        (huge_shape, "corrupt_model", "boundless"),
        (other_name, "corrupt_model", "those of the file"),
        (other_shape, "corrupt_model", "those of the file"),
        (no_tensors, "corrupt_model", "only then"),
        (no_calls, "corrupt_model", "0 golden calls"),
    ],
)
def test_what_does_not_fit_its_file_is_never_ready(tmp_path: Path, edit: Any, code: str, part: str) -> None:
    (tmp_path / "headrace.toml").write_text('[project]\nname = "changed"\n')
    with FeatureStore(tmp_path) as store:
        store.register_model("several", export_onnx_tensors(several(), tmp_path / "m.onnx", GOLDEN))
    changed(tmp_path, "several", edit)
    with Engine(tmp_path) as engine:
        fault = engine.faults["several/1"]
    assert fault.code == code
    assert part in str(fault)


def test_golden_inputs_and_tasks_are_checked(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="the golden inputs are count"):
        export_onnx_tensors(several(), tmp_path / "m.onnx", {"count": np.zeros((1, 1))})
    with pytest.raises(HeadraceError, match="no task of tensors"):
        export_onnx_tensors(several(), tmp_path / "m.onnx", GOLDEN, task="regression")
    with pytest.raises(HeadraceError, match="no golden inputs"):
        export_onnx_tensors(several(), tmp_path / "m.onnx", [])


def test_a_file_is_registered_from_the_command_line(project: Path, tmp_path: Path) -> None:
    (tmp_path / "argmax.onnx").write_bytes(argmax())
    np.savez(tmp_path / "golden.npz", x=np.eye(3, dtype=np.float32))
    program = [sys.executable, "-m", "headrace_control", "register", "by_hand", str(tmp_path / "argmax.onnx")]
    options = ["--rows", str(tmp_path / "golden.npz"), "--task", "tensors", "--batch-max", "8", "--json"]
    ended = subprocess.run(
        [*program, *options, "--project", str(project)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["version"], answer["features"], answer["golden_rows"]) == (1, ["x"], 1)
