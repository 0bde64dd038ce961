"""Models of the libraries that train trees, loaded for one thread: what is asked of them is up to the engine."""

from __future__ import annotations

from typing import Any

from engine import Engine, package
from inputs import Inputs


class XgboostModel(Engine):
    """A model of XGBoost: `booster`, and `matrix`, its DMatrix."""

    wants = "features"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        xgboost = package("xgboost")
        self.version = xgboost.__version__
        self.booster = xgboost.Booster(model_file=options["model"])
        self.booster.set_param({"nthread": 1})
        self.matrix = xgboost.DMatrix


class LightgbmModel(Engine):
    """A model of LightGBM: `booster`."""

    wants = "features"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        lightgbm = package("lightgbm")
        self.version = lightgbm.__version__
        self.booster = lightgbm.Booster(model_file=options["model"])
