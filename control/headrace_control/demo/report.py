"""One HTML file that shows what the demo found: no script, no font, no image from elsewhere."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace_control.demo.results import Results
from headrace_control.training.metrics import NO_FEATURES, calibration_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d2733", "#5b6b7c", "#e3e8ee"
COLORS = ("#0b6e8f", "#d1603d", "#8a9aab")
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #1d2733; font: 15px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 36px 0 12px; }
p { margin: 0 0 10px; max-width: 75ch; }
.soft { color: #5b6b7c; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 8px; }
.card { background: #fff; border: 1px solid #e3e8ee; border-radius: 10px; padding: 16px 18px; }
.tiles b { display: block; font-size: 24px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles span { color: #5b6b7c; font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: #5b6b7c; font-size: 13px; margin-top: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 8px 14px 8px 0; border-bottom: 1px solid #e3e8ee; vertical-align: top; }
th { font-weight: 600; color: #5b6b7c; font-size: 13px; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.ok { color: #16794c; font-weight: 600; } .bad { color: #b3261e; font-weight: 600; }
@media (max-width: 520px) { .plots { grid-template-columns: 1fr; } main { padding: 24px 14px; } }
"""


def write_report(results: Results, path: Path) -> Path:
    """Writes the report as one file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results), "utf-8")
    return path


def page(results: Results) -> str:
    best = max(results.models, key=lambda model: model.auc)
    served, proof = results.served, results.proof
    tiles = [
        (f"{results.training.joined_rows:,}", f"flights joined in {results.training.join_seconds:.2f} s"),
        (f"{best.auc:.3f}", f"AUC of {best.library} on held-out months"),
        (f"{served.embedded.p50_us:.1f} µs", "embedded prediction with lookup, median"),
        (f"{served.http.p50_us:.0f} µs", "the same over HTTP, median"),
        (f"{served.requests_per_s:,.0f}", f"requests a second, {served.connections} connections"),
        (f"{proof.differing_values:,}", f"of {proof.values:,} feature values differ online from offline"),
    ]
    plots = [
        (roc_plot(results), "How many late flights are found, against how many false alarms it takes."),
        (calibration_plot(results), "Each point is a tenth of the held-out flights, ordered by score."),
        (importance_plot(results), "Share of the total gain of all splits."),
        (latency_plot(results), "One flight a call, another one each time. The scale is logarithmic."),
    ]
    return "".join(
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>headrace demo</title><style>{STYLE}</style></head><body><main>",
            "<h1>Will this flight be late?</h1>",
            "<p class='soft'>All flights out of New York City in 2013, from raw rows to a served prediction. "
            "A flight is late when it arrives more than 15 minutes after plan; "
            "its features are read as they were known one hour before the planned departure.</p>",
            "<div class='tiles'>",
            *(f"<div class='card'><b>{html.escape(b)}</b><span>{html.escape(s)}</span></div>" for b, s in tiles),
            "</div><h2>Models</h2>",
            models_table(results),
            "<h2>What they see and say</h2><div class='plots'>",
            *(f"<figure class='card'>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in plots),
            "</div><h2>Proof</h2>",
            proof_table(results),
            "<h2>What ran</h2>",
            steps_table(results),
            "</main></body></html>",
        )
    )


def table(head: list[str], rows: list[list[str]], numbers: set[int]) -> str:
    """An HTML table; cells are HTML, columns in `numbers` are aligned to the right."""

    def line(cells: list[str], tag: str) -> str:
        made = [f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells)]
        return f"<tr>{''.join(made)}</tr>"

    return f"<div class='card wide'><table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table></div>"


def models_table(results: Results) -> str:
    rows = [
        [
            f"{html.escape(model.name)} <span class='soft'>version {model.version}</span>",
            f"{model.auc:.4f}",
            f"{model.auc_validate:.4f}",
            f"<code>{html.escape(model.digest)}</code>",
        ]
        for model in results.models
    ]
    rows += [
        [html.escape(name), f"{auc:.4f}", "", "<span class='soft'>baseline</span>"]
        for name, auc in results.baselines.items()
    ]
    return table(["", "AUC, test", "AUC, validation", "digest"], rows, {1, 2})


def proof_table(results: Results) -> str:
    proof = results.proof
    online = not proof.differing_values and not proof.differing_statuses
    rows = [
        [
            "Online reads equal the offline join",
            f"{proof.flights:,} flights, {proof.values:,} values, {proof.events:,} events applied in order",
            f"{proof.differing_values} values and {proof.differing_statuses} statuses differ",
            verdict(online),
        ]
    ]
    rows += [
        [
            f"The engine equals the training library: {html.escape(model.model)}",
            f"{model.rows:,} rows",
            f"margins {model.margin_ulp} ulp (bound {model.margin_ulp_bound}), scores {model.score_ulp} ulp "
            f"(bound {model.score_ulp_bound}); largest difference {model.largest_difference:.3g}",
            verdict(model.holds),
        ]
        for model in proof.models
    ]
    return table(["claim", "checked on", "found", ""], rows, set())


def verdict(holds: bool) -> str:
    return "<span class='ok'>holds</span>" if holds else "<span class='bad'>does not hold</span>"


def steps_table(results: Results) -> str:
    data, training, online, served = results.data, results.training, results.materialized, results.served
    sources = ", ".join(f"{name} {rows:,}" for name, rows in data.rows.items())
    parts = ", ".join(f"{name} {rows:,}" for name, rows in training.parts.items())
    steps: dict[str, tuple[str, float]] = {
        "Define": (
            f"{data.features} features; source rows: {sources}; plan <code>{data.plan_digest}</code>",
            data.seconds,
        ),
        "Train": (
            f"{training.rows:,} labelled flights: {parts}",
            training.join_seconds + sum(model.seconds for model in results.models),
        ),
        "Materialize": (
            f"{sum(online.rows.values()):,} rows written for {sum(online.keys.values()):,} keys",
            online.seconds,
        ),
        "Reopen": (
            f"{sum(online.reopened_keys.values()):,} keys found by a new process",
            online.reopened_seconds,
        ),
        "Serve": (
            f"{served.same_answers:,} answers over HTTP equal the embedded ones",
            sum(served.http.samples_us) / 1e6,
        ),
        "Prove": (f"{results.proof.events:,} events, {results.proof.flights:,} reads", results.proof.seconds),
    }
    rows = [[name, text, f"{seconds:.1f}"] for name, (text, seconds) in steps.items()]
    return table(["step", "", "seconds"], rows, {2})


def roc_plot(results: Results) -> str:
    figure, axes = new_axes("ROC curve", "false alarms", "late flights found")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
    for model, color in zip(results.models, COLORS, strict=False):
        axes.plot(
            *roc_curve(results.test_labels, model.test_scores), color=color, label=f"{model.library} {model.auc:.3f}"
        )
    for name, auc in results.baselines.items():
        if name != NO_FEATURES:  # that one is the diagonal
            curve = roc_curve(results.test_labels, results.baseline_scores)
            axes.plot(*curve, color=COLORS[2], linestyle="--", label=f"{name} {auc:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, loc="lower right", title="AUC", alignment="left")
    return svg(figure)


def calibration_plot(results: Results) -> str:
    figure, axes = new_axes("Calibration", "mean score", "share that was late")
    top = 0.0
    for model, color in zip(results.models, COLORS, strict=False):
        mean_score, share, _ = calibration_curve(results.test_labels, model.test_scores)
        axes.plot(mean_score, share, "o-", color=color, markersize=4, label=model.library)
        top = max(top, float(mean_score.max()), float(share.max()))
    axes.plot([0, top], [0, top], color=GRID, linewidth=1.2, zorder=0)
    axes.set_xlim(0, top * 1.05)
    axes.set_ylim(0, top * 1.05)
    axes.legend(frameon=False, loc="upper left")
    return svg(figure)


def importance_plot(results: Results, shown: int = 14) -> str:
    figure, axes = new_axes("Feature importance", "share of gain", "")
    shares = [
        {name: gain / (sum(model.importance.values()) or 1) for name, gain in model.importance.items()}
        for model in results.models
    ]
    names = sorted(shares[0], key=lambda name: -sum(share.get(name, 0) for share in shares))[:shown][::-1]
    height = 0.8 / len(shares)
    for number, (model, share) in enumerate(zip(results.models, shares, strict=True)):
        places = np.arange(len(names)) + (len(shares) - 1 - 2 * number) * height / 2
        axes.barh(places, [share.get(name, 0) for name in names], height, color=COLORS[number], label=model.library)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="lower right")
    return svg(figure)


def latency_plot(results: Results) -> str:
    figure, axes = new_axes("Latency of one prediction", "microseconds", "calls")
    series = {"embedded": results.served.embedded, "HTTP": results.served.http}
    every = np.concatenate([np.asarray(latency.samples_us) for latency in series.values()])
    edges = np.geomspace(every.min(), np.percentile(every, 99.9), 70)
    for (name, latency), color in zip(series.items(), COLORS, strict=False):
        label = f"{name}: p50 {latency.p50_us:.0f}, p99 {latency.p99_us:.0f}"
        axes.hist(latency.samples_us, list(edges), color=color, alpha=0.85, label=label)
    axes.set_xscale("log")
    axes.legend(frameon=False, loc="upper right")
    return svg(figure)


def new_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # The object interface draws without a display and without pyplot's global state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"axes.edgecolor": GRID, "axes.labelcolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT}
    with rc_context(style | {"font.size": 9.5, "text.color": INK}):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure as an element of a page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "headrace"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
