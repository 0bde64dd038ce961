"""Functions of one row, compiled by Numba when they are loaded: as much of Python as `@scalar_function` takes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.compiled_functions import Parameter
from headrace.errors import make_error
from headrace.export.exported import ExportedModel, Matrix, golden_matrix, golden_rows, label_names, replacing
from headrace.export.onnx import scores_of_margins
from headrace.functions import PlanFunction, scalar_function

FILE_FORMAT = 1
WHOLE_MAX = 2.0**53
"""Beyond it a float64 feature does not hold every whole number."""


def export_numba_function(
    function: Callable[..., Any],
    file: str | os.PathLike[str],
    golden: Any,
    features: Sequence[str] | None = None,
    *,
    task: str,
    labels: Sequence[Any] | None = None,
    logits: bool = False,
) -> ExportedModel:
    """Writes a function's source as a model's file, and calls the function with the golden rows.

    The parameters are the model's features, by name; the result is the score of the row: the value of a regression, the
    probability of the second class. What `headrace.scalar_function` says of the source holds. A missing feature is None
    for a parameter that is annotated so (`float | None`); without that the row has no score, and the function is not
    called. Neither has a row for which the function raises or returns None or NaN, nor one with a feature that its
    parameter's type does not have (0.5 for an int, 2 for a bool, an int beyond 2^53). Such a row fails alone.

    Args:
        function: decorated with `scalar_function`, or to be.
        file: where to write it.
        golden: rows of shape (rows, features), NaN where a value is missing.
        features: the names of the golden rows' columns, if those are not the parameters in their order; columns that
            are no parameters are left out.
        task: `classification` of two classes, `regression` or `ranking`.
        labels: the names of both classes.
        logits: whether the function gives a logit, which a logistic function turns into the probability.

    Raises:
        DefinitionError: `invalid_definition`, naming what cannot be compiled.
        HeadraceError: `invalid_argument` (a python_function, or a parameter that no column is), `length_mismatch`
            (golden rows).
    """
    known = function if isinstance(function, PlanFunction) else scalar_function(function)
    definition = known.definition
    if definition["kind"] != "compiled":
        hint = "decorate it with scalar_function, or export a class with export_python_class"
        raise make_error("invalid_argument", f"function '{definition['name']}' is not compiled", hint)
    parameters = [Parameter(**parameter) for parameter in definition["parameters"]]
    names = [parameter.name for parameter in parameters]
    columns = list(names if features is None else features)
    if lacking := [name for name in names if name not in columns]:
        message = f"function '{definition['name']}' has the parameter '{lacking[0]}', which no feature is"
        raise make_error("invalid_argument", message, f"name the parameters as the features: {', '.join(columns)}")
    rows = golden_matrix(golden, len(columns))[:, [columns.index(name) for name in names]]
    margins = row_values(known.function, parameters, rows)
    scores = scores_of_margins(margins, task, logits)
    if np.isinf(margins).any():
        row = int(np.isinf(margins).argmax())
        hint = "leave that row out, or bound what the function gives"
        raise make_error("invalid_argument", f"function '{definition['name']}' is infinite for golden row {row}", hint)
    target = Path(file)
    keys = ("name", "source", "parameters", "returns", "constants")
    with replacing(target) as aside:
        document = {"format": FILE_FORMAT, **{key: definition[key] for key in keys}}
        aside.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8")
    return ExportedModel(
        file=target,
        format="numba-function",
        task=task,
        labels=label_names(labels),
        features=tuple(names),
        golden=golden_rows(rows, margins, scores),
        library="python",
        library_version=platform.python_version(),
        settings={"answers": "logit"} if logits else None,
    )


def row_values(function: Callable[..., Any], parameters: Sequence[Parameter], rows: Matrix) -> Matrix:
    """The function's values for rows of features, by Python itself: shape (rows, 1), NaN where it has none."""
    return np.array([[_value(function, parameters, row)] for row in rows.tolist()])


def _value(function: Callable[..., Any], parameters: Sequence[Parameter], row: Sequence[float]) -> float:
    arguments: list[Any] = []
    for parameter, feature in zip(parameters, row, strict=True):
        if feature != feature:
            if not parameter.takes_null:
                return np.nan
            arguments.append(None)
            continue
        is_fit = {
            "float64": True,
            "int64": feature.is_integer() and abs(feature) <= WHOLE_MAX,
            "bool": feature in (0.0, 1.0),
        }
        if not is_fit[parameter.dtype]:
            return np.nan
        arguments.append({"float64": float, "int64": int, "bool": bool}[parameter.dtype](feature))
    try:
        value = function(*arguments)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return np.nan
        return np.nan if value is None else float(value)
    except (ArithmeticError, ValueError, TypeError):  # TypeError: a number is made of None
        return np.nan
