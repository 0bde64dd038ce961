"""The libraries that train the models, predicting with them; and the training itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from boosters import LightgbmModel, XgboostModel
from engine import Call, Engine, ours, package
from inputs import Array


class Xgboost(XgboostModel):
    """`Booster.inplace_predict`, margins."""

    note = "inplace_predict, predict_type='margin', nthread 1"

    def caller(self, rows: int) -> Call:
        predict = self.booster.inplace_predict
        return lambda features: predict(features, predict_type="margin")


class Lightgbm(LightgbmModel):
    """`Booster.predict`, raw scores."""

    note = "Booster.predict, raw_score=True, num_threads 1"

    def caller(self, rows: int) -> Call:
        predict = self.booster.predict
        return lambda features: predict(features, raw_score=True, num_threads=1)


def training_data(recipe: dict[str, Any]) -> tuple[Array, Array]:
    """A smooth signal and noise: with enough rows, trees grow to the depth that they are allowed."""
    rng = np.random.default_rng([recipe["seed"], 3])
    features = rng.standard_normal((recipe["rows"], recipe["features"]), dtype=np.float32)
    weights = rng.standard_normal(recipe["features"]).astype(np.float32)
    signal = features @ weights + 2 * np.sin(2 * features[:, 0]) * features[:, 1] + features[:, 2] * features[:, 3]
    noise = rng.standard_normal(recipe["rows"], dtype=np.float32)
    return features, (signal + 2 * noise).astype(np.float32)


def train(recipe: dict[str, Any]) -> dict[str, Any]:
    """Trains the model that a recipe describes and saves it to `recipe["path"]`.

    The recipe: `library`, `parameters`, `trees` (rounds), `rows`, `features`, `missing`, `seed`.
    """
    features, label = training_data(recipe)
    classes = recipe["parameters"].get("num_class", 0)
    if classes:
        label = np.searchsorted(np.quantile(label, np.linspace(0, 1, classes + 1)[1:-1]), label).astype(np.float32)
    if recipe.get("missing", 0.0):
        features[np.random.default_rng([recipe["seed"], 4]).random(features.shape) < recipe["missing"]] = np.nan
    path = Path(recipe["path"])
    start = time.perf_counter()
    if recipe["library"] == "xgboost":
        xgboost = package("xgboost")
        matrix = xgboost.QuantileDMatrix(features, label)
        booster = xgboost.train(recipe["parameters"], matrix, recipe["trees"])
        booster.save_model(path)
        leaves = sum(tree.count("leaf=") for tree in booster.get_dump())
    else:
        lightgbm = package("lightgbm")
        booster = lightgbm.train(recipe["parameters"], lightgbm.Dataset(features, label), recipe["trees"])
        booster.save_model(path)
        leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
    return {"leaves_per_tree": leaves / recipe["trees"], "train_s": time.perf_counter() - start}


def versions(options: dict[str, Any]) -> dict[str, Any]:
    """Versions that a trained model depends on."""
    return {name: package(name).__version__ for name in options["packages"]}


ENGINES: dict[str, Callable[[], Engine]] = {
    "headrace": ours("HeadraceTrees"),
    "headrace, 2 threads": ours("HeadraceTreesTwoThreads"),
    "headrace, one call": ours("HeadraceOneCall"),
    "headrace, two calls": ours("HeadraceTwoCalls"),
    "xgboost": Xgboost,
    "lightgbm": Lightgbm,
}


def serving_job(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function of `serving`, imported only when it is called: it needs headrace."""
    return lambda options: dict(getattr(package("serving"), name)(options))


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "train": train,
    "versions": versions,
    "make_projects": serving_job("make_projects"),
    "make_requests": serving_job("make_requests"),
}
