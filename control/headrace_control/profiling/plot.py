"""The plot of `headrace profile`: time and throughput against batch size, with the objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace_control.profiling.recommend import Point, Recommendation, time_text

COLOURS = ("#c2410c", "#2563eb", "#059669", "#7c3aed", "#0891b2", "#ca8a04")


def draw(points: Sequence[Point], slo_us: float, found: Recommendation, title: str, path: Path) -> None:
    """Writes a PNG; one colour for each device and number of threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2))
    FigureCanvasAgg(figure)
    times, rates = figure.subplots(1, 2)
    groups = dict.fromkeys((point.device, point.threads) for point in points)
    for colour, (device, threads) in zip(COLOURS * len(groups), groups, strict=False):
        group = [point for point in points if (point.device, point.threads) == (device, threads)]
        rows = [point.rows for point in group]
        name = f"{device}, {threads} thread{'s' if threads > 1 else ''}"
        times.plot(rows, [point.p50_us for point in group], "o-", color=colour, markersize=4, label=f"{name}, p50")
        times.plot(rows, [point.p99_us for point in group], ":", color=colour, label=f"{name}, p99")
        rates.plot(rows, [point.rows_per_s for point in group], "o-", color=colour, markersize=4, label=name)
    times.axhline(slo_us, color="#111827", linewidth=1, linestyle="--", label=f"objective {time_text(slo_us)}")
    if found.point is not None:
        for axes, value in ((times, found.point.p50_us), (rates, found.point.rows_per_s)):
            axes.plot([found.point.rows], [value], "*", color="#111827", markersize=14, zorder=5)
    times.set(xscale="log", yscale="log", xlabel="rows of a call", ylabel="microseconds a call")
    rates.set(xscale="log", yscale="log", xlabel="rows of a call", ylabel="rows a second")
    for axes in (times, rates):
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    figure.text(0.02, 0.01, "\n".join(found.text), fontsize=8.5, va="bottom")
    figure.tight_layout(rect=(0, 0.03 + 0.03 * len(found.text), 1, 1))
    figure.savefig(path, dpi=130, format="png")
