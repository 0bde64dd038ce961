"""`headrace demo`: the main job on real data, in one command."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option
from headrace_control.errors import FAILED, OK

DEFAULT_FOLDER = Path("headrace-demo")


@click.command("demo", epilog=epilog("headrace demo", "headrace demo --dir /tmp/demo --json"))
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where to make the project; one that is there from an earlier run is used again.",
)
@click.option(
    "--flights",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Held-out flights whose features are proved to be equal online and offline.",
)
@click.option(
    "--calls",
    type=click.IntRange(1),
    default=5_000,
    show_default=True,
    help="Predictions that are timed in this process, and over HTTP.",
)
@json_option
def command(folder: Path, flights: int, calls: int, as_json: bool) -> int:
    """Run the main job: from 336,776 raw flights to a served prediction.

    Defines features, trains two models, registers them, materializes the online table, serves, proves that serving sees
    what training saw, and writes one HTML report. A second run uses the data and models of the first and proves
    everything again. Exits with 1 when a proof does not hold.
    """
    from headrace_control.demo.run import results_table, run
    from headrace_control.demo.steps import Scale

    output = Output(as_json)
    results, report = run(folder, Scale(proof_flights=flights, calls=calls), output)
    path = report.resolve()
    output.result({**results.summary(), "report": str(path)}, "", results_table(results), "", f"report: {path}")
    return OK if results.proof.holds else FAILED
