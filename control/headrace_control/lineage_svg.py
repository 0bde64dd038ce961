"""Lineage as a drawing: boxes of sources, views, services and models in columns, and a line for each edge.

A layered layout. Each thing that nodes belong to (a source, a view) is one box with a row for each node. A box stands
one column to the right of all that leads to it. Within a column, boxes are put in the order of the mean height of their
neighbours, a few times from left to right and back, which keeps lines short and crossings few. A line that passes a
column goes through a lane there, an empty box that lines between the same two boxes share. The colours follow the
reader's light or dark setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from statistics import fmean

from headrace.lineage import Lineage, Node

ROW = 18
HEADER = 26
GAP_ACROSS = 110
GAP_DOWN = 22
MARGIN = 24
CHARACTER = 6.7
"""The width of a character of the font below, in pixels; rather too much than too little."""
SWEEPS = 4
LANE = "lane"

_KIND_WORDS = {"column": "source", "request": "request", "feature": "view", "service": "service", "model": "model"}
_STYLE = """
  svg { --paper: #ffffff; --ink: #1c2733; --faint: #5c6b7a; --edge: #9fb0c0; --box: #f4f6f8; --line: #cdd6de;
        --column: #7a6a4f; --request: #8a5a9e; --feature: #1f6f9f; --service: #2f7d4f; --model: #a8492f; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #14191f; --ink: #e4eaf0; --faint: #93a3b3; --edge: #566575; --box: #1d252e; --line: #364452;
          --column: #c9b48a; --request: #cf9fe2; --feature: #74bde8; --service: #7fd0a0; --model: #ee9a80; }
  }
  text { font: 11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink); }
  .title { font-weight: 600; } .type, .kind { fill: var(--faint); }
  .box { fill: var(--box); stroke: var(--line); } .edge { fill: none; stroke: var(--edge); stroke-width: 1.2; }
  .edge:hover { stroke: var(--ink); stroke-width: 2; }
"""


@dataclass
class _Box:
    kind: str
    title: str
    rows: list[Node] = field(default_factory=list)
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def has_rows(self) -> bool:
        return self.kind != LANE and (self.kind not in ("service", "model") or len(self.rows) > 1)

    @property
    def height(self) -> float:
        if self.kind == LANE:
            return 2.0
        return HEADER + (ROW * len(self.rows) + 6 if self.has_rows else 4)

    @property
    def width(self) -> float:
        if self.kind == LANE:
            return 0.0
        longest = max(len(_row_text(node)) for node in self.rows) if self.has_rows else 0
        return CHARACTER * max(longest, len(self.title) + len(self.kind_word) + 2) + 24

    @property
    def kind_word(self) -> str:
        computed = self.kind == "feature" and any(node.expression for node in self.rows)
        return "computed view" if computed else _KIND_WORDS[self.kind]

    def height_of(self, node_id: str) -> float:
        """Where lines meet a row."""
        if not self.has_rows:
            return self.y + self.height / 2
        place = next(index for index, node in enumerate(self.rows) if node.id == node_id)
        return self.y + HEADER + ROW * (place + 0.5)


def _row_text(node: Node) -> str:
    return f"{node.label}  {node.dtype}" if node.dtype else node.label


def draw(graph: Lineage) -> str:
    """The graph as an SVG document, which needs nothing else to be shown."""
    boxes = _boxes(graph)
    box_of = {node.id: box for box in boxes for node in box.rows}
    links = [(box_of[start], box_of[end]) for start, end in graph.edges]
    columns = _columns(boxes, links)
    lanes = _add_lanes(columns, links)
    _order(columns, [link for path in lanes.values() for link in pairwise(path)])
    width, height = _place(columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="lineage of features">',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" style="fill: var(--paper)"/>',
    ]
    drawn: set[str] = set()
    for start, end in graph.edges:
        path = lanes[id(box_of[start]), id(box_of[end])]
        parts += _edge(graph.nodes[start], graph.nodes[end], path, columns, drawn)
    parts += [line for box in boxes for line in _drawn_box(box)]
    return "\n".join([*parts, "</svg>", ""])


def _boxes(graph: Lineage) -> list[_Box]:
    found: dict[tuple[str, str], _Box] = {}
    for node in graph.nodes.values():
        found.setdefault((node.kind, node.group), _Box(node.kind, node.group)).rows.append(node)
    return list(found.values())


def _columns(boxes: Sequence[_Box], links: Sequence[tuple[_Box, _Box]]) -> list[list[_Box]]:
    """Each box right of all that lead to it; services share a column, and so do models."""
    for _ in boxes:  # a path is at most as long as there are boxes
        moved = False
        for start, end in links:
            if end.layer <= start.layer:
                end.layer, moved = start.layer + 1, True
        if not moved:
            break
    features_end = max((box.layer for box in boxes if box.kind not in ("service", "model")), default=-1)
    for box in boxes:
        if box.kind in ("service", "model"):
            box.layer = features_end + (1 if box.kind == "service" else 2)
        elif box.kind == "request":
            box.layer = min((end.layer for start, end in links if start is box), default=1) - 1
    used = sorted({box.layer for box in boxes})
    for box in boxes:
        box.layer = used.index(box.layer)
    return [[box for box in boxes if box.layer == layer] for layer in range(len(used))]


def _add_lanes(columns: list[list[_Box]], links: Sequence[tuple[_Box, _Box]]) -> dict[tuple[int, int], list[_Box]]:
    """Puts lanes into the columns that lines pass; returns the way from each box to each other that it leads to."""
    ways: dict[tuple[int, int], list[_Box]] = {}
    for start, end in links:
        if (id(start), id(end)) not in ways:
            lanes = [_Box(LANE, "", layer=layer) for layer in range(start.layer + 1, end.layer)]
            for lane in lanes:
                columns[lane.layer].append(lane)
            ways[id(start), id(end)] = [start, *lanes, end]
    return ways


def _order(columns: list[list[_Box]], links: Sequence[tuple[_Box, _Box]]) -> None:
    neighbours: dict[int, list[_Box]] = {}
    for start, end in links:
        neighbours.setdefault(id(start), []).append(end)
        neighbours.setdefault(id(end), []).append(start)
    _place(columns)
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):

            def wanted(box: _Box) -> float:
                near = [other.y + other.height / 2 for other in neighbours.get(id(box), ()) if other.layer != box.layer]
                return fmean(near) if near else box.y

            column.sort(key=wanted)
            _place(columns)


def _place(columns: Sequence[Sequence[_Box]]) -> tuple[float, float]:
    """Gives each box its place, columns centred; returns the size of the drawing."""
    heights = [sum(box.height for box in column) + GAP_DOWN * (len(column) - 1) for column in columns]
    tallest = max(heights, default=0.0)
    x = float(MARGIN)
    for column, height in zip(columns, heights, strict=True):
        y = MARGIN + (tallest - height) / 2
        for box in column:
            box.x, box.y = x, y
            y += box.height + GAP_DOWN
        x += max(box.width for box in column) + GAP_ACROSS
    return max(x - GAP_ACROSS, MARGIN) + MARGIN, tallest + 2 * MARGIN


def _edge(start: Node, end: Node, way: Sequence[_Box], columns: Sequence[Sequence[_Box]], drawn: set[str]) -> list[str]:
    """A curve from row to row; through a lane it is straight and as long as its column is wide."""
    points = [(way[0].x + way[0].width, way[0].height_of(start.id))]
    for lane in way[1:-1]:
        points += [(lane.x, lane.y), (lane.x + max(box.width for box in columns[lane.layer]), lane.y)]
    points.append((way[-1].x, way[-1].height_of(end.id)))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for place, ((x1, y1), (x2, y2)) in enumerate(pairwise(points)):
        if place % 2:
            path += f" H{x2:.1f}"
        else:
            middle = (x1 + x2) / 2
            path += f" C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    if path in drawn:
        return []
    drawn.add(path)
    return [f'<path class="edge" d="{path}"><title>{escape(start.name)} to {escape(end.name)}</title></path>']


def _drawn_box(box: _Box) -> list[str]:
    width, colour = box.width, f"var(--{box.kind})"
    owners = dict.fromkeys(node.owner for node in box.rows if node.owner)
    owned = f"<title>owner: {escape(', '.join(owners))}</title>" if owners else ""
    lines = [
        f"<g>{owned}",
        f'<rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" width="{width:.1f}" height="{box.height:.1f}" rx="5"/>',
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="4" height="{box.height:.1f}" rx="2" style="fill: {colour}"/>',
        f'<text class="title" x="{box.x + 12:.1f}" y="{box.y + 18:.1f}">{escape(box.title)}</text>',
        f'<text class="kind" x="{box.x + width - 10:.1f}" y="{box.y + 18:.1f}" text-anchor="end">'
        f"{box.kind_word}</text>",
    ]
    for place, node in enumerate(box.rows if box.has_rows else ()):
        y = box.y + HEADER + ROW * place + 13
        about = f"<title>{escape(node.expression)}</title>" if node.expression else ""
        lines.append(f'<text x="{box.x + 12:.1f}" y="{y:.1f}">{escape(node.label)}{about}</text>')
        if node.dtype:
            x = box.x + width - 10
            lines.append(f'<text class="type" x="{x:.1f}" y="{y:.1f}" text-anchor="end">{escape(node.dtype)}</text>')
    return [*lines, "</g>"]
