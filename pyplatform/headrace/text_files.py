"""CSV and JSON lines, block by block, with the lines that are none left out and reported.

Cells become bytes (CSV) or values of the definition's types (JSON lines); a cell that cannot become its type is its
row's trouble, never the file's. Memory is bounded by blocks of about 1 MiB.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv
from pyarrow import json as arrow_json

from headrace.dtypes import DType
from headrace.errors import make_error
from headrace.frames import arrow_type

Refuse = Callable[[str, "pa.Table | Sequence[str]", str], None]
"""Called with a reason, the rows (a table, or lines of text) that are left out for it, and details."""

MALFORMED = "malformed"
TYPE_MISMATCH = "type_mismatch"
BLOCK_BYTES = 1 << 20
LINE_BYTES_MAX = 64 << 20
_CSV_NULLS = ["", "NA", "N/A", "NULL", "null"]  # without quotes; NaN is a number
_INTEGER_RANGES = {
    f"{sign}int{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def open_text(file: IO[bytes], path: str) -> IO[bytes]:
    """The file's text, unpacked where its name ends in `.gz`."""
    return gzip.open(file) if path.endswith(".gz") else file  # type: ignore[return-value]


def csv_columns(file: IO[bytes]) -> list[str]:
    """The names in a CSV file's header."""
    head = file.readline(LINE_BYTES_MAX)
    while head.count(b'"') % 2 and (more := file.readline(LINE_BYTES_MAX)):
        head += more
    return list(csv.read_csv(io.BytesIO(head)).column_names)


def read_csv(file: IO[bytes], names: Sequence[str], refuse: Refuse) -> Iterator[pa.Table]:
    """Some columns of a CSV file as raw bytes; what is empty, NA, N/A, NULL or null without quotes is null.

    Rows with too many or too few cells are refused as `malformed`.
    """

    def skip(row: Any) -> str:
        refuse(MALFORMED, [row.text or ""], f"{row.actual_columns} cells in place of {row.expected_columns}")
        return "skip"

    reader = csv.open_csv(
        file,
        read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()),
            include_columns=list(names),
            null_values=_CSV_NULLS,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])


def blocks_of_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, about 1 MiB at a time.

    Raises:
        InputError: `too_large`, a line is longer than 64 MiB.
    """
    rest = b""
    while chunk := file.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
            continue
        rest += chunk
        if len(rest) > LINE_BYTES_MAX:
            raise make_error("too_large", "a line is longer than 64 MiB", "write one JSON object a line")
    if rest:
        yield rest


def json_columns(file: IO[bytes], lines_max: int = 10_000) -> list[str] | None:
    """The names that occur in the first lines; None where there is no object."""
    names: dict[str, None] = {}
    is_empty = True
    for block in blocks_of_lines(file):
        for line in block.splitlines()[:lines_max]:
            row = _object(line)
            if row is not None:
                is_empty = False
                names |= dict.fromkeys(row)
        break
    return None if is_empty else list(names)


def read_json_lines(file: IO[bytes], dtypes: Mapping[str, DType], refuse: Refuse) -> Iterator[pa.Table]:
    """Some columns of a JSON lines file, timestamps as text.

    Lines that are no object are refused as `malformed`, values of another type as `type_mismatch`.
    """
    types = {name: pa.string() if dtype == "timestamp" else arrow_type(dtype) for name, dtype in dtypes.items()}
    parse = arrow_json.ParseOptions(explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore")
    for block in blocks_of_lines(file):
        if not block.strip():
            continue
        options = arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1)
        try:
            yield arrow_json.read_json(pa.BufferReader(block), read_options=options, parse_options=parse)
        except pa.ArrowException:  # some line is wrong: find it
            yield _read_lines(block, dtypes, types, refuse)


def _read_lines(
    block: bytes, dtypes: Mapping[str, DType], types: Mapping[str, pa.DataType], refuse: Refuse
) -> pa.Table:
    rows = []
    for line in block.splitlines():
        row = _object(line)
        if row is None:
            if line.strip():
                refuse(MALFORMED, [line.decode("utf-8", "replace")], "not a JSON object")
            continue
        wrong = [name for name, dtype in dtypes.items() if not _fits(row.get(name), dtype)]
        if wrong:
            detail = ", ".join(f"column '{name}' is not {dtypes[name]}" for name in wrong)
            refuse(TYPE_MISMATCH, [line.decode("utf-8", "replace")], detail)
            continue
        rows.append(row)
    columns = {name: pa.array([_value(row.get(name), dtypes[name]) for row in rows], types[name]) for name in dtypes}
    return pa.table(columns)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _fits(value: Any, dtype: DType) -> bool:
    if value is None:
        return True
    if dtype.is_list:
        return isinstance(value, list) and all(_fits(item, dtype.element) for item in value)
    if dtype == "bool" or isinstance(value, bool):
        return dtype == "bool" and isinstance(value, bool)
    if dtype.is_integer:
        low, high = _INTEGER_RANGES[dtype]
        return (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and low <= value <= high
    if dtype.is_float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) <= 2**1023)
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _value(value: Any, dtype: DType) -> Any:
    if value is None:
        return None
    if dtype.is_list:
        return [_value(item, dtype.element) for item in value]
    if dtype.is_integer:
        return int(value)
    if dtype.is_float:
        return float(value)
    return value.encode() if dtype == "bytes" else value
