"""Runs the steps one after the other and shows what they found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headrace_control.cli.output import Output
from headrace_control.demo import steps
from headrace_control.demo.report import write_report
from headrace_control.demo.results import Results
from headrace_control.errors import require
from headrace_control.training.run import baseline_scores

if TYPE_CHECKING:
    from rich.table import Table

Step = TypeVar("Step")
REPORT = "report.html"


def run(folder: Path, scale: steps.Scale, output: Output) -> tuple[Results, Path]:
    """Defines, trains, registers, materializes, serves and proves; gives the results and the path of their report.

    Raises:
        ControlError, headrace.HeadraceError: a step failed; the ones before it need not be done again.
    """
    start = time.perf_counter()
    require("matplotlib", "matplotlib", "the demo's report")

    def step(name: str, work: Callable[[], Step], say: Callable[[Step], str]) -> Step:
        began = time.perf_counter()
        found = work()
        output.note(f"  {name.ljust(12)} {time.perf_counter() - began:5.1f} s   {say(found)}")
        return found

    output.note(f"headrace demo in {folder.resolve()}")
    data = step("define", lambda: steps.define(folder, output), lambda it: f"plan {it.plan_digest[:19]}")
    trained = step(
        "train",
        lambda: steps.train_all(folder, output),
        lambda it: (
            f"{it.data.joined_rows:,} flights joined in {it.data.join_seconds:.2f} s"
            + (", models unchanged" if all(model.reused for model in it.models) else "")
        ),
    )
    online = step(
        "materialize",
        lambda: steps.materialize(folder, output),
        lambda it: f"{sum(it.rows.values()):,} rows of {sum(it.keys.values()):,} keys, found again by a new process",
    )
    best = max(trained.models, key=lambda model: model.auc_validate)
    served = step(
        "serve",
        lambda: steps.serve(folder, best.name, trained, scale, output),
        lambda it: f"{it.same_answers} of {it.same_answers} answers the same over HTTP",
    )
    proof = step(
        "prove",
        lambda: steps.prove_all(folder, trained, scale, output),
        lambda it: f"{it.differing_values} of {it.values:,} values differ",
    )
    test_rows = trained.rows.rows("test")
    scores = baseline_scores(trained.rows)
    assert scores is not None, "the example's dataset names a baseline"
    results = Results(
        project=folder,
        data=data,
        training=trained.data,
        baselines=trained.baselines,
        models=trained.models,
        test_labels=trained.rows.labels[test_rows] > 0,
        baseline_scores=scores,
        materialized=online,
        served=served,
        proof=proof,
        seconds=time.perf_counter() - start,
    )
    report = step("show", lambda: write_report(results, folder / REPORT), lambda _: "report written")
    return results, report


def results_table(results: Results) -> Table:
    """The short form of the results."""
    from rich.table import Table

    table = Table("", "", box=None, pad_edge=False, show_header=False)
    data, online, served, proof = results.data, results.materialized, results.served, results.proof
    table.add_row("source rows", ", ".join(f"{name} {rows:,}" for name, rows in data.rows.items()))
    table.add_row(
        "training set",
        f"{results.training.joined_rows:,} flights x {results.training.features} features of {results.training.views} "
        f"views, joined in {results.training.join_seconds:.2f} s",
    )
    for model in results.models:
        table.add_row(
            f"AUC {model.library}", f"{model.auc:.4f} on held-out months ({model.auc_validate:.4f} validation)"
        )
    for name, auc in results.baselines.items():
        table.add_row(f"AUC {name}", f"{auc:.4f}")
    table.add_row(
        "online table",
        f"{sum(online.rows.values()):,} rows in {online.seconds:.1f} s; a new process found all "
        f"{sum(online.keys.values()):,} keys in {online.reopened_seconds:.1f} s",
    )
    for name, latency in (
        ("embedded", served.embedded),
        ("HTTP", served.http),
        ("HTTP, inference protocol", served.inference),
    ):
        table.add_row(name, f"p50 {latency.p50_us:.1f} us, p99 {latency.p99_us:.1f} us, one flight with lookup")
    table.add_row("throughput", f"{served.requests_per_s:,.0f} requests/s over {served.connections} connections")
    table.add_row(
        "online = offline",
        f"{proof.differing_values} of {proof.values:,} values differ, {proof.differing_statuses} statuses "
        f"({proof.flights:,} flights, {proof.events:,} events)",
    )
    for one in proof.models:
        held = "within the bound" if one.holds else "OUT OF BOUNDS"
        table.add_row(
            f"engine = {one.model}",
            f"largest difference {one.largest_difference:.3g}; margins {one.margin_ulp} ulp (bound "
            f"{one.margin_ulp_bound}), scores {one.score_ulp} ulp (bound {one.score_ulp_bound}): {held}",
        )
    table.add_row("in all", f"{results.seconds:.1f} s")
    return table
