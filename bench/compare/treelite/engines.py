"""Treelite's general tree inference library (GTIL): no compiler, the model as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from engine import Call, Engine, package
from inputs import Array, Inputs


class Treelite(Engine):
    """`treelite.gtil.predict`, margins, one thread."""

    wants = "features"
    note = "gtil.predict, pred_margin=True, nthread 1"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        treelite = package("treelite")
        self.version = treelite.__version__
        self.predict = treelite.gtil.predict
        loaders = {"xgboost": "load_xgboost_model", "lightgbm": "load_lightgbm_model"}
        self.model = getattr(treelite.frontend, loaders[options["library"]])(options["model"])

    def caller(self, rows: int) -> Call:
        predict, model = self.predict, self.model
        return lambda features: predict(model, features, nthread=1, pred_margin=True)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.caller(rows)(asked)).reshape(-1)


ENGINES: dict[str, Callable[[], Engine]] = {"treelite": Treelite}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
