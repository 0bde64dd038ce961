"""What the estimators of scikit-learn hold, as the tensors and the link of the engine's pipeline format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.export.exported import Matrix
from headrace.export.sklearn_links import Link, linear_link, link_of_loss
from headrace.export.sklearn_steps import Preparation, is_of_library, kind_of, named, refuse, transform


@dataclass(frozen=True)
class Estimator:
    """An estimator in the engine's terms, and the library's margins of some rows."""

    description: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    link: Link
    margins: Matrix


@dataclass
class Trees:
    """Nodes of all trees, one after another; the children of a node are counted from its tree's first."""

    outputs_count: int
    nodes: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=lambda: [0])
    outputs: list[int] = field(default_factory=list)
    sets: list[NDArray[np.uint32]] = field(default_factory=list)

    def add(self, output: int, **columns: NDArray[Any]) -> None:
        for name, values in columns.items():
            self.nodes.setdefault(name, []).append(np.asarray(values))
        self.starts.append(self.starts[-1] + len(columns["left"]))
        self.outputs.append(output)

    def add_tree(self, tree: Any, values: NDArray[np.float64], output: int = 0) -> None:
        """A `sklearn.tree._tree.Tree`, with `values` of shape (nodes, values of a leaf)."""
        missing_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
        self.add(
            output,
            left=tree.children_left,
            right=tree.children_right,
            features=tree.feature,
            thresholds=tree.threshold,
            missing_left=missing_left,
            values=values,
            covers=tree.weighted_n_node_samples,
        )

    def tensors(self, base: Any = 0.0) -> dict[str, NDArray[Any]]:
        dtypes = {"left": np.int64, "right": np.int64, "features": np.int64, "missing_left": np.uint8, "sets": np.int64}
        tensors: dict[str, NDArray[Any]] = {
            f"trees.{name}": np.concatenate(parts).astype(dtypes.get(name, np.float64))
            for name, parts in self.nodes.items()
        }
        tensors["trees.starts"] = np.array(self.starts, dtype=np.int64)
        tensors["trees.outputs"] = np.array(self.outputs, dtype=np.int64)
        tensors["trees.base"] = np.broadcast_to(np.asarray(base, dtype=np.float64), (self.outputs_count,))
        if "trees.sets" in tensors:
            tensors["trees.set_words"] = np.concatenate([np.zeros((0, 8), np.uint32), *self.sets]).astype(np.uint32)
        return tensors


def estimate(step: Any, rows: Matrix, preparation: Preparation) -> Estimator:
    """The estimator at the end of a pipeline; `rows` are prepared rows.

    Raises:
        HeadraceError: `unsupported_model`, naming the estimator and what of it has no counterpart.
    """
    kind = kind_of(step)
    if kind in ESTIMATORS:
        return ESTIMATORS[kind](step, rows, preparation)
    is_linear = hasattr(step, "coef_") and hasattr(step, "intercept_") and not hasattr(step, "dual_coef_")
    if is_of_library(step) and (is_linear or (kind == "SVR" and step.kernel == "linear")):
        return _linear(step, rows, preparation)
    known = ", ".join([*sorted(ESTIMATORS), "the linear models"])
    raise refuse(f"the estimator is a {kind}", f"use one of {known}, or export the model to ONNX")


def _class_values(tree: Any, estimator: Any) -> NDArray[np.float64]:
    """The answer at each node: shares of the classes (of two, that of the second), or a value for each output."""
    if not hasattr(estimator, "classes_"):
        values: NDArray[np.float64] = tree.value[:, :, 0]
        return values
    if tree.n_outputs > 1:
        raise refuse(f"{kind_of(estimator)} has {tree.n_outputs} targets", "train one model for each target")
    shares: NDArray[np.float64] = tree.value[:, 0, :]
    sums = shares.sum(axis=1, keepdims=True)
    if not np.allclose(sums, 1.0):  # before scikit-learn 1.3 these were counts
        shares = shares / sums
    return shares[:, 1:] if shares.shape[1] == 2 else shares


def _check_classes(step: Any) -> None:
    classes = getattr(step, "classes_", None)
    if classes is not None and len(classes) < 2:
        raise refuse(f"the {kind_of(step)} knows a single class", "train on rows of at least two classes")


def _tree(step: Any, rows: Matrix, _: Preparation) -> Estimator:
    return _forest(step, rows, [step], None)


def _bagged(step: Any, rows: Matrix, _: Preparation) -> Estimator:
    return _forest(step, rows, step.estimators_, len(step.estimators_))


def _forest(step: Any, rows: Matrix, estimators: Sequence[Any], averaged_over: int | None) -> Estimator:
    values = [_class_values(estimator.tree_, step) for estimator in estimators]
    _check_classes(step)
    trees = Trees(values[0].shape[1])
    margins = np.zeros((len(rows), trees.outputs_count))
    narrow = rows.astype(np.float32)
    for estimator, leaves in zip(estimators, values, strict=True):
        trees.add_tree(estimator.tree_, leaves)
        margins += leaves[estimator.tree_.apply(narrow)]
    description: dict[str, Any] = {"kind": "trees", "features_precision": "float32"}
    if averaged_over is not None:
        description["averaged_over"] = averaged_over
    is_probability = hasattr(step, "classes_") and trees.outputs_count == 1
    return Estimator(description, trees.tensors(), "probability" if is_probability else "identity", margins)


def _gradient_boosting(step: Any, rows: Matrix, _: Preparation) -> Estimator:
    kind = kind_of(step)
    init = step.init_
    if not isinstance(init, str) and kind_of(init) not in ("DummyClassifier", "DummyRegressor"):
        raise refuse(f"{kind} starts from a {kind_of(init)}", "train it with init=None or init='zero'")
    if getattr(init, "strategy", None) in ("stratified", "uniform"):
        message = f"{kind} starts from a DummyClassifier(strategy={init.strategy!r}), which answers at random"
        raise refuse(message, "train it with init=None or init='zero'")
    trees = Trees(step.estimators_.shape[1])
    for stage in step.estimators_:
        for output, estimator in enumerate(stage):
            trees.add_tree(estimator.tree_, step.learning_rate * estimator.tree_.value[:, :, 0], output)
    base = step._raw_predict_init(np.zeros((1, step.n_features_in_), dtype=np.float32))[0]
    margins = step._raw_predict(rows.astype(np.float32)).reshape(len(rows), -1)
    description = {"kind": "trees", "features_precision": "float32"}
    return Estimator(description, trees.tensors(base), link_of_loss(step._loss, kind), margins)


def _hist_gradient_boosting(step: Any, rows: Matrix, preparation: Preparation) -> Estimator:
    if step._preprocessor is not None:
        transform(preparation, step._preprocessor)
    trees = Trees(step.n_trees_per_iteration_)
    for iteration in step._predictors:
        for output, predictor in enumerate(iteration):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            bitsets = predictor.raw_left_cat_bitsets
            first = sum(len(part) for part in trees.sets)
            trees.sets.append(bitsets)
            trees.add(
                output,
                left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
                right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
                features=nodes["feature_idx"],
                thresholds=np.where(is_leaf | (nodes["is_categorical"] != 0), 0.0, nodes["num_threshold"]),
                missing_left=nodes["missing_go_to_left"],
                values=nodes["value"][:, None],
                covers=nodes["count"],
                sets=np.where(nodes["is_categorical"] != 0, first + nodes["bitset_idx"].astype(np.int64), -1),
            )
    margins = step._raw_predict(named(step, rows)).reshape(len(rows), -1)
    base = np.asarray(step._baseline_prediction).reshape(-1)
    description = {"kind": "trees", "features_precision": "float64"}
    return Estimator(description, trees.tensors(base), link_of_loss(step._loss, kind_of(step)), margins)


def _linear(step: Any, rows: Matrix, _: Preparation) -> Estimator:
    coefficients = step.coef_.toarray() if hasattr(step.coef_, "toarray") else step.coef_
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(step.intercept_, dtype=np.float64).reshape(-1), (len(weights),))
    margins = rows @ weights.T + intercept
    tensors = {"linear.weights": weights, "linear.intercept": intercept}
    return Estimator({"kind": "linear"}, tensors, linear_link(step, rows, weights, intercept), margins)


ACTIVATIONS: dict[str, Callable[[Matrix], Matrix]] = {
    "identity": lambda values: values,
    "relu": lambda values: np.maximum(values, 0),
    "logistic": lambda values: 1.0 / (1.0 + np.exp(-values)),
    "tanh": np.tanh,
}
OUTPUT_LINKS: dict[str, Link] = {
    "identity": "identity",
    "logistic": {"logistic": {"scale": 1.0}},
    "softmax": "softmax",
    "exp": "exponential",
}


def _network(step: Any, rows: Matrix, _: Preparation) -> Estimator:
    if step.activation not in ACTIVATIONS or step.out_activation_ not in OUTPUT_LINKS:
        name = f"{step.activation} and {step.out_activation_}"
        raise refuse(f"the network has the activations {name}", f"use one of {', '.join(ACTIVATIONS)}")
    precision = np.dtype(step.coefs_[0].dtype).name
    tensors: dict[str, NDArray[Any]] = {}
    values = rows.astype(precision)
    activations = [step.activation] * (len(step.coefs_) - 1) + ["identity"]
    for index, (weights, bias) in enumerate(zip(step.coefs_, step.intercepts_, strict=True)):
        tensors[f"network.{index}.weights"] = weights.astype(np.float64)
        tensors[f"network.{index}.bias"] = bias.astype(np.float64)
        with np.errstate(over="ignore"):
            values = ACTIVATIONS[activations[index]](values @ weights + bias)
    description = {"kind": "network", "precision": precision, "activations": activations}
    return Estimator(description, tensors, OUTPUT_LINKS[step.out_activation_], np.asarray(values, dtype=np.float64))


ESTIMATORS: dict[str, Callable[[Any, Matrix, Preparation], Estimator]] = {
    "DecisionTreeClassifier": _tree,
    "DecisionTreeRegressor": _tree,
    "ExtraTreeClassifier": _tree,
    "ExtraTreeRegressor": _tree,
    "ExtraTreesClassifier": _bagged,
    "ExtraTreesRegressor": _bagged,
    "GradientBoostingClassifier": _gradient_boosting,
    "GradientBoostingRegressor": _gradient_boosting,
    "HistGradientBoostingClassifier": _hist_gradient_boosting,
    "HistGradientBoostingRegressor": _hist_gradient_boosting,
    "MLPClassifier": _network,
    "MLPRegressor": _network,
    "RandomForestClassifier": _bagged,
    "RandomForestRegressor": _bagged,
}
