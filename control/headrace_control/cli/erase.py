"""`headrace erase`: all that is kept about some keys goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace_control.cli.lazy import option_values
from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.command(
    "erase",
    epilog=epilog(
        "headrace erase plane --key tailnum=N14228 --yes", "headrace erase plane --key tailnum=N24211 --yes --json"
    ),
)
@click.argument("entity")
@click.option("--key", "pairs", multiple=True, help="NAME=VALUE of a join key; once for each join key of the entity.")
@click.option(
    "--keys", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV or Parquet file of keys."
)
@click.option("--keep-datasets", is_flag=True, help="Only list the datasets that hold the keys.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@project_option
@json_option
def command(
    entity: str,
    pairs: tuple[str, ...],
    file: Path | None,
    keep_datasets: bool,
    yes: bool,
    project: Path,
    as_json: bool,
) -> None:
    """Remove all that is kept about keys of ENTITY: online, history, refused rows, datasets.

    A receipt lists what was removed and where the keys are still held. Old rows of the keys are refused from then on,
    wherever they come from; events after the erasure are taken.
    """
    from headrace_control.projects import open_applied

    output = Output(as_json)
    if (file is None) == (not pairs):
        raise click.UsageError("give the keys by --key NAME=VALUE, or by --keys FILE")
    with open_applied(project) as store:
        keys = given_keys(store.applied.json, entity, pairs, file)
        count = len(next(iter(keys.values()), []))
        if not yes:
            click.confirm(f"Erase {count} key(s) of '{entity}' for good?", abort=True, err=True)
        receipt = store.erase(entity, keys, rewrite_datasets=not keep_datasets)
    removed = receipt["removed"]
    lines = [f"online: {table}: {rows} key(s)" for table, rows in removed["online"].items()]
    lines += [f"history: {view}: {rows} row(s)" for view, rows in removed["history"].items()]
    lines += [f"refused rows: {view}: {rows}" for view, rows in removed["dead_letters"].items()]
    lines += [
        f"dataset: {one['where']}: {one['rows']} row(s), replaced by version {one['replaced_by']}"
        for one in removed["datasets"]
    ]
    lines += [f"still held: {one['kind']}: {one['where']}" for one in receipt["still_held"]]
    output.result(receipt, *lines, f"receipt: {receipt['path']}")


def given_keys(plan: str, entity: str, pairs: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    """The keys as columns of the entity's types."""
    import json

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    definition = json.loads(plan)["entities"].get(entity, {"join_keys": []})
    dtypes = {key["name"]: key["dtype"] for key in definition["join_keys"]}
    if file is not None and file.suffix == ".parquet":
        table = pyarrow.parquet.read_table(file)
    elif file is not None:
        text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(dtypes, pa.string()))
        table = pyarrow.csv.read_csv(file, convert_options=text)
    else:
        values: dict[str, str] = {}
        option_values(values, pairs, "--key")
        table = pa.table({name: [value] for name, value in values.items()})
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        is_number = "int" in dtypes.get(name, "") or dtypes.get(name) == "bool"
        if is_number and pa.types.is_string(column.type):
            try:
                column = column.cast(dtypes[name] if dtypes[name] != "bool" else "bool")
            except pa.ArrowInvalid:
                raise click.BadParameter(f"'{name}' holds values that are not {dtypes[name]}") from None
        columns[name] = column
    return columns
