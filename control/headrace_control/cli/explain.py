"""`headrace explain`: what each feature adds to the margins of a file of rows."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option, row_rate

SHOWN_FEATURES = 10
EXAMPLES = epilog(
    "headrace join departure_risk data/flights.parquet rows.parquet --event-time read_at",
    "headrace explain departure_risk_xgboost --input rows.parquet --output contributions.parquet",
    "headrace explain departure_risk_xgboost/1 --input rows.parquet --plot summary.png",
    "headrace explain .headrace/models/departure_risk_xgboost/1 --input rows.parquet --plot summary.png --json",
)


@click.command("explain", epilog=EXAMPLES)
@click.argument("model")
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parquet, CSV or JSON lines with a column for each feature.",
)
@click.option("--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file to write.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the features that count most (PNG)."
)
@click.option("--threads", type=click.IntRange(1), help="At most so many; the default is one for each core.")
@project_option
@json_option
def command(
    model: str,
    source: Path,
    target: Path | None,
    plot: Path | None,
    threads: int | None,
    project: Path,
    as_json: bool,
) -> None:
    """Write what each feature adds to the margins of a file of rows.

    MODEL is NAME or NAME/VERSION of the project, a version's folder, or a model file, whose features are f0, f1, ...

    Contributions are Shapley values (TreeSHAP, weighted by the training rows) for tree ensembles, and weight times
    feature for linear models. With the expected margin (__expected) they sum to the margin of the row (__margin).
    """
    import time

    from headrace_control.errors import require
    from headrace_control.explanations import draw, explain_file
    from headrace_control.named_models import open_model

    if target is None and plot is None:
        raise click.UsageError("give --output, --plot, or both")
    if plot is not None:
        require("matplotlib", "matplotlib", "--plot")
    output = Output(as_json)
    named = open_model(project, model)
    started = time.perf_counter()
    with output.progress(f"explain {source.name}") as progress:
        summary = explain_file(named, source, target, threads, progress)
    seconds = time.perf_counter() - started
    if plot is not None:
        draw(summary, f"{named.name}: what features add to the margin, {summary.rows:,} rows", plot)
    ranking = summary.ranking()
    values = {
        "model": named.name,
        "rows": summary.rows,
        "outputs": list(summary.outputs),
        "output": None if target is None else str(target),
        "plot": None if plot is None else str(plot),
        "expected": dict(zip(summary.outputs, summary.expected.tolist(), strict=True)),
        "mean_magnitude": dict(ranking),
        "seconds": seconds,
        "rows_per_s": row_rate(summary.rows, seconds),
    }
    width = max(len(name) for name, _ in ranking[:SHOWN_FEATURES])
    shown = [f"  {name.ljust(width)}  {value:.4g}" for name, value in ranking[:SHOWN_FEATURES]]
    written = [f"wrote {path}" for path in (target, plot) if path is not None]
    rate = f"{summary.rows:,} rows in {seconds:.1f} s"
    output.result(values, f"{named.name}: {rate}; mean magnitude of the contributions", *shown, *written)
