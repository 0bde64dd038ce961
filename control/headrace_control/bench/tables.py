"""A report as tables for people."""

from __future__ import annotations

from rich.table import Table

from headrace_control.bench.results import Measured, Report


def tables(report: Report) -> list[str | Table]:
    """A table of medians a case, the bars, and what was not measured."""
    cases = list(dict.fromkeys(one.case for one in report.results))
    shown: list[str | Table] = []
    if report.area == "serve" or len(cases) == len(report.results):
        shown.append(_plain_table(report))
    else:
        shown.extend(_case_table(report, case) for case in cases)
    if report.bars:
        shown.append(_bar_table(report))
    for name, costs in report.machine["absolute_bars_in_calibrations"].items():
        shown.append(f"{name} is {', '.join(f'{count:g} x {cost}' for cost, count in costs.items())}")
    for what, why in report.machine["not_measured"].items():
        shown.append(f"not measured: {what}: {why}")
    if report.machine["settings"]["quick"]:
        shown.append("quick run: a smoke test, not a figure to quote")
    return shown


def microseconds(value: float) -> str:
    """Three significant digits, or whole microseconds."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain_table(report: Report) -> Table:
    """One line a result, where each case was measured once, or each has other engines."""
    table = Table(title=f"{report.area}: microseconds a call", title_justify="left")
    table.add_column("case", no_wrap=True)
    has_peers = len({one.engine for one in report.results}) > 1
    if has_peers:
        table.add_column("engine", no_wrap=True)
    for name in ("rows", "median", "p99", "rows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report.results:
        figures = (microseconds(one.median_us), microseconds(one.p99_us), f"{one.rows_per_s:,.0f}")
        table.add_row(one.case, *([one.engine] if has_peers else []), f"{one.rows:,}", *figures)
    return table


def _case_table(report: Report, case: str) -> Table:
    results = [one for one in report.results if one.case == case]
    rows = sorted({one.rows for one in results})
    table = Table(title=f"{case}: microseconds a call by its rows, median (p99)", title_justify="left")
    table.add_column("engine", no_wrap=True)
    for count in rows:
        table.add_column(f"{count:,}", justify="right", no_wrap=True)
    measured = Measured(results)
    for engine in dict.fromkeys(one.engine for one in results):
        found = [measured.find(engine, case, count) for count in rows]
        cells = [f"{microseconds(one.median_us)} ({microseconds(one.p99_us)})" if one else "" for one in found]
        table.add_row(engine, *cells)
    return table


def _bar_table(report: Report) -> Table:
    table = Table(title="bars", title_justify="left")
    for name in ("bar", "value", "target", "holds"):
        table.add_column(name, no_wrap=True)
    for bar in report.bars:
        value = "not measured" if bar.value is None else f"{bar.value:.3g}"
        table.add_row(bar.name, value, f"{bar.op} {bar.target:g}", "yes" if bar.holds else "NO")
    return table
