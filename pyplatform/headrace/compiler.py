"""From definitions to the plan: one JSON document that the engine checks, names by its digest, and runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from headrace.definitions import (
    Definition,
    Entity,
    FeatureSelection,
    FeatureService,
    FeatureView,
    Field,
    OnDemandFeatureView,
)
from headrace.errors import DefinitionError, make_error, nearest_hint
from headrace.expression_nodes import column_names, for_plan

PLAN_FORMAT = 1


def compile_plan(project: str, definitions: Iterable[Definition]) -> str:
    """The plan of these definitions and of all that they refer to, as JSON text.

    Raises:
        DefinitionError: two different definitions have one name; an expression uses a column that is not an input.
    """
    sections: dict[str, dict[str, Any]] = {"entities": {}, "views": {}, "on_demand_views": {}, "services": {}}
    for definition in definitions:
        _add(sections, definition)
    views = sections["views"].keys() & sections["on_demand_views"].keys()
    if views:
        name = min(views)
        raise DefinitionError(
            "name_clash", f"'{name}' is a feature view and an on-demand feature view", "rename one of them"
        )
    return json.dumps(
        {"format": PLAN_FORMAT, "project": project, **sections}, sort_keys=True, ensure_ascii=False, allow_nan=False
    )


def _add(sections: dict[str, dict[str, Any]], definition: Definition) -> None:
    """Adds a definition after those that it refers to."""
    match definition:
        case Entity():
            keys = [{"name": key.name, "dtype": str(key.dtype)} for key in definition.join_keys]
            _put(sections["entities"], "entity", definition.name, {"join_keys": keys, **definition.described()})
        case FeatureView():
            for entity in definition.entities:
                _add(sections, entity)
            _put(sections["views"], "feature view", definition.name, definition.to_json())
        case OnDemandFeatureView():
            for view in _views_of(definition):
                _add(sections, view)
            _put(sections["on_demand_views"], "on-demand feature view", definition.name, on_demand_json(definition))
        case FeatureService():
            for part in definition.selections():
                _add(sections, part.view)
            _put(sections["services"], "feature service", definition.name, definition.to_json())


def _put(section: dict[str, Any], kind: str, name: str, value: dict[str, Any]) -> None:
    if section.setdefault(name, value) != value:
        raise DefinitionError(
            "name_clash", f"there are two different definitions of {kind} '{name}'", "rename one of them"
        )


def _views_of(view: OnDemandFeatureView) -> list[FeatureView]:
    views = []
    for source in view.inputs:
        stored = source.view if isinstance(source, FeatureSelection) else source
        if isinstance(stored, FeatureView):
            views.append(stored)
    return views


def on_demand_json(view: OnDemandFeatureView) -> dict[str, Any]:
    """An on-demand view as the plan holds it. Of a whole view, only the features in use become inputs."""
    owner = f"on-demand feature view '{view.name}'"
    used = [name for field in view.schema if field.expr is not None for name in column_names(field.expr.node)]
    known = {field.name for field, _, _ in _inputs_of(view)}
    for name in used:
        if name not in known:
            raise make_error(
                "invalid_expression",
                f"{owner}: an expression uses '{name}', which is not an input",
                nearest_hint(name, known, "inputs"),
            )
    inputs: dict[str, dict[str, str]] = {}
    for field, origin, _ in _inputs_of(view):
        if field.name not in used:
            continue
        if field.name in inputs:
            other = inputs[field.name]["from"]
            raise DefinitionError(
                "name_clash",
                f"{owner}: its input '{field.name}' comes from '{other}' and from '{origin}'",
                "select the features of one view only, or rename one in its source",
            )
        inputs[field.name] = {"name": field.name, "dtype": str(field.dtype), "from": origin}
    fields = [
        {"name": field.name, "dtype": str(field.dtype), "expr": for_plan(field.expr.node)}
        for field in view.schema
        if field.expr is not None
    ]
    return {"inputs": list(inputs.values()), "fields": fields, **view.described()}


def check_inputs_used(definitions: Iterable[Definition]) -> None:
    """Refuses an input that was asked for by name and is used by no expression.

    It comes after the engine's check of the expressions: what is wrong in one is often why an input seems unused.

    Raises:
        DefinitionError: `invalid_definition`.
    """
    views = {view.name: view for definition in definitions for view in _on_demand_views(definition)}
    for view in views.values():
        used = {name for field in view.schema if field.expr is not None for name in column_names(field.expr.node)}
        for field, _, required in _inputs_of(view):
            if required and field.name not in used:
                raise DefinitionError(
                    "invalid_definition",
                    f"on-demand feature view '{view.name}': no expression uses its input '{field.name}'",
                    "leave it out of the inputs",
                )


def _on_demand_views(definition: Definition) -> list[OnDemandFeatureView]:
    match definition:
        case OnDemandFeatureView():
            return [definition]
        case FeatureService():
            return [part.view for part in definition.selections() if isinstance(part.view, OnDemandFeatureView)]
        case _:
            return []


def _inputs_of(view: OnDemandFeatureView) -> list[tuple[Field, str, bool]]:
    """(field, where it comes from, whether it was asked for by name)"""
    found: list[tuple[Field, str, bool]] = []
    for source in view.inputs:
        if isinstance(source, Field):
            found.append((source, "request", True))
        elif isinstance(source, FeatureSelection):
            fields = {field.name: field for field in source.view.features}
            found.extend((fields[name], source.view.name, True) for name in source.names)
        else:
            found.extend((field, source.name, False) for field in source.features)
    return found
