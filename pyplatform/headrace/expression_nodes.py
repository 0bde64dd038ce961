"""What an expression is made of: nodes, which are JSON objects. Here they are walked, written as steps, and printed.

Parts of an expression may be shared (`y = x * x` uses `x` once and means it twice) and nested without bound, so every
walk here visits a node once and keeps its own stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

DEPTH_MAX = 40
"""Deeper expressions are written as steps; the engine takes 48 levels."""

TREE_NODES_MAX = 2_000
"""Larger expressions, counted with repetitions, are written as steps."""

TEXT_NODES_MAX = 400
"""Nodes that an expression's text shows."""


def nodes_inside_out(node: Node) -> Iterator[Node]:
    """Every node once, arguments before what uses them."""
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(node, False)]
    while stack:
        here, is_done = stack.pop()
        if is_done:
            yield here
        elif id(here) not in seen:
            seen.add(id(here))
            stack.append((here, True))
            stack.extend((arg, False) for arg in reversed(_parts(here)))


def _parts(node: Node) -> list[Node]:
    parts: list[Node] = node["steps"] if node["op"] == "steps" else node.get("args", [])
    return parts


def column_names(node: Node) -> Iterator[str]:
    """The names of the columns that an expression reads, each once, in order of appearance."""
    return iter(dict.fromkeys(here["name"] for here in nodes_inside_out(node) if here["op"] == "col"))


def for_plan(node: Node) -> Node:
    """The expression as a plan holds it: as it is, or as steps if it is too deep or repeats too much to be written."""
    depths: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for here in nodes_inside_out(node):
        parts = _parts(here)
        depths[id(here)] = 1 + max((depths[id(part)] for part in parts), default=0)
        sizes[id(here)] = 1 + sum(sizes[id(part)] for part in parts)
    if depths[id(node)] <= DEPTH_MAX and sizes[id(node)] <= TREE_NODES_MAX:
        return node
    steps: list[Node] = []
    written: dict[int, Node] = {}
    for here in nodes_inside_out(node):
        if not here.get("args"):
            written[id(here)] = here
            continue
        steps.append({**here, "args": [written[id(arg)] for arg in here["args"]]})
        written[id(here)] = {"op": "ref", "step": len(steps) - 1}
    return {"op": "steps", "steps": steps}


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


def expression_text(node: Node) -> str:
    """An expression as one would write it; a very long one is cut short."""
    pieces: list[str] = []
    stack: list[Node | str] = [node]
    count = 0
    while stack:
        here = stack.pop()
        if isinstance(here, str):
            pieces.append(here)
            continue
        count += 1
        if count > TEXT_NODES_MAX:
            pieces.append("..")
            break
        stack.extend(reversed(_written(here)))
    return "".join(pieces)


def _written(node: Node) -> list[Node | str]:
    """A node as text and the nodes between."""
    op = node["op"]
    if op == "col":
        return [f'col("{node["name"]}")']
    if op == "lit":
        return [repr(node["value"])]
    if op == "ref":
        return [f"step{node['step']}"]
    if op == "steps":
        lines = [(f"{', ' if number else ''}step{number} = ", step) for number, step in enumerate(node["steps"])]
        return ["(", *(piece for line in lines for piece in line), ")"]
    args: list[Node] = node["args"]
    if op in _INFIX and len(args) >= 2:
        return ["(", *_joined(args, f" {_INFIX[op]} "), ")"]
    if op == "cast":
        return [args[0], f'.cast("{node["dtype"]}")']
    if op == "call":
        return [f"{node['function']['name'].partition(':')[2]}(", *_joined(args, ", "), ")"]
    members = [f"{name}={value!r}" for name, value in node.items() if name not in ("op", "args")]
    shown = [text if len(text) <= 60 else f"{text[:57]}.." for text in members]
    return [f"{op}(", *_joined(args, ", "), "".join(f", {text}" for text in shown), ")"]


def _joined(args: list[Node], by: str) -> list[Node | str]:
    joined: list[Node | str] = []
    for number, arg in enumerate(args):
        joined.extend([by, arg] if number else [arg])
    return joined
