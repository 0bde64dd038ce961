"""What `apply` would change, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace import _native
from headrace.expressions import expression_text
from headrace.registry import ModelUse

_KINDS = {
    "entity": "entity",
    "view": "feature view",
    "on_demand_view": "on-demand feature view",
    "service": "feature service",
}


@dataclass(frozen=True)
class Change:
    """A definition that is added, changed or removed."""

    kind: str
    """entity, view, on_demand_view or service"""
    name: str
    details: tuple[str, ...]

    def __str__(self) -> str:
        return f"{_KINDS.get(self.kind, self.kind)} {self.name}"


@dataclass(frozen=True)
class Breaking:
    """A change that takes something away from services, and from the models trained on them."""

    view: str
    field: str | None
    """None when the view is removed or its key changes."""
    old: str
    new: str
    services: tuple[str, ...]
    models: tuple[str, ...]
    """`NAME/VERSION` of the registered models that take their inputs from one of the services."""

    def __str__(self) -> str:
        thing = f"view {self.view}" if self.field is None else f"{self.view}.{self.field}"
        users = [f"service {name}" for name in self.services] + [f"model {name}" for name in self.models]
        return f"{thing}: {self.old} -> {self.new} would break {', '.join(users)}"


@dataclass(frozen=True)
class PlanDiff:
    """The difference between the plan in force and the definitions. It is false when nothing changes."""

    digest: str
    """Of the new plan."""
    added: tuple[Change, ...]
    changed: tuple[Change, ...]
    removed: tuple[Change, ...]
    breaking: tuple[Breaking, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        if not self:
            return "no changes"
        lines = []
        for sign, changes in (("+", self.added), ("~", self.changed), ("-", self.removed)):
            for change in changes:
                lines.append(f"{sign} {change}")
                lines.extend(f"    {detail}" for detail in change.details)
        lines.extend(f"! {breaking}" for breaking in self.breaking)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as data for JSON."""

        def listed(changes: Sequence[Change]) -> list[dict[str, Any]]:
            return [{"kind": change.kind, "name": change.name, "details": list(change.details)} for change in changes]

        return {
            "digest": self.digest,
            "added": listed(self.added),
            "changed": listed(self.changed),
            "removed": listed(self.removed),
            "breaking": [
                {
                    "view": item.view,
                    "field": item.field,
                    "old": item.old,
                    "new": item.new,
                    "services": list(item.services),
                    "models": list(item.models),
                }
                for item in self.breaking
            ],
        }


def _readable(detail: str) -> str:
    """A line of the engine's diff with its expressions as one would write them, not as JSON."""
    decoder = json.JSONDecoder()
    text, position = "", 0
    while (start := detail.find('{"', position)) >= 0:
        try:
            node, end = decoder.raw_decode(detail, start)
            shown = expression_text(node)
        except (ValueError, KeyError, TypeError):
            break
        text += detail[position:start] + shown
        position = end
    return text + detail[position:]


def diff_plans(old: _native.Plan | None, new: _native.Plan, models: Sequence[ModelUse]) -> PlanDiff:
    """The difference, with the registered models that a breaking change would break."""
    document = json.loads(new.diff(old))

    def changes(name: str) -> tuple[Change, ...]:
        return tuple(
            Change(item["kind"], item["name"], tuple(_readable(line) for line in item["details"]))
            for item in document[name]
        )

    breaking = tuple(
        Breaking(
            view=item["view"],
            field=item["field"],
            old=item["old"],
            new=item["new"],
            services=tuple(item["services"]),
            models=tuple(str(model) for model in models if model.service in item["services"]),
        )
        for item in document["breaking"]
    )
    return PlanDiff(new.digest, changes("added"), changes("changed"), changes("removed"), breaking)
