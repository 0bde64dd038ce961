"""The plot of `headrace verify consistency`: the share of differing values and the lag of each feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FEATURES_MAX = 60
"""The features with the most differences, no more of them."""
KINDS = (("mismatched", "#c2410c"), ("missing", "#2563eb"), ("extra", "#7c3aed"), ("late", "#9ca3af"))


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the plot of a report, as `ConsistencyReport.to_json` gives it, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worst = sorted(report["features"], key=lambda one: one["mismatch_ratio"], reverse=True)
    features = worst[:FEATURES_MAX]
    names = [f"{one['deployment']}  {one['feature']}" for one in features]
    figure = Figure(figsize=(11, 1.6 + 0.3 * len(features)))
    FigureCanvasAgg(figure)
    shares, lags = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    left = [0.0] * len(features)
    for kind, colour in KINDS:
        width = [one[kind] / max(one["count"], 1) for one in features]
        shares.barh(names, width, left=left, color=colour, height=0.6, label=kind)
        left = [before + added for before, added in zip(left, width, strict=True)]
    shares.set(xlabel="share of the served values", xlim=(0, max(*left, 0.01) * 1.05))
    shares.invert_yaxis()
    shares.legend(fontsize=8)
    medians = [one["lag_seconds"]["median"] if one["lag_seconds"] else 0.0 for one in features]
    highest = [one["lag_seconds"]["max"] if one["lag_seconds"] else 0.0 for one in features]
    lags.barh(names, medians, color="#111827", height=0.6)
    lags.plot(highest, names, "|", color="#111827", markersize=14)
    lags.set(
        xlabel="seconds that online was late: median, and the largest (thin mark)", xlim=(0, max(*highest, 1.0) * 1.05)
    )
    verdict = "online equals offline" if report["consistent"] else "online differs from offline"
    figure.suptitle(f"{verdict}: {report['rows']:,} lookups recomputed", x=0.02, ha="left", fontweight="bold")
    figure.tight_layout()
    figure.savefig(path, dpi=130, format="png")
