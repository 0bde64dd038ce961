"""Lineage: from the column of a source to a feature, the services that give it and the models that take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.aggregations import planned_dtype
from headrace.errors import make_error, nearest_hint
from headrace.expressions import column_names, expression_text
from headrace.registry import ModelUse

NodeKind = Literal["column", "request", "feature", "service", "model"]


@dataclass(frozen=True)
class Node:
    """One thing in the graph."""

    kind: NodeKind
    name: str
    """`SOURCE#COLUMN`, `request:FIELD`, `VIEW:FEATURE`, the service's name, or `MODEL/VERSION`."""
    group: str
    """What it belongs to: the source, `request`, the view, or itself."""
    label: str
    """Its name within the group."""
    dtype: str = ""
    owner: str = ""
    expression: str = ""
    """Of a computed feature."""

    @property
    def id(self) -> str:
        return f"{self.kind} {self.name}"

    def to_json(self) -> dict[str, str]:
        return {"id": self.id, **{key: value for key, value in vars(self).items() if value}}


@dataclass(frozen=True)
class Lineage:
    """A graph without cycles. An edge `(a, b)`, of ids, says that b is made of a."""

    nodes: Mapping[str, Node]
    edges: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [node.to_json() for node in self.nodes.values()]
        return {"nodes": nodes, "edges": [{"from": start, "to": end} for start, end in self.edges]}

    def upstream(self, ids: Iterable[str]) -> set[str]:
        """What these are made of, and they themselves."""
        return _reach(ids, _neighbours((end, start) for start, end in self.edges))

    def downstream(self, ids: Iterable[str]) -> set[str]:
        """What is made of these, and they themselves."""
        return _reach(ids, _neighbours(self.edges))

    def about(self, name: str) -> Lineage:
        """The part that leads to something and the part that it leads to.

        Args:
            name: of a feature (`temp`, `weather:temp`), a view, a service, a model (`late`, `late/3`), a source, a
                column (`data/w.parquet#temp`) or a request's field (`request:planned`).

        Raises:
            UnknownNameError: `not_found`.
        """
        found = [node.id for node in self.nodes.values() if name in _names_of(node)]
        if not found:
            known = {known for node in self.nodes.values() for known in _names_of(node)}
            raise make_error("not_found", f"nothing is named '{name}'", nearest_hint(name, known, "names"))
        kept = self.upstream(found) | self.downstream(found)
        nodes = {key: node for key, node in self.nodes.items() if key in kept}
        return Lineage(nodes, tuple(edge for edge in self.edges if kept.issuperset(edge)))


def _names_of(node: Node) -> set[str]:
    names = {node.id, node.name, node.group}
    if node.kind == "feature":
        names |= {node.label, f"{node.group}.{node.label}"}
    return names


def _neighbours(edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for start, end in edges:
        found.setdefault(start, []).append(end)
    return found


def _reach(ids: Iterable[str], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(ids)
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting.extend(neighbours.get(current, ()))
    return reached


def lineage_of(plan: Mapping[str, Any], models: Sequence[ModelUse]) -> Lineage:
    """The whole graph of a plan document and the models registered beside it."""
    graph = _Graph()
    for name, view in plan["views"].items():
        source = view["source"]
        place = source["path"] if source["kind"] == "file" else f"push {name}"
        inverse = {new: old for old, new in source["rename"].items()}
        for field in view_features(view):
            feature = graph.feature(name, view, field)
            for read in columns_read(field):
                column = inverse.get(read, read)
                graph.edge(graph.add(Node("column", f"{place}#{column}", place, column)), feature)
    for name, view in plan["on_demand_views"].items():
        origins = {item["name"]: item for item in view["inputs"]}
        for field in view["fields"]:
            feature = graph.feature(name, view, field)
            for used in dict.fromkeys(column_names(field["expr"])):
                graph.edge(_input(graph, origins[used]), feature)
    for name, service in plan["services"].items():
        node = graph.add(Node("service", name, name, name, owner=service["owner"]))
        for entry in service["features"]:
            graph.edge(f"feature {entry['view']}:{entry['feature']}", node)
    for model in models:
        owner = plan["services"].get(model.service, {}).get("owner", "")
        node = graph.add(Node("model", str(model), model.name, str(model), owner=owner))
        if model.service in plan["services"]:
            graph.edge(f"service {model.service}", node)
    return Lineage(graph.nodes, tuple(graph.edges))


def view_features(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The features of a view of a plan document: its aggregations where it has some, else its fields."""
    fields = list(view["fields"])
    aggregations = view.get("aggregations") or ()
    return [{**feature, "dtype": str(planned_dtype(feature, fields))} for feature in aggregations] or fields


def columns_read(field: Mapping[str, Any]) -> list[str]:
    """The columns of its source that a stored feature is made of, those of an aggregate's filter included."""
    if "function" not in field:
        return [field["name"]]
    filtered = column_names(field["where"]) if field.get("where") else ()
    by = field.get("by") or {}
    return list(dict.fromkeys(name for name in (field.get("column"), by.get("column"), *filtered) if name))


def _input(graph: _Graph, item: Mapping[str, str]) -> str:
    """The node that an expression's input comes from."""
    if item["from"] != "request":
        return f"feature {item['from']}:{item['name']}"
    return graph.add(Node("request", f"request:{item['name']}", "request", item["name"], item["dtype"]))


class _Graph:
    """Nodes and edges in the order in which they are found, each once."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], None] = {}

    def add(self, node: Node) -> str:
        self.nodes.setdefault(node.id, node)
        return node.id

    def edge(self, start: str, end: str) -> None:
        self.edges[start, end] = None

    def feature(self, view: str, definition: Mapping[str, Any], field: Mapping[str, Any]) -> str:
        text = expression_text(field["expr"]) if "expr" in field else ""
        name = field["name"]
        return self.add(
            Node("feature", f"{view}:{name}", view, name, field["dtype"], definition["owner"], expression=text)
        )
