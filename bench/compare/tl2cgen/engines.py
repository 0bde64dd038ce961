"""tl2cgen: a model as C code, compiled by gcc."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Engine, package
from inputs import Array, Inputs


class Tl2cgen(Engine):
    """`tl2cgen.Predictor.predict`, margins, one thread. The library is compiled once and kept beside the model."""

    wants = "features"
    note = "C code by gcc -O3, pred_margin=True, nthread 1"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        tl2cgen, treelite = package("tl2cgen"), package("treelite")
        self.version = tl2cgen.__version__
        if shutil.which("gcc") is None:
            raise RuntimeError("tl2cgen needs gcc")
        loaders = {"xgboost": "load_xgboost_model", "lightgbm": "load_lightgbm_model"}
        model = getattr(treelite.frontend, loaders[options["library"]])(options["model"])
        path = Path(options["model"]).with_suffix(".so")
        if not path.exists():
            unfinished = path.with_name(f"unfinished-{path.name}")
            tl2cgen.export_lib(model, toolchain="gcc", libpath=unfinished, params={"parallel_comp": 16}, nthread=2)
            unfinished.replace(path)
        self.predictor = tl2cgen.Predictor(path, nthread=1)
        self.matrix = tl2cgen.DMatrix

    def caller(self, rows: int) -> Call:
        predict, matrix = self.predictor.predict, self.matrix
        return lambda features: predict(matrix(features), pred_margin=True)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.caller(rows)(asked)).reshape(-1)


ENGINES: dict[str, Callable[[], Engine]] = {"tl2cgen": Tl2cgen}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
