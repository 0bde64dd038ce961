"""Networks that scikit-learn trained: by the engine and by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine import Engine, ours, package
from inputs import Inputs
from onnx_session import OnnxSession

OPSET = 17
TRAINED_ROWS = 4096


class OnnxRuntime(OnnxSession):
    """`InferenceSession.run` on the CPU, one thread."""

    note = "by skl2onnx, 1 thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        self.open(Path(options["folder"]) / "model.onnx")


def train(recipe: dict[str, Any]) -> dict[str, Any]:
    """Trains a network a little, writes it as ONNX and, exported as a user would, for the engine.

    The recipe: `features`, `layers`, `activation`, `seed`, `path` of the folder.
    """
    networks, skl2onnx = package("sklearn.neural_network"), package("skl2onnx")
    rng = np.random.default_rng([recipe["seed"], 5])
    features = rng.standard_normal((TRAINED_ROWS, recipe["features"]), dtype=np.float32)
    label = np.sin(features[:, 0]) * features[:, 1] + features[:, 2]
    network = networks.MLPRegressor(
        hidden_layer_sizes=recipe["layers"],
        activation=recipe["activation"],
        max_iter=2,
        random_state=recipe["seed"],
    )
    package("warnings").simplefilter("ignore")
    network.fit(features, label.astype(np.float32))
    folder = Path(recipe["path"])
    tensor = package("skl2onnx.common.data_types").FloatTensorType([None, recipe["features"]])
    converted = skl2onnx.convert_sklearn(network, initial_types=[("x", tensor)], target_opset=OPSET)
    (folder / "model.onnx").write_bytes(converted.SerializeToString())
    exported = package("headrace.export").export_sklearn(network, folder / "model.safetensors", golden=features[:64])
    draft = {
        "task": exported.task,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": [{"name": f"f{at}", "dtype": "float32"} for at in range(recipe["features"])]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "1970-01-01T00:00:00Z",
    }
    (folder / "draft.json").write_text(json.dumps(draft))
    return {"sklearn": exported.library_version}


def versions(options: dict[str, Any]) -> dict[str, Any]:
    """Versions that a trained network depends on."""
    return {name: package(name).__version__ for name in ("sklearn", "skl2onnx")}


ENGINES: dict[str, Callable[[], Engine]] = {"headrace": ours("HeadraceNetworks"), "onnxruntime": OnnxRuntime}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"train": train, "versions": versions}
