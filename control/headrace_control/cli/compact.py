"""`headrace compact`: fewer files in the history, and nothing older than it shall keep."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.command("compact", epilog=epilog("headrace compact", "headrace compact --view weather --json"))
@project_option
@json_option
@click.option("--view", "views", multiple=True, help="Only this view; may be given several times.")
def command(project: Path, as_json: bool, views: tuple[str, ...]) -> None:
    """Join the small files of pushed rows, and shorten the log of the online table.

    With history.retention_days in headrace.toml, rows with an older event time are removed, unless a registered dataset
    was made of them.
    """
    from rich.table import Table

    from headrace_control.projects import open_applied

    output = Output(as_json)
    with open_applied(project) as store, output.progress("compact"):
        done = store.compact(list(views) or None)
    table = Table("view", "files before", "files after", "rows removed", box=None, pad_edge=False)
    for name, one in done.items():
        table.add_row(name, f"{one.files_before:,}", f"{one.files_after:,}", f"{one.rows_removed:,}")
    output.result({"views": {name: dataclasses.asdict(one) for name, one in done.items()}}, table)
