"""`headrace bench`: measures an area beside its peers and judges its bars."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog
from headrace_control.errors import FAILED, OK

AREA_NAMES = [
    "lookup",
    "online",
    "ingest",
    "pit",
    "windows",
    "expr",
    "trees",
    "mlp",
    "shap",
    "predict",
    "serve",
    "demo",
]


@click.command(
    "bench",
    epilog=epilog(
        "headrace bench lookup --quick",
        "headrace bench trees --peers onnxruntime,xgboost --only 'xgboost-500x8/*'",
        "headrace bench shap --only 'xgboost-100x6/*'",
        "headrace bench expr --check",
        "headrace bench windows --only 6-aggregates",
        "headrace bench pit --only 'memory/*'",
        "headrace bench serve --only http-json --only 'open-*'",
        "headrace bench demo --json demo.json --plot demo.png --check",
    ),
)
@click.argument("area", type=click.Choice(AREA_NAMES))
@click.option("--json", "json_path", metavar="FILE", help="Write the results as JSON to FILE, or to stdout with '-'.")
@click.option(
    "--plot", "plot_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw a PNG."
)
@click.option("--peers", metavar="A,B", help="Measure only these peers, and always our engine and the bounds.")
@click.option(
    "--only", metavar="CASE", multiple=True, help="Measure only this CASE or CASE/ROWS; '*' matches anything."
)
@click.option("--quick", is_flag=True, help="Less data and fewer cases: a smoke test, not a figure to quote.")
@click.option("--check", is_flag=True, help="Exit with 1 when a bar does not hold.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of all data, keys and models.")
def command(
    area: str,
    json_path: str | None,
    plot_path: Path | None,
    peers: str | None,
    only: tuple[str, ...],
    quick: bool,
    check: bool,
    seed: int,
) -> int:
    """Measure our engine beside its peers: AREA is lookup, online, ingest, pit, windows, expr, trees,
    shap, predict, serve or demo.

    Each peer runs in an environment of its own, made at first use. Outputs are compared before anything is timed,
    engines take turns, and inputs differ on every call. Needs a checkout; bench/README.md says how to read the figures.
    """
    from headrace_control.bench.run import BenchOptions, run_area

    output = Output(as_json=json_path == "-")
    chosen = None if peers is None else tuple(name.strip() for name in peers.split(",") if name.strip())
    options = BenchOptions(seed=seed, quick=quick, peers=chosen, only=only, plot=plot_path)
    with output.progress(f"bench {area}") as progress:
        # Without a terminal the steps are lines of a log.
        note = (lambda text: progress(0, text)) if sys.stderr.isatty() else output.note
        report = run_area(area, options, note)
    if json_path is not None and json_path != "-":
        Path(json_path).write_text(json.dumps(report.as_json(), indent=1) + "\n")

    from headrace_control.bench.tables import tables

    output.result(report.as_json(), *tables(report))
    return FAILED if check and not report.holds else OK
