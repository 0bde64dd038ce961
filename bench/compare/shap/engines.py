"""Contributions of features by the libraries that train trees, and by shap."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from boosters import LightgbmModel, XgboostModel
from engine import Call, Engine, ours, package
from inputs import Array, Inputs


class Xgboost(XgboostModel):
    """`Booster.predict` with `pred_contribs`; making the DMatrix is part of the call, since rows come as an array."""

    note = "predict(DMatrix, pred_contribs=True, approx_contribs=False), nthread 1"

    def caller(self, rows: int) -> Call:
        predict, matrix = self.booster.predict, self.matrix
        return lambda features: predict(matrix(features, nthread=1), pred_contribs=True, approx_contribs=False)


class Lightgbm(LightgbmModel):
    """`Booster.predict` with `pred_contrib`."""

    note = "Booster.predict, pred_contrib=True, num_threads 1"

    def caller(self, rows: int) -> Call:
        predict = self.booster.predict
        return lambda features: predict(features, pred_contrib=True, num_threads=1)


class Shap(Engine):
    """`shap.TreeExplainer.shap_values`, path-dependent."""

    wants = "features"
    note = "TreeExplainer, tree_path_dependent, check_additivity=False; it asks the library that trained the model"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it draws with an older matplotlib in mind
            shap = package("shap")
        self.version = shap.__version__
        library = package(options["library"])
        booster = library.Booster(model_file=options["model"])
        if options["library"] == "xgboost":
            booster.set_param({"nthread": 1})
        self.explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")

    def caller(self, rows: int) -> Call:
        values = self.explainer.shap_values
        return lambda features: values(features, check_additivity=False)

    def answer(self, rows: int, asked: Array) -> Array:
        values = np.asarray(self.caller(rows)(asked))
        expected = np.full((len(values), 1), np.ravel(self.explainer.expected_value)[0])
        return np.hstack([values, expected])


ENGINES: dict[str, Callable[[], Engine]] = {
    "headrace": ours("HeadraceContributions"),
    "xgboost": Xgboost,
    "lightgbm": Lightgbm,
    "shap": Shap,
}
