"""A report as one PNG: time per call for lookup, rows per second for trees, both on log axes; times of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_control.bench.results import BarRule, Measured, Report
from headrace_control.bench.session import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
TIMES = ("demo", "online", "ingest", "serve")
"""Areas of many cases, drawn as one list of times."""
OUR_COLOUR = "#c2410c"
BOUND_COLOUR = "#111827"
PEER_COLOURS = ("#2563eb", "#059669", "#7c3aed", "#0891b2", "#ca8a04", "#64748b", "#db2777")
MARKERS = "os^vDPX"


def draw(report: Report, title: str, path: Path) -> None:
    """Writes the plot of a report as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(one.case for one in report.results))
    bar_lines = [_bar_line(bar) for bar in report.as_json()["bars"]]
    foot_inches = 0.35 + 0.17 * (1 + len(bar_lines))
    if not report.results:  # some cases have bars only
        figure = Figure(figsize=(9, 0.8 + foot_inches))
    elif report.area in TIMES:
        figure = Figure(figsize=(9, 1.2 + 0.42 * len(report.results) + foot_inches))
        _draw_times(figure.add_subplot(), report)
    else:
        figure = Figure(figsize=(max(5.2 * len(cases), 8.5), 5.2 + foot_inches))
        _draw_curves(figure, report, cases)
    FigureCanvasAgg(figure)
    machine = report.machine
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold")
    quick = ", quick run" if machine["settings"]["quick"] else ""
    foot = [f"{machine['cpu']}, {machine['cores']} cores, seed {machine['settings']['seed']}{quick}", *bar_lines]
    figure.text(0.02, 0.012, "\n".join(foot), fontsize=8.5, family="monospace", va="bottom")
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, foot_inches / height, 1, 1))
    figure.savefig(path, dpi=DPI, format="png")


def _bar_line(bar: dict[str, Any]) -> str:
    value = "not measured" if bar["value"] is None else f"{bar['value']:.3g}"
    verdict = "holds" if bar["holds"] else "fails"
    return f"{verdict}  {bar['name']} = {value}  (bar: {bar['op']} {bar['target']:g})"


def _rules(report: Report) -> list[BarRule]:
    """The rules of the bars that the report judged."""
    from headrace_control.bench.areas import AREAS

    judged = {bar.name for bar in report.bars}
    return [rule for rule in AREAS[report.area].BARS if rule.name in judged]


def _styles(engines: list[str]) -> dict[str, dict[str, Any]]:
    styles: dict[str, dict[str, Any]] = {}
    peers = [engine for engine in engines if engine != OURS and not engine.startswith("numpy_take")]
    for engine in engines:
        if engine == OURS:
            styles[engine] = {"color": OUR_COLOUR, "linewidth": 2.6, "marker": "o", "zorder": 5}
        elif engine in peers:
            at = peers.index(engine)
            colour = PEER_COLOURS[at % len(PEER_COLOURS)]
            styles[engine] = {
                "color": colour,
                "linewidth": 1.4,
                "marker": MARKERS[(at + 1) % len(MARKERS)],
                "markersize": 5,
            }
        else:
            dashes = "--" if engine == "numpy_take" else ":"
            styles[engine] = {"color": BOUND_COLOUR, "linewidth": 1.4, "linestyle": dashes}
    return styles


def _draw_curves(figure: Figure, report: Report, cases: list[str]) -> None:
    by_time = report.area == "lookup"
    engines = list(dict.fromkeys(one.engine for one in report.results))
    styles = _styles(engines)
    axes = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for axis, case in zip(axes, cases, strict=True):
        for engine in engines:
            found = sorted(
                (one for one in report.results if (one.engine, one.case) == (engine, case)), key=lambda one: one.rows
            )
            if found:
                heights = [one.median_us if by_time else one.rows_per_s for one in found]
                axis.plot([one.rows for one in found], heights, label=engine, **styles[engine])
        ticks = sorted({one.rows for one in report.results if one.case == case})
        axis.set(xscale="log", yscale="log", title=case, xlabel="keys in a call" if by_time else "rows in a call")
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(visible=True, which="major", alpha=0.3)
        _mark_bars(axis, report, case, by_time)
        axis.legend(fontsize=8)
    axes[0].set_ylabel(
        "microseconds a call, median (lower is better)" if by_time else "rows a second (higher is better)"
    )


def _mark_bars(axis: Axes, report: Report, case: str, by_time: bool) -> None:
    """Where our curve has to be for each bar to hold: a short line with the bar's name."""
    measured = Measured(report.results)
    for rule in _rules(report):
        if rule.case != case:
            continue
        limit_us = rule.limit_us(measured, OURS)
        if limit_us is None:
            continue
        height = limit_us if by_time else rule.rows * 1e6 / limit_us
        axis.plot([rule.rows / 1.35, rule.rows * 1.35], [height, height], color=OUR_COLOUR, linewidth=3, alpha=0.45)
        text = f"bar: {_limit_text(rule)}"
        axis.annotate(
            text,
            (rule.rows, height),
            textcoords="offset points",
            xytext=(0, 4),
            fontsize=7,
            color=OUR_COLOUR,
            ha="center",
        )


def _limit_text(rule: BarRule) -> str:
    if rule.to is None:
        return f"{rule.target:g} us"
    peer = (rule.to if rule.engine == OURS else rule.engine).split("|")[0]
    return f"{rule.target:g} x {peer}" if rule.engine == OURS else f"{peer} / {rule.target:g}"


def _time_text(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} us"


def _draw_times(axis: Axes, report: Report) -> None:
    names = [one.case if one.rows == 1 else f"{one.case} ({one.rows:,} rows)" for one in report.results]
    if any(one.engine != OURS for one in report.results):
        names = [f"{name}, {one.engine}" for name, one in zip(names, report.results, strict=True)]
    medians = [one.median_us for one in report.results]
    colours = [OUR_COLOUR if one.engine == OURS else PEER_COLOURS[-2] for one in report.results]
    axis.barh(names, medians, color=colours, height=0.6)
    for at, one in enumerate(report.results):
        axis.plot([one.p99_us], [at], marker="|", markersize=14, color=BOUND_COLOUR)
        axis.annotate(
            f"{_time_text(one.median_us)}, p99 {_time_text(one.p99_us)}",
            (max(one.median_us, one.p99_us), at),
            textcoords="offset points",
            xytext=(6, 0),
            va="center",
            fontsize=8,
        )
    axis.set(xscale="log", xlabel="microseconds: median, p99 (thin mark) and bar (dotted)")
    ours = [(one.case, one.rows) if one.engine == OURS else None for one in report.results]
    for rule in _rules(report):
        is_time = rule.figure == "median_us" and rule.to is None
        if is_time and (rule.case, rule.rows) in ours:
            at, limit_us = ours.index((rule.case, rule.rows)), rule.target * rule.unit_us
            axis.plot([limit_us, limit_us], [at - 0.4, at + 0.4], color=BOUND_COLOUR, linewidth=2, linestyle=":")
    axis.set_xlim(left=1, right=max(one.p99_us for one in report.results) * 30)
    axis.invert_yaxis()
    axis.grid(visible=True, axis="x", alpha=0.3)
