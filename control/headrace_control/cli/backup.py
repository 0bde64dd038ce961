"""`headrace backup`: all that headrace keeps of a project, in a folder."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

NOT_IN_IT = "not in it: writes that are acknowledged from now on, and the files that sources read"


@click.command("backup", epilog=epilog("headrace backup ../backups/monday"))
@click.argument("folder", type=click.Path(path_type=Path))
@project_option
@json_option
def command(folder: Path, project: Path, as_json: bool) -> None:
    """Write definitions, online table, history, models and datasets to the new FOLDER, at one moment.

    A writer and servers may go on meanwhile.
    """
    from headrace_control.projects import open_applied

    output = Output(as_json)
    with open_applied(project) as store, output.progress("backup"):
        made = store.backup(folder)
    size = sum(file["bytes"] for file in made["files"].values())
    files, rows = len(made["files"]), made["online_rows"]
    values = {key: made[key] for key in ("created_at", "project", "plan", "online_rows")}
    output.result(
        {**values, "folder": str(folder), "files": files, "bytes": size, "could_be_lost": NOT_IN_IT},
        f"{files:,} files, {size:,} bytes, {rows:,} rows accepted until {made['created_at']}",
        NOT_IN_IT,
    )
