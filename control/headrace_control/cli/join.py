"""`headrace join`: a training set of a file of entity rows, written to Parquet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = click.Path(dir_okay=False, path_type=Path)


def on_option(work: str) -> Callable[..., Any]:
    """Where a command's work runs."""
    told = f"{work} on a Ray cluster: that of RAY_ADDRESS, or a local one."
    return click.option("--on", type=click.Choice(["ray"]), help=told)


def scale_options(command: Callable[..., object]) -> Callable[..., object]:
    """Where a join runs and what it may hold."""
    on = on_option("Join")
    memory = click.option("--memory", metavar="SIZE", help='What the join may hold, such as "2GB".')
    joined: Callable[..., object] = on(memory(command))
    return joined


@click.command(
    "join",
    epilog=epilog(
        "headrace join departure_risk data/flights.parquet rows.parquet --event-time read_at",
        "headrace join departure_risk data/flights.parquet rows.parquet --event-time read_at --memory 2GB",
    ),
)
@click.argument("service")
@click.argument("entities", type=FILE)
@click.argument("out", type=FILE)
@click.option("--event-time", default="event_timestamp", show_default=True, help="The column with each row's time.")
@click.option("--as-known-at", is_flag=True, help="Leave out what became known only after a row's time.")
@click.option("--statuses", is_flag=True, help="Add a column NAME__status for each feature.")
@scale_options
@project_option
@json_option
def command(
    service: str,
    entities: Path,
    out: Path,
    event_time: str,
    as_known_at: bool,
    statuses: bool,
    memory: str | None,
    on: str | None,
    project: Path,
    as_json: bool,
) -> None:
    """Join the features of SERVICE to the rows of the Parquet file ENTITIES, as of each row's time, into the file OUT.

    Neither file needs to fit into memory: what exceeds --memory (or offline.memory of headrace.toml) is joined in
    partitions on disk, with the same rows.
    """
    from rich.table import Table

    from headrace_control.projects import differs, open_applied

    output = Output(as_json)
    began = time.perf_counter()
    with open_applied(project) as store, output.progress(f"join {entities.name}"):
        if difference := differs(store):
            output.warn(difference)
        counts = store.write_historical_features(
            service,
            entities,
            out,
            event_ts_column=event_time,
            as_known_at=as_known_at or None,
            statuses=statuses,
            memory=memory,
            on=on,
        )
    seconds = time.perf_counter() - began
    columns = ("source_rows", "found", "not_found", "outside_max_age")
    table = Table("view", *(name.replace("_", " ") for name in columns), box=None, pad_edge=False)
    for view, seen in counts["views"].items():
        table.add_row(view, *(f"{seen[name]:,}" for name in columns))
    said = f"{counts['rows']:,} rows into {out} in {seconds:.1f} s"
    output.result({**counts, "path": str(out), "seconds": round(seconds, 3)}, table, said)
