"""Rows of a file as the matrices that a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from headrace import Model
from headrace.errors import HeadraceError, make_error
from headrace_control.errors import ControlError

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".ndjson": "json"}


class RowFile:
    """A Parquet, CSV or JSON lines file with a column for each feature of a model; other columns are left alone."""

    def __init__(self, path: Path, features: Sequence[str], model: Model | None = None) -> None:
        """Opens the file and checks its columns, without reading rows.

        Args:
            path: the file.
            features: the names of the model's features, in its order.
            model: knows the features that may be texts, and their codes; without one, all are numbers.

        Raises:
            ControlError: `invalid_argument` (ending), `io`, `missing_column` naming the first that are missing.
        """
        file_format = FORMATS.get(path.suffix)
        if file_format is None:
            raise ControlError("invalid_argument", f"{path} has no known ending", f"use one of {', '.join(FORMATS)}")
        self.path = path
        self.features = list(features)
        self.model = model
        self.texts = set() if model is None else {self.features[place] for place in model.text_features}
        try:
            self.dataset = ds.dataset(str(path), format=file_format)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        missing = [name for name in features if name not in self.dataset.schema.names]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ControlError(
                "missing_column",
                f"{path} has no column {', '.join(missing[:5])}{more}",
                "give a column for each feature of the model",
            )

    def rows(self) -> int:
        try:
            return int(self.dataset.count_rows())
        except pa.ArrowException as error:
            raise _unreadable(self.path, error) from error

    def matrices(self, rows_max: int) -> Iterator[NDArray[np.float64]]:
        """The rows in order, float64, in pieces of at most `rows_max`; a null is NaN, a text its code.

        Raises:
            ControlError: `io`; `type_mismatch` naming a column that holds no numbers.
            headrace.HeadraceError: `invalid_argument` naming a text that is no category of the model.
        """
        try:
            done = 0
            for batch in self.dataset.to_batches(columns=self.features, batch_size=rows_max):
                if batch.num_rows and self.texts and self.model is not None:
                    columns = {name: self._values(name, batch[name]) for name in self.features}
                    yield self._encoded(self.model, pa.table(columns), done)
                    done += batch.num_rows
                elif batch.num_rows:
                    yield np.column_stack([_numbers(self.path, name, batch[name]) for name in self.features])
        except pa.ArrowException as error:
            raise _unreadable(self.path, error) from error

    def first(self, count: int) -> Any:
        """The first rows, as an exporter takes golden rows: a matrix, or a frame where some columns hold texts.

        Raises:
            ControlError: `io`; `type_mismatch` naming a column that holds neither numbers nor texts.
        """
        try:
            table = self.dataset.head(count, columns=self.features)
        except pa.ArrowException as error:
            raise _unreadable(self.path, error) from error
        columns = [(name, table[name]) for name in self.features]
        if not any(_is_text(column.type) for _, column in columns):
            return np.column_stack([_numbers(self.path, name, column) for name, column in columns])
        numbers = {name: _numbers(self.path, name, column) for name, column in columns if not _is_text(column.type)}
        frame = table.to_pandas()
        return frame.assign(**numbers)

    def _encoded(self, model: Model, rows: pa.Table, first: int) -> NDArray[np.float64]:
        """Rows as the model computes with them; what is wrong is told by its row in the file."""
        try:
            encoded: NDArray[np.float64] = model.encode(rows)
        except HeadraceError as error:
            place = f"{self.path}, in the {len(rows):,} rows from row {first:,} on"
            raise make_error(error.code, f"{place}: {error.message}", error.hint) from error
        return encoded

    def _values(self, name: str, column: Any) -> Any:
        is_text = name in self.texts and not _is_number(column.type)
        return column if is_text else pa.array(_numbers(self.path, name, column), from_pandas=True)


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


def _numbers(path: Path, name: str, column: Any) -> NDArray[np.float64]:
    kind = column.type
    if not _is_number(kind):
        raise ControlError(
            "type_mismatch", f"column '{name}' of {path} holds {kind}, not numbers", "encode it as the training did"
        )
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def _unreadable(path: Path, error: Exception) -> ControlError:
    return ControlError("io", f"{path} cannot be read: {error}", "check that it is what its ending says")
