"""The drawing of lineage: every box apart from the others, every line there, names quoted."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from headrace.lineage import Lineage, Node
from headrace_control.lineage_svg import draw

SVG = "{http://www.w3.org/2000/svg}"
LAYERS = ("column", "feature", "service", "model")


@st.composite
def graphs(draw_: st.DrawFn) -> Lineage:
    """Edges from any layer to a later one."""
    nodes: dict[str, Node] = {}
    for kind in LAYERS:
        for number in range(draw_(st.integers(0, 5))):
            group = f"{kind} <{draw_(st.integers(0, 2))}>" if kind in ("column", "feature") else f"{kind}&{number}"
            node = Node(kind, f"{group}:{number}", group, f"n{number}", "int64")  # type: ignore[arg-type]
            nodes[node.id] = node
    pairs = [(a, b) for a in nodes for b in nodes if LAYERS.index(nodes[a].kind) < LAYERS.index(nodes[b].kind)]
    edges = draw_(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Lineage(nodes, tuple(edges))


@given(graphs())
def test_boxes_lie_apart_and_inside(graph: Lineage) -> None:
    root = ET.fromstring(draw(graph))
    boxes = [
        [float(rect.attrib[name]) for name in ("x", "y", "width", "height")]
        for rect in root.iter(f"{SVG}rect")
        if rect.get("class") == "box"
    ]
    assert len(boxes) == len({(node.kind, node.group) for node in graph.nodes.values()})
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for place, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for other_x, other_y, other_w, other_h in boxes[:place]:
            apart = x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
            assert apart
    drawn = {title.text for path in root.iter(f"{SVG}path") for title in path}
    assert bool(drawn) == bool(graph.edges)


def test_a_project_of_nothing_is_an_empty_drawing() -> None:
    assert ET.fromstring(draw(Lineage({}, ()))).tag == f"{SVG}svg"
