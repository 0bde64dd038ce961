"""ONNX Runtime on the CPU, one thread: the file is up to the engine."""

from __future__ import annotations

from pathlib import Path

from engine import Call, Engine, package
from inputs import Array


class OnnxSession(Engine):
    """`InferenceSession.run` of a model whose one input is `x`; its first output is the answer."""

    wants = "features"

    def open(self, path: Path) -> None:
        onnxruntime = package("onnxruntime")
        self.version = onnxruntime.__version__
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
