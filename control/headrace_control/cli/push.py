"""`headrace push`: the rows of a file to a view."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option, row_rate

if TYPE_CHECKING:
    from headrace.definitions import FileFormat


@click.command(
    "push",
    epilog=epilog(
        "headrace push weather data/weather.parquet",
        "headrace push weather 's3://bucket/weather/2013-*.parquet' --json",
    ),
)
@click.argument("view")
@click.argument("file")
@project_option
@json_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["parquet", "csv", "jsonl", "delta"]),
    help="The file's format; by default its name tells.",
)
def command(view: str, file: str, project: Path, as_json: bool, file_format: str | None) -> None:
    """Write the rows of FILE (a path, a glob or a URL) to VIEW.

    Each batch of rows is durable once it is counted. Rows of a view with a PushSource are kept for training too. A row
    that cannot be taken is counted by reason, and a sample is kept in .headrace/dead-letter.
    """
    from headrace_control.projects import open_applied

    output = Output(as_json)
    began = time.perf_counter()
    with open_applied(project) as store, output.progress("push") as progress:

        def report(name: str, rows: int) -> None:
            progress(rows, f"{name}: {rows:,} rows, {row_rate(rows, time.perf_counter() - began):,} rows/s")

        counts = store.push_file(view, file, cast("FileFormat | None", file_format), report)
    seconds = time.perf_counter() - began
    rate = row_rate(counts.rows, seconds)
    refused = ", ".join(f"{reason} {rows:,}" for reason, rows in counts.refused.items())
    output.result(
        {"view": view, **dataclasses.asdict(counts), "seconds": round(seconds, 3), "rows_per_s": rate},
        f"{counts.rows:,} rows in {seconds:.1f} s, {rate:,} rows/s",
        *([f"refused: {refused}"] if refused else []),
    )
