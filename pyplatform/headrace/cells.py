"""Columns of the definition's types, with the rows in which a cell cannot become its type left out and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from headrace.dtypes import DType
from headrace.errors import HeadraceError, make_error
from headrace.frames import arrow_type, cast_column
from headrace.text_files import TYPE_MISMATCH, Refuse

Cast = Callable[[pa.ChunkedArray], pa.ChunkedArray]

# What a cell of a type looks like at the least: sorts out most wrong cells at once.
_FLOAT = r"^\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|(?i:nan|inf|infinity))\s*$"
_LOOKS = {"timestamp": r"^\d{4}-\d\d-\d\d", "float32": _FLOAT, "float64": _FLOAT}
_INTEGER = r"^\s*[+-]?\w+\s*$"


def cast_rows(
    table: pa.Table, wanted: Mapping[str, tuple[str, DType]], place: str, *, from_text: bool, refuse: Refuse | None
) -> dict[str, pa.ChunkedArray]:
    """The wanted columns in their types.

    Args:
        table: the rows.
        wanted: new name -> the column's name in the table, and its type.
        place: what the table is, for messages.
        from_text: cells are text (or its bytes) of any type.
        refuse: is given rows with a cell that cannot become its type; None raises for the first one.

    Raises:
        InputError: `type_mismatch`: a column is of a type whose values are never of the wanted one, or a cell is wrong
            and `refuse` is None.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for name, (old, dtype) in wanted.items():
        column = table.column(old)
        cast = _caster(dtype, f"{place}, column '{old}'", from_text)
        try:
            columns[name] = cast(column)
        except HeadraceError:
            if refuse is None:
                raise
            cast(column.slice(0, 0))  # raises where no value of the column could be of the type
            wrong = _wrong_cells(column, cast, dtype, from_text)
            refuse(TYPE_MISMATCH, _shown(table.filter(wrong)), f"column '{old}' is not {dtype}")
            return cast_rows(table.filter(pc.invert(wrong)), wanted, place, from_text=from_text, refuse=refuse)
    return columns


def _shown(rows: pa.Table) -> pa.Table:
    """Bytes as text where they are text, for the dead letters."""
    for position, field in enumerate(rows.schema):
        if pa.types.is_binary(field.type):
            try:
                rows = rows.set_column(position, field.name, rows.column(position).cast(pa.string()))
            except pa.ArrowException:
                continue
    return rows


def _caster(dtype: DType, place: str, from_text: bool) -> Cast:
    if not from_text:
        return lambda column: cast_column(column, dtype, place)

    def cast(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if dtype.is_list and not (pa.types.is_list(column.type) or pa.types.is_null(column.type)):
            raise make_error("type_mismatch", f"{place} cannot hold {dtype} as text", "use Parquet or JSON lines")
        try:
            if pa.types.is_binary(column.type) and dtype != "bytes":
                column = column.cast(pa.string())
            if pa.types.is_string(column.type) and dtype not in ("string", "bytes", "timestamp"):
                return pc.utf8_trim_whitespace(column).cast(arrow_type(dtype))
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise make_error("type_mismatch", f"{place}: {reason}", "correct the values") from error
        return cast_column(column, dtype, place)

    return cast


def _wrong_cells(column: pa.ChunkedArray, cast: Cast, dtype: DType, from_text: bool) -> pa.Array:
    """Which rows hold a cell that cannot be cast, found by halving what fails."""
    wrong = [False] * len(column)
    looks = _LOOKS.get(dtype, _INTEGER if dtype.is_integer else None)
    if from_text and looks is not None:
        try:
            text = column.cast(pa.string())
            wrong = pc.invert(pc.fill_null(pc.match_substring_regex(text, looks), True)).to_pylist()
        except pa.ArrowException:  # not UTF-8: the halving finds where
            wrong = [False] * len(column)
    good = [row for row, flag in enumerate(wrong) if not flag]
    cells = column.take(pa.array(good, pa.int64()))
    spans = [(0, len(good))]
    while spans:
        start, stop = spans.pop()
        try:
            cast(cells.slice(start, stop - start))
        except HeadraceError:
            if stop - start == 1:
                wrong[good[start]] = True
            else:
                middle = (start + stop) // 2
                spans += [(start, middle), (middle, stop)]
    return pa.array(wrong, pa.bool_())
