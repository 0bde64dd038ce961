"""`headrace audit`: the audit of a server, and whether it is unbroken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option

COLUMNS = ("decision_id", "at", "subject", "action", "resource", "allowed", "rule", "reason", "evidence", "prev")


@click.group("audit", epilog=epilog("headrace audit verify access-audit.jsonl"))
@click.option("--json", "as_json", is_flag=True, help="Given to the commands below: print one JSON object.")
def command(as_json: bool) -> None:
    """Look at what a server has refused and granted."""


@command.command(
    "verify",
    epilog=epilog(
        "headrace audit verify access-audit.jsonl",
        "headrace audit verify access-audit.jsonl --head sha256:5d41...",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", help="A digest that an earlier call has printed: it must still be part of the chain.")
@json_option
@click.pass_context
def verify(context: click.Context, file: Path, head: str | None, as_json: bool) -> None:
    """Check that no row was changed, removed or put in between; the first broken one is named.

    Each row holds the digest of the one before. Rows cut off at the end leave a chain that holds: keep the digest that
    is printed at another place, and give it as --head the next time.
    """
    rows, last, fault = 0, "", None
    has_met = head is None
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            fault = fault_of(line, last)
            if fault is not None:
                fault = f"row {number}: {fault}"
                break
            rows, last = number, f"sha256:{hashlib.sha256(line[:-1]).hexdigest()}"
            has_met = has_met or last == head
    if fault is None and not has_met:
        fault = f"no row has the digest {head}: the rows up to it were cut off or replaced"
    values = {"file": str(file), "rows": rows, "head": last, "fault": fault}
    if fault is None:
        Output(as_json).result(values, f"{rows:,} rows, unbroken; the last one: {last or 'none'}")
    else:
        Output(as_json).result(values, f"broken: {fault}")
        context.exit(1)


def fault_of(line: bytes, last: str) -> str | None:
    """What is wrong with a row that follows the one with the digest `last`."""
    try:
        row = json.loads(line)
    except ValueError:
        return "it is no JSON"
    if not isinstance(row, dict) or tuple(row) != COLUMNS:
        return f"its columns are not {', '.join(COLUMNS)}"
    if not line.endswith(b"\n"):
        return "it is cut off"
    if row["prev"] != last:
        return "its digest of the row before is another: that row was changed, or one was removed or put in between"
    return None
