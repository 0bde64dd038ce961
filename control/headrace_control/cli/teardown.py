"""`headrace teardown`: nothing of a project is kept any more."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.command(
    "teardown", epilog=epilog("headrace teardown --yes --keep datasets --keep models", "headrace teardown --yes")
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--keep", multiple=True, help="A folder of .headrace that stays; may be given several times.")
@project_option
@json_option
def command(yes: bool, keep: tuple[str, ...], project: Path, as_json: bool) -> None:
    """Remove the online table, history, datasets, models and plans of a project.

    Its definitions, its headrace.toml and the files that its sources read stay.
    """
    from headrace.backup import teardown
    from headrace_control.projects import open_store

    output = Output(as_json)
    with open_store(project) as store:
        config = store.config
    found = sorted(path.name for path in config.state.glob("*") if path.name not in keep)
    if found and not yes:
        click.confirm(f"Remove {', '.join(found)} in {config.state}, for good?", abort=True, err=True)
    removed = teardown(config, keep)
    lines = [f"{name}: {size:,} bytes" for name, size in removed.items()]
    output.result({"removed": removed}, *(lines or ["nothing to remove"]))
