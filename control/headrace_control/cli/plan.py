"""`headrace plan`: what `apply` would change."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, describe_diff, epilog, json_option, project_option
from headrace_control.errors import FAILED, OK, REFUSED


@click.command("plan", epilog=epilog("headrace plan", "headrace plan --check   # for scripts: 1 changes, 3 refused"))
@project_option
@json_option
@click.option("--check", is_flag=True, help="Exit with 1 if apply would change something, 3 if it would refuse.")
@click.option("--verbose", "-v", is_flag=True, help="Show every field and expression of what is new.")
def command(project: Path, as_json: bool, check: bool, verbose: bool) -> int:
    """Compile the definitions and print what apply would change.

    Nothing is written. A change that would break a service or a registered model is listed with the names of both. A
    source file that is missing, or lacks a column, is warned about.
    """
    from headrace_control.projects import open_store
    from headrace_control.source_checks import check_sources

    output = Output(as_json)
    with open_store(project) as store:
        diff = store.plan()
        warnings = check_sources(store, store.project.compile().json)
    for warning in warnings:
        output.warn(warning)
    values = {**diff.to_json(), "changes": bool(diff), "warnings": warnings}
    end = ["apply would refuse this: it breaks what is in use"] if diff.breaking else []
    output.result(values, *describe_diff(diff, verbose), f"plan {diff.digest}", *end)
    if not check:
        return OK
    return REFUSED if diff.breaking else FAILED if diff else OK
