"""`headrace verify`: proofs about what was served."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import SECONDS, UTC_TIME

if TYPE_CHECKING:
    from rich.table import Table

TEXT_MAX = 60
EXAMPLES = epilog(
    "headrace verify consistency",
    "headrace verify consistency --deployment departure_risk_lightgbm --since 2013-11-01T00:00:00Z --lag 10m",
    "headrace verify consistency --json --plot consistency.png",
)


@click.group("verify", epilog=EXAMPLES)
def command() -> None:
    """Prove what was served."""


@command.command("consistency", epilog=EXAMPLES)
@click.option("--deployment", help="Only this model's or feature service's lookups.")
@click.option("--since", type=UTC_TIME, help="Only lookups from this time on.")
@click.option("--until", type=UTC_TIME, help="Only lookups before this time.")
@click.option("--lag", type=SECONDS, default="5s", show_default=True, help="How late online may be: 500ms, 5s, 2m, 1h.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this PNG file.")
@project_option
@json_option
def consistency(
    deployment: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    lag: datetime.timedelta,
    plot: Path | None,
    project: Path,
    as_json: bool,
) -> None:
    """Recompute served lookups offline and compare them, value by value: does online equal offline?

    It reads the payload log ([payload] sample in headrace.toml switches it on) and recomputes each lookup as of its
    time, from what was known then. Exits with 0 when all values agree, 1 when any differs, 4 when there is nothing to
    compare. A value that was right at most --lag before counts as late, not as wrong.
    """
    from headrace_control.errors import FAILED, ControlError, require
    from headrace_control.projects import open_applied

    if plot is not None:
        require("matplotlib", "matplotlib", "--plot")
    output = Output(as_json)
    with open_applied(project) as store, output.progress("recomputing"):
        report = store.verify_consistency(deployment, since, until, lag)
    if not report.rows:
        reasons = "".join(f"; {count:,} skipped: {reason}" for reason, count in report.skipped.items())
        raise ControlError(
            "missing_data",
            f"there are no lookups to verify in {store.config.state / 'payload'}{reasons}",
            "set sample in [payload] of headrace.toml and serve; --deployment, --since and --until may leave them out",
        )
    values = report.to_json()
    if plot is not None:
        from headrace_control.consistency_plot import draw

        draw(values, plot)
    lines = [f"{report.rows:,} lookups recomputed"]
    lines += [f"{count:,} skipped: {reason}" for reason, count in report.skipped.items()]
    output.result(values, *lines, "", table_of(values["features"]), "", *examples(values["features"]))
    if not report.is_consistent:
        raise click.exceptions.Exit(FAILED)


def table_of(features: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("deployment", "feature"):
        table.add_column(name)
    for name in ("values", "mismatched", "missing", "extra", "late", "largest difference", "lag median", "lag max"):
        table.add_column(name, justify="right")
    for one in features:
        counts = [f"{one[name]:,}" for name in ("count", "mismatched", "missing", "extra", "late")]
        difference = "" if one["largest_difference"] is None else f"{one['largest_difference']:.3g}"
        lag = one["lag_seconds"]
        lags = ["", ""] if lag is None else [duration(lag["median"]), duration(lag["max"])]
        table.add_row(one["deployment"], one["feature"], *counts, difference, *lags)
    return table


def examples(features: list[dict[str, Any]]) -> list[str]:
    """A few differences of each feature that has some."""
    lines = []
    for one in features:
        for example in one["examples"]:
            keys = ", ".join(f"{name}={shortened(value)}" for name, value in example["keys"].items())
            sides = [
                f"{side} {shortened(example[side])} ({example[f'{side}_status']})".replace(" (None)", "")
                for side in ("served", "recomputed")
            ]
            lag = example["lag_seconds"]
            why = "no earlier state explains it" if lag is None else f"online was {duration(lag)} behind"
            lines.append(f"{one['feature']} of {keys} at {example['at']}: {', '.join(sides)}; {why}")
    return lines


def shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}.."


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else str(datetime.timedelta(seconds=round(seconds)))
