"""ONNX Runtime on models that onnxmltools converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import Call, Engine, package
from inputs import Array, Inputs, TreeInputs

OPSET = 15
"""The newest that onnxmltools' tree converters write."""


def convert(options: dict[str, Any], features: int, target: Path) -> None:
    """Writes the ONNX form of a model."""
    onnxmltools = package("onnxmltools")
    tensor = package("onnxmltools.convert.common.data_types").FloatTensorType([None, features])
    if options["library"] == "xgboost":
        booster = package("xgboost").Booster(model_file=options["model"])
        converted = onnxmltools.convert_xgboost(booster, initial_types=[("x", tensor)], target_opset=OPSET)
    else:
        booster = package("lightgbm").Booster(model_file=options["model"])
        converted = onnxmltools.convert_lightgbm(booster, initial_types=[("x", tensor)], target_opset=OPSET)
    unfinished = target.with_suffix(".partial")
    unfinished.write_bytes(converted.SerializeToString())
    unfinished.replace(target)


class OnnxRuntime(Engine):
    """`InferenceSession.run` on the CPU, one thread."""

    wants = "features"
    note = "TreeEnsembleRegressor by onnxmltools, 1 thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, TreeInputs)
        onnxruntime = package("onnxruntime")
        self.version = onnxruntime.__version__
        path = Path(options["model"]).with_suffix(".onnx")
        if not path.exists():
            convert(options, inputs.features, path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def caller(self, rows: int) -> Call:
        run = self.session.run
        return lambda features: run(None, {"x": features})

    def answer(self, rows: int, asked: Array) -> Array:
        output: Array = self.session.run(None, {"x": asked})[0]
        return output.reshape(-1)


ENGINES: dict[str, Callable[[], Engine]] = {"onnxruntime": OnnxRuntime}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
