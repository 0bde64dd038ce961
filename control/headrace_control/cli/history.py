"""`headrace history`: the pushed rows that are kept for training, and their way to other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.group(
    "history", epilog=epilog("headrace history show", "headrace history export gate s3://lake/gate", "headrace compact")
)
@click.option("--json", "as_json", is_flag=True, help="Given to the commands below: print one JSON object.")
def command(as_json: bool) -> None:
    """Show the history of pushed views, and export it."""


@command.command("show", epilog=epilog("headrace history show --json"))
@project_option
@json_option
def show(project: Path, as_json: bool) -> None:
    """Show how much is kept of each view, and where it was exported to."""
    from rich.table import Table

    from headrace.history import history_files, position
    from headrace.history_export import exports_of
    from headrace_control.projects import open_store

    with open_store(project) as store:
        root = store.config.state / "history"
    found = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        files = history_files(folder)
        one: dict[str, Any] = {
            "view": folder.name,
            "rows": sum(file.count_rows() for file in files),
            "files": len(files),
            "bytes": sum(file.path.stat().st_size for file in files),
            "next_push": position(folder),
            "exports": exports_of(folder),
        }
        found.append(one)
    table = Table("view", "rows", "files", "MB", "exported to", box=None, pad_edge=False)
    for one in found:
        exports = "\n".join(map(str, one["exports"]))
        table.add_row(one["view"], f"{one['rows']:,}", str(one["files"]), f"{one['bytes'] / 1e6:,.1f}", exports)
    Output(as_json).result({"views": found}, table if found else "no rows were pushed yet")


@command.command(
    "export", epilog=epilog("headrace history export gate lake/gate", "headrace history export gate s3://lake/gate")
)
@click.argument("view")
@click.argument("target")
@project_option
@json_option
def export(view: str, target: str, project: Path, as_json: bool) -> None:
    """Append what was pushed to VIEW since the last export to the Delta Lake table TARGET, each push once."""
    from headrace_control.projects import open_applied

    output = Output(as_json)
    with open_applied(project) as store, output.progress("export"):
        done = store.export_history(view, target)
    pushes = f"pushes {done.first_push} to {done.next_push - 1}" if done.rows else "nothing new"
    output.result(dataclasses.asdict(done), f"{done.rows:,} rows appended to {target} ({pushes})")
