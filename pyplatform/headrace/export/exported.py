"""What every exporter returns, and the checks that they share."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headrace.errors import make_error

Matrix = NDArray[np.float64]
GoldenValue = float | str | None
PACKAGES = {"xgboost": "xgboost-cpu", "sklearn": "scikit-learn"}


class GoldenRows(TypedDict):
    """`golden.json`: rows with what the training library says of them; None stands for NaN and for a missing text."""

    features: list[list[GoldenValue]]
    margins: list[list[float | None]]
    scores: list[list[float | None]]


class TensorPart(TypedDict):
    """What a model of tensors is told by, in the place of features and golden rows.

    `signature` is `{"inputs", "outputs", "batch_max"}`; `calls` are those of `golden.json`: inputs and outputs, data as
    base64 of the protocol's binary form.
    """

    signature: dict[str, Any]
    calls: list[dict[str, Any]]


@dataclass(frozen=True)
class ExportedModel:
    """A model file and what its manifest says of it.

    Attributes:
        file: the file that was written.
        format: the name by which the engine knows the file's format.
        task: `classification`, `regression`, `multi_label` or `ranking`; `tensors` or `seq2seq` of a model of tensors.
        labels: the names of the classes in the order of the scores, if the model knows them.
        features: the names of the features in the model's order, if the model knows them.
        golden: what the library says of the golden rows.
        library: the training library.
        library_version: its version.
        settings: what the format needs to be told beside the file; None where that is nothing.
        files: further files of the model: their names in the version's folder, and where they are.
        tensors: of a model of tensors, which has no features and no golden rows.
    """

    file: Path
    format: str
    task: str
    labels: tuple[str, ...] | None
    features: tuple[str, ...] | None
    golden: GoldenRows
    library: str
    library_version: str
    settings: Mapping[str, Any] | None = None
    files: tuple[tuple[str, Path], ...] = ()
    tensors: TensorPart | None = None


def library(name: str) -> ModuleType:
    """Imports a training library.

    Raises:
        HeadraceError: `unavailable`, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = PACKAGES.get(name, name)
        message = f"exporting this model needs the Python package '{package}': {error}"
        raise make_error("unavailable", message, f"pip install {package}") from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file aside in the same folder, of the same ending, that takes the place of `file` when the block ends well.

    If the block raises, an older file stays as it was.
    """
    aside = file.with_name(f".{secrets.token_hex(8)}{file.suffix}")
    try:
        yield aside
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def golden_matrix(golden: Any, features_count: int) -> Matrix:
    """The golden rows as a float64 matrix of shape (rows, features).

    Raises:
        HeadraceError: `length_mismatch` or `invalid_argument`.
    """
    rows = np.asarray(golden, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != features_count:
        message = f"golden rows have shape {rows.shape}, the model takes (1 or more, {features_count})"
        raise make_error(
            "length_mismatch", message, "give some rows of the training set, features in the model's order"
        )
    if np.isinf(rows).any():
        raise make_error("invalid_argument", "golden rows hold an infinite value", "leave such rows out")
    return rows


@dataclass(frozen=True)
class GoldenTable:
    """Golden rows of which some columns are text, or categories of a frame.

    Attributes:
        given: the rows for the training library: a frame, or an object array.
        columns: their values by column: numbers, or texts; None where one is missing.
        texts: the places of the columns that are text.
    """

    given: Any
    columns: list[list[GoldenValue]]
    texts: tuple[int, ...]

    @property
    def rows(self) -> list[list[GoldenValue]]:
        return [list(row) for row in zip(*self.columns, strict=True)]

    def with_column(self, place: int, values: list[GoldenValue]) -> GoldenTable:
        columns = [values if index == place else column for index, column in enumerate(self.columns)]
        return GoldenTable(self.given, columns, self.texts)


def golden_table(golden: Any, features_count: int, names: Sequence[str] | None) -> GoldenTable | None:
    """The golden rows, if they are a frame with columns of text or of categories, or an object array with texts.

    Args:
        golden: what the caller gave.
        features_count: the features that the model takes.
        names: what the model was trained on calls its columns; those of a frame are taken in this order.

    Raises:
        HeadraceError: `missing_column`, `length_mismatch`; `invalid_argument` for a column of numbers and
            texts, and for values that are neither.
    """
    golden = _pandas(golden)
    is_frame = _is_frame(golden)
    if is_frame:
        if names is not None:
            golden = _chosen(golden, {column: column for column in golden.columns}, names)
        series = [golden.iloc[:, place] for place in range(golden.shape[1])]
        columns = [_values(column.astype(object)) for column in series]
        has_categories = any(hasattr(column, "cat") for column in series)
    else:
        array = np.asarray(golden, dtype=object) if not hasattr(golden, "dtype") else golden
        if array.dtype.kind not in "OUT" or array.ndim != 2:
            return None
        columns = [_values(array[:, place]) for place in range(array.shape[1])]
        has_categories = False
    texts = tuple(place for place, column in enumerate(columns) if any(isinstance(value, str) for value in column))
    if not texts and not has_categories:
        return None
    if not columns or not columns[0] or len(columns) != features_count:
        shape = (len(columns[0]) if columns else 0, len(columns))
        message = f"golden rows have shape {shape}, the model takes (1 or more, {features_count})"
        raise make_error(
            "length_mismatch", message, "give some rows of the training set, features in the model's order"
        )
    for place in texts:
        odd = [value for value in columns[place] if value is not None and not isinstance(value, str)]
        if odd:
            message = f"column {place} of the golden rows holds texts, and the number {odd[0]}"
            raise make_error("invalid_argument", message, "make all values of the column texts, or all numbers")
    if is_frame:
        return GoldenTable(golden, columns, texts)
    return GoldenTable(_object_rows(columns, texts, names), columns, texts)


def are_made_up(names: Sequence[str]) -> bool:
    """Whether a library numbered features that came without names: they are in the model's order, whatever they are."""
    return all(name in (str(place), f"f{place}", f"f_{place}", f"Column_{place}") for place, name in enumerate(names))


def in_order(golden: Any, names: Sequence[str], spelled: Callable[[str], str] = str) -> Any:
    """The golden rows, a frame's columns in the order of the model's features; rows without names as they are.

    Args:
        golden: what the caller gave.
        names: what the model calls its features.
        spelled: how the model's library writes the name of a column.

    Raises:
        HeadraceError: `missing_column`.
    """
    golden = _pandas(golden)
    if not _is_frame(golden):
        return golden
    columns = {spelled(str(column)): column for column in golden.columns}
    if are_made_up(names) and not set(names) <= columns.keys():
        return golden
    return _chosen(golden, columns, names)


def _pandas(golden: Any) -> Any:
    """A frame of any library as one of pandas; anything else as it is."""
    return golden.to_pandas() if hasattr(golden, "to_pandas") else golden


def _is_frame(golden: Any) -> bool:
    return hasattr(golden, "columns") and hasattr(golden, "iloc")


def _chosen(frame: Any, columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    """A frame's columns in the order of some names; `columns` is what it calls each of them."""
    missing = [name for name in names if name not in columns]
    if missing:
        raise make_error("missing_column", f"golden rows have no column {missing[0]!r}", "give all features")
    return frame[[columns[name] for name in names]]


def _values(column: Any) -> list[GoldenValue]:
    return [_value(value) for value in column]


def _value(value: Any) -> GoldenValue:
    if isinstance(value, str):
        return str(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        message = f"golden rows hold {value!r}, which is neither a number nor a text"
        raise make_error("invalid_argument", message, "give numbers, texts and missing values") from None
    if np.isinf(number):
        raise make_error("invalid_argument", "golden rows hold an infinite value", "leave such rows out")
    return None if number != number else number


def _object_rows(columns: list[list[GoldenValue]], texts: Sequence[int], names: Sequence[str] | None) -> Any:
    """The rows for a library: a frame, if the model knows the names of its columns; a missing number is NaN."""
    numbers = [[float("nan") if value is None else value for value in column] for column in columns]
    given = [column if place in texts else numbers[place] for place, column in enumerate(columns)]
    if names is None:
        return np.array(given, dtype=object).T
    pandas = library("pandas")
    series = {name: np.array(column, dtype=object) for name, column in zip(names, given, strict=True)}
    frame = pandas.DataFrame({name: pandas.Series(values, dtype=object) for name, values in series.items()})
    return frame.astype({name: np.float64 for place, name in enumerate(names) if place not in texts})


def golden_rows(rows: Matrix | GoldenTable, margins: Any, scores: Any) -> GoldenRows:
    """Golden rows in the form of `golden.json`; one-dimensional answers become one output a row."""
    features: Any = rows.rows if isinstance(rows, GoldenTable) else _listed(rows)
    count = len(features)
    return GoldenRows(
        features=features, margins=_listed(_by_row(margins, count)), scores=_listed(_by_row(scores, count))
    )


def _by_row(values: Any, rows: int) -> Matrix:
    return np.asarray(values, dtype=np.float64).reshape(rows, -1)


def _listed(matrix: Matrix) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in matrix.tolist()]


def label_names(classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """The names of classes as the answers will show them."""
    return None if classes is None else tuple(str(label) for label in classes)
