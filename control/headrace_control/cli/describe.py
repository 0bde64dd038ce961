"""`headrace describe`: statistics of a view, a service or a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

if TYPE_CHECKING:
    from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
TOP_SHOWN = 4
TEXT_MAX = 24
EXAMPLES = epilog(
    "headrace describe weather", "headrace describe departure_risk --json", "headrace describe data/weather.parquet"
)


@click.command("describe", epilog=EXAMPLES)
@click.argument("name")
@project_option
@json_option
def command(name: str, project: Path, as_json: bool) -> None:
    """Show statistics of NAME: a view or a service of the project, or a Parquet, CSV or JSON lines file.

    Those of a view are gathered when rows are written (push, materialize). Quantiles are within 1/128 of their value;
    distinct counts are exact up to 512, then within 1.6 %. Of strings and lists, the numbers are lengths.
    """
    path = Path(name)
    values = describe_file(path) if path.is_file() else describe_name(project, name)
    rows = values["rows"]
    counted = ", ".join(f"{view} {count:,}" for view, count in rows.items()) if isinstance(rows, dict) else f"{rows:,}"
    lines = [f"{values['kind']} {values['name']}", f"rows: {counted or 'none'}"]
    if values.get("rows_missed"):
        lines.append(
            f"{values['rows_missed']:,} rows of this project were written by a process that was killed: not counted"
        )
    Output(as_json).result(values, *lines, "", table_of(values["columns"]))


def describe_name(project: Path, name: str) -> dict[str, Any]:
    from headrace_control.projects import open_applied

    with open_applied(project) as store:
        return store.describe(name)


def describe_file(path: Path) -> dict[str, Any]:
    """The statistics of a file, read in batches.

    Raises:
        ControlError: `invalid_argument`, its ending is not known.
        headrace.HeadraceError: a column cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    from headrace.statistics import describe_frame
    from headrace_control.errors import ControlError

    formats = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".ndjson": "json"}
    file_format = formats.get(path.suffix)
    if file_format is None:
        raise ControlError("invalid_argument", f"{path} has no known ending", f"use one of {', '.join(formats)}")
    try:
        batches = ds.dataset(str(path), format=file_format).to_batches()
        return {"name": str(path), "kind": "file", **describe_frame(batches)}
    except pa.ArrowException as error:
        raise ControlError("io", f"{path} cannot be read: {error}", "check that it is what its ending says") from error


def table_of(columns: dict[str, Any]) -> Table:
    from rich.table import Table

    heads = (
        "column",
        "type",
        "null",
        "nan",
        "distinct",
        "min",
        "median",
        "mean",
        "max",
        "distribution",
        "most frequent",
    )
    table = Table(*heads, box=None, pad_edge=False)
    for name, found in columns.items():
        if found is None:
            table.add_row(name, "computed")
            continue
        rows = found["rows"]
        distinct = (
            "" if found["distinct"] is None else ("" if found["distinct_is_exact"] else "~") + f"{found['distinct']:,}"
        )
        shares = (share(found["nulls"], rows), share(found["nans"], rows))
        numbers = [found["min"], found["quantiles"]["p50"], found["mean"], found["max"]]
        shown = [number(value, found["measures"]) for value in numbers]
        table.add_row(
            name, found["dtype"] or "other", *shares, distinct, *shown, bars(found["histogram"]), frequent(found)
        )
    return table


def share(count: int, rows: int) -> str:
    return "" if not count else f"{100 * count / max(rows, 1):.2g}%"


def number(value: float | str | None, measures: str) -> str:
    """At most four digits that matter; a time as one."""
    if value is None or isinstance(value, str):
        return value or ""
    if measures == "time_us":
        from headrace_control.projects import from_us

        try:
            return from_us(round(value)).strftime("%Y-%m-%d %H:%M")
        except OverflowError:
            return f"{value:.4g}"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4g}"


def bars(histogram: dict[str, Any] | None) -> str:
    """A bar for each part of the range; the square root of the counts, so that small ones are seen."""
    if histogram is None or not max(histogram["counts"]):
        return ""
    highest = math.sqrt(max(histogram["counts"]))
    top = len(BARS) - 1
    return "".join(" " if not count else BARS[round(top * math.sqrt(count) / highest)] for count in histogram["counts"])


def frequent(found: dict[str, Any]) -> str:
    """The most frequent values of a column that does not have many different ones."""
    listed = [item for item in found["top"] or () if item["count"] * 100 >= found["rows"]][:TOP_SHOWN]

    def text(value: Any) -> str:
        is_time = found["measures"] == "time_us"
        return number(value, "time_us") if is_time else str(value)[:TEXT_MAX]

    return ", ".join(f"{text(item['value'])} {share(item['count'], found['rows'])}" for item in listed)
