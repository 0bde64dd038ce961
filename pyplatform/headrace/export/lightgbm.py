"""LightGBM: a `Booster`, or a model of its scikit-learn interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.errors import make_error
from headrace.export.exported import (
    ExportedModel,
    GoldenTable,
    GoldenValue,
    golden_matrix,
    golden_rows,
    golden_table,
    in_order,
    label_names,
    library,
    replacing,
)

CLASSIFICATION = {"binary", "multiclass", "multiclassova"}
CATEGORIES = "\npandas_categorical:"
COLUMNS = "\nheadrace_category_columns:"
"""Before the places of the columns whose categories `pandas_categorical` lists; LightGBM leaves the line alone."""
RANKING = {"lambdarank", "rank_xendcg"}


def export_lightgbm(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes a LightGBM model as text and computes its golden rows.

    Args:
        model: a `Booster` or a fitted `LGBMModel`; either predicts with the trees up to its best iteration, if it has
            one.
        path: the file to write.
        golden: rows of shape (rows, features), NaN where a value is missing; categories as their codes. Of a model that
            was trained on a frame with columns of categories: a frame with these columns, where texts may stand for
            categories that are texts, or an object array with the texts. The columns of a frame are found by name.

    Raises:
        HeadraceError: `invalid_argument` (another kind of object, a model that is not fitted), `unsupported_model`
            (linear trees, early stopping of predictions, other columns of categories than the model's),
            `length_mismatch` and `missing_column` (golden rows).
    """
    lightgbm = library("lightgbm")
    booster = _booster(lightgbm, model)
    text = booster.model_to_string()
    header, _, trees = text.partition("\nTree=")
    if "\nis_linear=1" in trees:
        raise make_error("unsupported_model", "the model has linear trees", "train with linear_tree = false")
    # LightGBM writes an underscore for each blank of a name.
    golden = in_order(golden, booster.feature_name(), lambda name: name.replace(" ", "_"))
    table = golden_table(golden, booster.num_feature(), None)
    given: Any
    rows: Any
    if table is None:
        given = rows = golden_matrix(golden, booster.num_feature())
    else:
        given, rows, places = _frame(booster, table)
        _check_places(header, places)
        before, _, after = text.rpartition(CATEGORIES)
        text = f"{before}{COLUMNS}{','.join(map(str, places))}{CATEGORIES}{after}"
    file = Path(path)
    golden_answers = golden_rows(rows, booster.predict(given, raw_score=True), booster.predict(given))
    with replacing(file) as aside:
        aside.write_text(text, "utf-8", newline="\n")
    return ExportedModel(
        file=file,
        format="lightgbm-text",
        task=_task(header),
        labels=label_names(getattr(model, "classes_", None)) if hasattr(model, "predict_proba") else None,
        features=label_names(booster.feature_name()),
        golden=golden_answers,
        library="lightgbm",
        library_version=lightgbm.__version__,
    )


def _booster(lightgbm: Any, model: Any) -> Any:
    if isinstance(model, lightgbm.Booster):
        return model
    if not isinstance(model, lightgbm.LGBMModel):
        message = f"a {type(model).__module__}.{type(model).__qualname__} is not a LightGBM model"
        raise make_error("invalid_argument", message, "give a lightgbm.Booster or a fitted lightgbm.LGBMModel")
    if not model.__sklearn_is_fitted__():
        raise make_error("invalid_argument", "the LightGBM model is not fitted", "call fit before exporting it")
    # LightGBM reads the parameter under each of its names.
    names = ("pred_early_stop", "is_pred_early_stop", "predict_early_stop", "prediction_early_stop")
    parameters = model.get_params()
    for name in names:
        if str(parameters.get(name, False)).lower() in ("true", "1", "+"):
            message = f"the model has {name}, and so leaves trees out of its predictions"
            raise make_error("unsupported_model", message, f"call set_params({name}=False) before exporting it")
    return model.booster_


def _frame(booster: Any, table: GoldenTable) -> tuple[Any, GoldenTable, list[int]]:
    """Golden rows as LightGBM takes them, as the engine does, and the places of the columns of categories.

    Raises:
        HeadraceError: `unsupported_model`, the model was not trained on such columns.
    """
    pandas = library("pandas")
    frame = table.given if hasattr(table.given, "iloc") else pandas.DataFrame(table.given)
    series = {str(place): frame.iloc[:, place] for place in range(frame.shape[1])}
    for place, (name, column) in enumerate(series.items()):
        if place in table.texts and not hasattr(column, "cat"):
            series[name] = column.astype("category")
        elif column.dtype == object:
            series[name] = column.astype(float)
    frame = pandas.DataFrame(series)
    places = [place for place, column in enumerate(series.values()) if hasattr(column, "cat")]
    lists = booster.pandas_categorical or []
    if len(lists) != len(places):
        message = f"golden rows have {len(places)} columns of categories, the model was trained on {len(lists)}"
        raise make_error("unsupported_model", message, "train on a frame with these columns as categories")
    for place, known in zip(places, lists, strict=True):
        if not all(isinstance(category, str) for category in known):
            table = table.with_column(place, _codes(table.columns[place], known))
    return frame, table, places


def _check_places(header: str, places: list[int]) -> None:
    """Compares the golden rows' columns of categories with the features that the model splits by sets of categories.

    A column whose categories have an order is split as a number, and a column may have been made categorical by number:
    either kind alone leaves no doubt which lists belong to which features.

    Raises:
        HeadraceError: `unsupported_model`, the two differ.
    """
    lines = [line for line in header.splitlines() if line.startswith("feature_infos=")]
    infos = lines[0].removeprefix("feature_infos=").split() if lines else []
    categorical = {place for place, info in enumerate(infos) if info != "none" and not info.startswith("[")}
    if categorical <= set(places) or set(places) <= categorical:
        return
    message = f"columns {places} of the golden rows hold categories, the model's are {sorted(categorical)}"
    hint = "give the columns as the model was trained on them, or all as numbers, for a model that is given codes"
    raise make_error("unsupported_model", message, hint)


def _codes(values: list[GoldenValue], known: list[Any]) -> list[GoldenValue]:
    codes = {category: float(code) for code, category in enumerate(known)}
    return [None if value is None else codes.get(value) for value in values]


def _task(header: str) -> str:
    lines = [line.removeprefix("objective=") for line in header.splitlines() if line.startswith("objective=")]
    objective = lines[0].split()[0] if lines else ""
    if objective in CLASSIFICATION:
        return "classification"
    return "ranking" if objective in RANKING else "regression"
