"""`headrace features`: every feature with its owner and its users."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import UTC_TIME


@click.command("features", epilog=epilog("headrace features", "headrace features --unused", "headrace features --json"))
@click.option("--unused", is_flag=True, help="Only those that no registered model takes, with the reason.")
@click.option("--owner", help="Only those of this owner.")
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only those with this tag; may be repeated.")
@click.option("--clock", type=UTC_TIME, help="Reckon freshness from this time; the default is now.")
@project_option
@json_option
def command(
    unused: bool,
    owner: str | None,
    tags: tuple[str, ...],
    clock: datetime.datetime | None,
    project: Path,
    as_json: bool,
) -> None:
    """List the features in force: type, owner, tags, the services that give each, the models that take it.

    A feature is used too where another one that is computed from it is. Freshness is the time since the end
    of its view's last materialized interval.
    """
    from rich.table import Table

    from headrace_control.cli.status import age
    from headrace_control.projects import open_applied

    with open_applied(project, clock) as store:
        chosen = {entry.name for entry in store.search("", tags, owner) if entry.kind == "feature"}
        now_us = store.now_us()
        listed = [item for item in store.features() if f"{item.view}:{item.name}" in chosen]
    if unused:
        listed = [item for item in listed if item.unused]
    last = "unused" if unused else "fresh as of"
    table = Table("feature", "type", "owner", "tags", "services", "models", last, box=None, pad_edge=False)
    for item in listed:
        seconds = None if item.fresh_until_us is None else (now_us - item.fresh_until_us) / 1e6
        labels = ", ".join(f"{key}={value}" for key, value in item.tags.items())
        users = ", ".join(item.services), ", ".join(item.models)
        name, end = f"{item.view}:{item.name}", item.unused if unused else age(seconds)
        table.add_row(name, item.dtype + (" computed" if item.computed else ""), item.owner, labels, *users, end)
    what = "unused features" if unused else "features"
    values = {"count": len(listed), "features": [item.to_json() for item in listed]}
    Output(as_json).result(values, table, "", f"{len(listed)} {what}")
