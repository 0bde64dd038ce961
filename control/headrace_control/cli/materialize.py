"""`headrace materialize`: rows of the sources into the online table."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import click

from headrace_control.cli.join import on_option
from headrace_control.cli.output import Output, epilog, json_option, project_option, row_rate
from headrace_control.cli.params import UTC_TIME


@click.command(
    "materialize",
    epilog=epilog("headrace materialize", "headrace materialize --view weather --end 2013-11-01T12:00:00Z"),
)
@project_option
@json_option
@click.option("--start", type=UTC_TIME, help="Leave out rows that had happened and were known before.")
@click.option(
    "--end",
    type=UTC_TIME,
    help="Leave out rows that happened or became known from then on; the default is now.",
)
@click.option("--view", "views", multiple=True, help="Only this view; may be given several times.")
@click.option("--incremental", is_flag=True, help="Start each view where its last materialization ended.")
@on_option("Read and reduce the rows")
def command(
    project: Path,
    as_json: bool,
    start: datetime.datetime | None,
    end: datetime.datetime | None,
    views: tuple[str, ...],
    incremental: bool,
    on: str | None,
) -> None:
    """Load rows of the views' sources into the online table.

    What is loaded is durable when the command ends. Loading a row twice changes nothing: the newest row of a key stays.
    A load that was interrupted goes on where it stopped if the files are the same. Refused rows are counted by reason,
    and a sample of them is kept in .headrace/dead-letter.
    """
    from rich.table import Table

    from headrace_control.projects import differs, open_applied

    if incremental and start is not None:
        raise click.UsageError("--incremental knows its own start: leave out --start")
    if start is not None and start > (end or datetime.datetime.now(datetime.UTC)):
        until = "now, where --end is not given" if end is None else f"--end {end.isoformat()}"
        raise click.UsageError(f"--start {start.isoformat()} is after {until}")
    output = Output(as_json)
    began = time.perf_counter()
    with open_applied(project, end) as store, output.progress("materialize") as progress:
        if difference := differs(store):
            output.warn(difference)

        def report(view: str, rows: int) -> None:
            progress(rows, f"{view}: {rows:,} rows, {row_rate(rows, time.perf_counter() - began):,} rows/s")

        chosen = list(views) or None
        if incremental:
            counts = store.materialize_incremental(end, chosen, report, on)
        else:
            counts = store.materialize(start, end, chosen, report, on)
    seconds = time.perf_counter() - began
    columns = ("rows", "inserted", "replaced", "stale", "refused")
    table = Table("view", *columns, box=None, pad_edge=False)
    found = {}
    for view, count in counts.items():
        found[view] = {name: getattr(count, name) for name in columns}
        refused = ", ".join(f"{reason} {rows:,}" for reason, rows in count.refused.items()) or "0"
        table.add_row(view, *(f"{getattr(count, name):,}" for name in columns[:-1]), refused)
    total = sum(count.rows for count in counts.values())
    rate = row_rate(total, seconds)
    values = {"views": found, "seconds": round(seconds, 3), "rows_per_s": rate}
    output.result(values, table, f"in {seconds:.1f} s, {rate:,} rows/s")
