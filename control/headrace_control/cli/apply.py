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
    refused (exit code 3), and nothing changes then.
    """
    from headrace_control.projects import open_store

    with open_store(project) as store:
        diff = store.apply()
    values = {**diff.to_json(), "changes": bool(diff)}
    Output(as_json).result(values, *describe_diff(diff, verbose=False), f"applied {diff.digest}")
