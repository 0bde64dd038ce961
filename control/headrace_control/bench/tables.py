"""A report as tables for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from headrace_control.bench.results import Measured, Report


def tables(report: Report) -> list[str | Table]:
    """A table of medians a case, the bars, and what was not measured."""
    shown: list[str | Table] = [_case_table(report, case) for case in dict.fromkeys(one.case for one in report.results)]
    if report.bars:
        shown.append(_bar_table(report))
    for what, why in report.machine["not_measured"].items():
        shown.append(f"not measured: {what}: {why}")
    if report.machine["settings"]["quick"]:
        shown.append("quick run: a smoke test, not a figure to quote")
    return shown


def microseconds(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} s"
    if value >= 10_000:
        return f"{value / 1000:.1f} ms"
    return f"{value:.0f} us" if value >= 100 else f"{value:.2f} us"


def _case_table(report: Report, case: str) -> Table:
    results = [one for one in report.results if one.case == case]
    rows = sorted({one.rows for one in results})
    table = Table(title=f"{report.area} {case}: median time of a call, by rows (p99 in brackets)", title_justify="left")
    table.add_column("engine")
    for count in rows:
        table.add_column(f"{count:,}", justify="right")
    measured = Measured(results)
    for engine in dict.fromkeys(one.engine for one in results):
        found = [measured.find(engine, case, count) for count in rows]
        cells = [f"{microseconds(one.median_us)} ({microseconds(one.p99_us)})" if one else "" for one in found]
        table.add_row(engine, *cells)
    return table


def _bar_table(report: Report) -> Table:
    table = Table(title="bars", title_justify="left")
    for name in ("bar", "value", "target", "holds", "in calibrations of this run"):
        table.add_column(name)
    calibrated = report.machine["absolute_bars_in_calibrations"]
    for bar in report.bars:
        value = "not measured" if bar.value is None else f"{bar.value:.3g}"
        costs = ", ".join(f"{count:g} x {name}" for name, count in calibrated.get(bar.name, {}).items())
        table.add_row(bar.name, value, f"{bar.op} {bar.target:g}", "yes" if bar.holds else "NO", escape(costs))
    return table
