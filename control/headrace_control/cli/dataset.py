"""`headrace dataset`: training sets that are kept by name and version."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.join import scale_options
from headrace_control.cli.output import Output, epilog, json_option, project_option

if TYPE_CHECKING:
    from headrace.datasets import Split


@click.group(
    "dataset",
    epilog=epilog(
        "headrace dataset list",
        "headrace dataset create departures departure_risk data/flights.parquet --event-time read_at",
        "headrace dataset show departures --version 2",
        "headrace dataset diff departures 1 2",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Given to the commands below: print one JSON object.")
def command(as_json: bool) -> None:
    """List, show, create and compare the project's datasets."""


@command.command("list", epilog=epilog("headrace dataset list --json"))
@project_option
@json_option
def list_all(project: Path, as_json: bool) -> None:
    """List all datasets and their versions."""
    from rich.table import Table

    from headrace_control.projects import open_store

    with open_store(project) as store:
        versions = [one for name in store.datasets.names() for one in store.datasets.versions(name)]
    table = Table("dataset", "version", "rows", "created", "digest", box=None, pad_edge=False)
    for one in versions:
        table.add_row(
            one.name, str(one.version), f"{one.manifest['rows']:,}", str(one.manifest["created_at"]), one.digest
        )
    keys = ("name", "version", "rows", "parts", "created_at", "digest")
    found = [{key: one.manifest[key] for key in keys} for one in versions]
    Output(as_json).result({"datasets": found}, table if versions else "no datasets yet")


@command.command("show", epilog=epilog("headrace dataset show departures --version 2"))
@click.argument("name")
@click.option("--version", help="A number or a digest; the default is the newest.")
@project_option
@json_option
def show(name: str, version: str | None, project: Path, as_json: bool) -> None:
    """Show the query, lineage and statistics of a dataset, and check that its rows are unchanged."""
    from rich.table import Table

    from headrace_control.projects import open_store

    with open_store(project) as store:
        dataset = store.dataset(name, version)
        dataset.verify()
    manifest = dataset.manifest
    table = Table("column", "type", "nulls", "distinct", "min", "max", "mean", box=None, pad_edge=False)
    for column, figures in manifest["statistics"].items():
        shown = [str(figures.get(key, "")) for key in ("nulls", "distinct", "min", "max", "mean")]
        table.add_row(column, manifest["columns"][column], *shown)
    parts = ", ".join(f"{part} {rows:,}" for part, rows in manifest["parts"].items())
    Output(as_json).result(
        manifest,
        f"{dataset.name} version {dataset.version}: {manifest['rows']:,} rows{f' ({parts})' if parts else ''}",
        f"digest  {dataset.digest}",
        f"query   {manifest['query']}",
        f"plan    {manifest['lineage'].get('plan_digest')}",
        *(f"source  {view}: {source}" for view, source in manifest["lineage"].get("views", {}).items()),
        table,
    )


@command.command(
    "create",
    epilog=epilog(
        "headrace dataset create departures departure_risk data/flights.parquet --event-time read_at",
        "headrace dataset create d departure_risk rows.csv --hash-split tailnum --part train=0.8 --part test=0.2",
    ),
)
@click.argument("name")
@click.argument("service")
@click.argument("entities", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--event-time", default="event_timestamp", show_default=True, help="The column of each row's time.")
@click.option("--as-known-at", is_flag=True, help="Leave out what became known only after a row's time.")
@click.option("--time-split", help="Split by the times in this column; each --part names a part and its first moment.")
@click.option("--hash-split", multiple=True, help="Split by a hash of this column; each --part gives a share.")
@click.option("--part", "parts", multiple=True, help="NAME=VALUE; may be given several times.")
@scale_options
@project_option
@json_option
def create(
    name: str,
    service: str,
    entities: Path,
    event_time: str,
    as_known_at: bool,
    time_split: str | None,
    hash_split: tuple[str, ...],
    parts: tuple[str, ...],
    memory: str | None,
    on: str | None,
    project: Path,
    as_json: bool,
) -> None:
    """Join the features of SERVICE to the rows of ENTITIES (Parquet or CSV) and keep them as the dataset NAME."""
    from headrace_control.projects import open_applied

    output = Output(as_json)
    split = make_split(time_split, hash_split, parts)
    with open_applied(project) as store, output.progress("join"):
        frame = read_entities(entities)
        known = as_known_at or None
        dataset = store.create_dataset(name, service, frame, split, known, event_time, memory=memory, on=on)
    values = {key: dataset.manifest[key] for key in ("name", "version", "rows", "parts", "digest")}
    output.result(values, f"{name} version {dataset.version}: {values['rows']:,} rows, {dataset.digest}")


def read_entities(path: Path) -> Any:
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".csv":
        return pyarrow.csv.read_csv(path)
    return pyarrow.parquet.read_table(path)


def make_split(time_split: str | None, hash_split: tuple[str, ...], parts: tuple[str, ...]) -> Split | None:
    from headrace.datasets import HashSplit, TimeSplit
    from headrace_control.cli.lazy import option_values

    values: dict[str, str] = {}
    option_values(values, parts, "--part")
    try:
        if time_split is not None:
            return TimeSplit(time_split, {part: datetime.datetime.fromisoformat(at) for part, at in values.items()})
        if hash_split:
            return HashSplit(hash_split, {part: float(share) for part, share in values.items()})
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--part") from None
    return None


@command.command("diff", epilog=epilog("headrace dataset diff departures 1 2"))
@click.argument("name")
@click.argument("old")
@click.argument("new")
@project_option
@json_option
def diff(name: str, old: str, new: str, project: Path, as_json: bool) -> None:
    """Show what is different between two versions of a dataset."""
    from headrace_control.projects import open_store

    with open_store(project) as store:
        found = store.dataset(name, new).diff(store.dataset(name, old))
    lines = []
    for key, change in found.items():
        if isinstance(change, dict):
            lines += [f"{key}.{place}: {values[0]} -> {values[1]}" for place, values in change.items()]
        else:
            lines.append(f"{key}: {change[0]} -> {change[1]}")
    Output(as_json).result({"changes": found}, *(lines or ["no difference"]))
