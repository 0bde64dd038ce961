"""`headrace search`: find entities, views, features, services and models by words."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

EXAMPLES = epilog("headrace search delay", "headrace search wind --kind feature", "headrace search --tag tier=gold")
DETAILS_MAX = 80
KINDS = ("entity", "view", "on_demand_view", "feature", "service", "model")


@click.command("search", epilog=EXAMPLES)
@click.argument("words", nargs=-1, metavar="[TEXT]...")
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only what has this tag; may be repeated.")
@click.option("--owner", help="Only what is this owner's.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only this kind; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most so many.")
@project_option
@json_option
def command(
    words: tuple[str, ...],
    tags: tuple[str, ...],
    owner: str | None,
    kinds: tuple[str, ...],
    limit: int,
    project: Path,
    as_json: bool,
) -> None:
    """Find definitions in the plan in force, and registered models, by words in any order.

    Names count more than tags and owners, those more than descriptions; a part of a word is enough.
    """
    from rich.table import Table

    from headrace_control.projects import open_applied

    with open_applied(project) as store:
        found = [entry for entry in store.search(" ".join(words), tags, owner) if not kinds or entry.kind in kinds]
    table = Table("kind", "name", "owner", "tags", "what it is", box=None, pad_edge=False)
    for entry in found[:limit]:
        labels = ", ".join(f"{key}={value}" for key, value in entry.tags.items())
        about = " ".join(part for part in (entry.description, shorten(entry.details, DETAILS_MAX)) if part)
        table.add_row(entry.kind.replace("_", "-"), entry.name, entry.owner, labels, about)
    more = f"{len(found)} found" + (f", the best {limit} shown" if len(found) > limit else "")
    values = {"count": len(found), "results": [entry.to_json() for entry in found[:limit]]}
    Output(as_json).result(values, table, "", more)
