"""ONNX Runtime on models that onnxmltools converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import Engine, package
from inputs import Inputs, TreeInputs
from onnx_session import OnnxSession

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


class OnnxRuntime(OnnxSession):
    """`InferenceSession.run` on the CPU, one thread."""

    note = "TreeEnsembleRegressor by onnxmltools, 1 thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, TreeInputs)
        path = Path(options["model"]).with_suffix(".onnx")
        if not path.exists():
            convert(options, inputs.features, path)
        self.open(path)


ENGINES: dict[str, Callable[[], Engine]] = {"onnxruntime": OnnxRuntime}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
