"""`headrace apply`: the definitions become the plan in force."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, describe_diff, epilog, json_option, project_option


@click.command("apply", epilog=epilog("headrace apply", "headrace apply --project my_project --json"))
@project_option
@json_option
def command(project: Path, as_json: bool) -> None:
    """Compile the definitions and put them in force.

    The plan is named by the digest of its content. A change that would break a service or a registered model is
    refused (exit code 3), and nothing changes then. A source file that is missing, or lacks a column, is warned about.
    """
    from headrace_control.projects import open_store
    from headrace_control.source_checks import check_sources

    output = Output(as_json)
    with open_store(project) as store:
        diff = store.apply()
        warnings = check_sources(store, store.applied.json)
    for warning in warnings:
        output.warn(warning)
    values = {**diff.to_json(), "changes": bool(diff), "warnings": warnings}
    output.result(values, *describe_diff(diff, verbose=False), f"applied {diff.digest}")
