"""What every exporter returns, and the checks that they share."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headrace.errors import make_error

Matrix = NDArray[np.float64]
PACKAGES = {"xgboost": "xgboost-cpu", "sklearn": "scikit-learn"}


class GoldenRows(TypedDict):
    """`golden.json`: rows with what the training library says of them; None stands for NaN."""

    features: list[list[float | None]]
    margins: list[list[float | None]]
    scores: list[list[float | None]]


@dataclass(frozen=True)
class ExportedModel:
    """A model file and what its manifest says of it.

    Attributes:
        file: the file that was written.
        format: the name by which the engine knows the file's format.
        task: `classification`, `regression`, `multi_label` or `ranking`.
        labels: the names of the classes in the order of the scores, if the model knows them.
        features: the names of the features in the model's order, if the model knows them.
        golden: what the library says of the golden rows.
        library: the training library.
        library_version: its version.
        settings: what the format needs to be told beside the file; None where that is nothing.
        files: further files of the model: their names in the version's folder, and where they are.
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


def golden_rows(rows: Matrix, margins: Any, scores: Any) -> GoldenRows:
    """Golden rows in the form of `golden.json`; one-dimensional answers become one output a row."""
    return GoldenRows(
        features=_listed(rows), margins=_listed(_by_row(margins, len(rows))), scores=_listed(_by_row(scores, len(rows)))
    )


def _by_row(values: Any, rows: int) -> Matrix:
    return np.asarray(values, dtype=np.float64).reshape(rows, -1)


def _listed(matrix: Matrix) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in matrix.tolist()]


def label_names(classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """The names of classes as the answers will show them."""
    return None if classes is None else tuple(str(label) for label in classes)
