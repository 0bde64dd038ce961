"""How the figures look: tables for people, one document for programs."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headrace_control.top.figures import PHASES, ModelFigures, ServerFigures

COLUMNS = ("model", "requests/s", "errors/s", "refused/s", "p50", "p90", "p99", "queued", "rows/call", "CPU/request")
SHOWN_PHASES = tuple(phase for phase in PHASES if phase != "total")


def _p99(figures: ModelFigures) -> float:
    return figures.quantiles["total"]["p99"] or 0.0


SORTS: dict[str, Callable[[ModelFigures], Any]] = {
    "requests/s": lambda figures: (-figures.requests_per_second, figures.model, figures.version),
    "p99": lambda figures: (-_p99(figures), figures.model, figures.version),
    "errors/s": lambda figures: (-figures.errors_per_second - figures.refused_per_second, figures.model),
    "queued": lambda figures: (-figures.queue_length, figures.model, figures.version),
    "model": lambda figures: (figures.model, figures.version),
}
"""What models can be sorted by, in the order in which `s` goes through them."""


def document(servers: Sequence[ServerFigures], seconds: float) -> dict[str, Any]:
    """One JSON document: times in seconds, sizes in bytes."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"at": now, "seconds": seconds, "servers": [dataclasses.asdict(server) for server in servers]}


def render(servers: Sequence[ServerFigures], sort: str, keys: bool) -> RenderableType:
    """What is shown of all servers; with a line about the keys where there are any."""
    parts: list[RenderableType] = []
    for server in servers:
        parts.append(_heading(server))
        if server.error is None:
            parts.append(_models(sorted(server.models, key=SORTS[sort]), sort))
    if keys:
        parts.append(Text(f"q quit   s sort (by {sort})", style="dim"))
    return Group(*parts)


def _heading(server: ServerFigures) -> Text:
    if server.error is not None:
        return Text(f"{server.url}: {server.error}", style="red")
    totals = server.totals
    said = [
        f"{totals['requests_per_second']:,.0f} requests/s",
        f"{totals['connections']:.0f} connections",
        f"{totals['requests_in_flight']:.0f} at work",
        f"{totals['cpu_cores']:.2f} cores",
        f"{size(totals['resident_memory_bytes'])} memory",
        f"{totals['threads']:.0f} threads",
        f"{totals['open_files']:.0f} files",
        f"{totals['online_keys']:,.0f} online keys",
    ]
    for name, label in (
        ("refused_connections_per_second", "connections refused/s"),
        ("panics_per_second", "panics/s"),
        ("traces_dropped_per_second", "traces dropped/s"),
    ):
        if totals[name] > 0:
            said.append(f"{totals[name]:,.1f} {label}")
    return Text(f"{server.url}  " + ", ".join(said), style="bold")


def _models(models: Sequence[ModelFigures], sort: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (*COLUMNS, *(f"{phase} p99" for phase in SHOWN_PHASES)):
        style = "bold" if name == sort else None
        table.add_column(name, justify="left" if name == "model" else "right", header_style=style, no_wrap=True)
    for figures in models:
        total = figures.quantiles["total"]
        cells = [
            f"{figures.model} {figures.version}" + ("" if figures.ready else " (not ready)"),
            f"{figures.requests_per_second:,.1f}",
            f"{figures.errors_per_second:,.1f}",
            f"{figures.refused_per_second:,.1f}",
            *(duration(total[name]) for name in ("p50", "p90", "p99")),
            f"{figures.queue_length:.0f}",
            "" if figures.batch_rows is None else f"{figures.batch_rows:,.1f}",
            duration(figures.cpu_seconds_per_request),
            *(duration(figures.quantiles[phase]["p99"]) for phase in SHOWN_PHASES),
        ]
        table.add_row(*cells, style=None if figures.ready else "red")
    return table


def duration(seconds: float | None) -> str:
    """A time with a unit that fits it; nothing where it is not known."""
    if seconds is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
