"""`headrace restore`: a backup in place."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.command(
    "restore",
    epilog=epilog(
        "headrace restore ../backups/monday --project ../flights-again",
        "headrace restore ../backups/monday --replace",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Move an existing .headrace aside, to .headrace.before-restore.")
@project_option
@json_option
def command(folder: Path, replace: bool, project: Path, as_json: bool) -> None:
    """Put the backup in FOLDER in place, after every file of it has been checked.

    The project's folder is made if need be. Settings and definitions that are there stay.
    """
    from headrace.backup import restore_backup

    output = Output(as_json)
    with output.progress("restore"):
        found = restore_backup(folder, project, replace)
    lost = [f"lost: writes that were acknowledged after {found['created_at']} (row {found['online_rows']:,})"]
    lost.append("to be put back by you: the files that sources read; then run `headrace materialize --incremental`")
    if found["erasures_after"]:
        lost.append(f"erased after the backup, and here again: see the receipts {', '.join(found['erasures_after'])}")
    keys = ("created_at", "project", "plan", "online_rows", "erasures_after")
    output.result({**{key: found[key] for key in keys}, "could_be_lost": lost}, f"restored {found['project']}", *lost)
