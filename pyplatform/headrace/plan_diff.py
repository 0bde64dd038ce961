"""What `apply` would change, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace import _native
from headrace.expression_nodes import expression_text
from headrace.functions import calls_of
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
    """A change that takes something away from services, or from the models trained on them."""

    kind: str
    """view (stored or on-demand) or service"""
    name: str
    field: str | None
    """The feature or the request's field; None when all of it is removed or its key changes."""
    old: str
    new: str
    services: tuple[str, ...]
    models: tuple[str, ...]
    """`NAME/VERSION` of the registered models that take their inputs from one of the services."""
    owners: tuple[str, ...] = ()
    """Of the view or service and of the services that would break: whom to ask first."""

    def __str__(self) -> str:
        thing = self.name if self.kind == "view" else f"{self.kind} {self.name}"
        thing = f"{self.kind} {self.name}" if self.field is None else f"{thing}.{self.field}"
        users = [f"service {name}" for name in self.services] + [f"model {name}" for name in self.models]
        owned = f" (owners: {', '.join(self.owners)})" if self.owners else ""
        return f"{thing}: {self.old} -> {self.new} would break {', '.join(users)}{owned}"


@dataclass(frozen=True)
class PlanDiff:
    """The difference between the plan in force and the definitions. It is false when nothing changes."""

    digest: str
    """Of the new plan."""
    added: tuple[Change, ...]
    changed: tuple[Change, ...]
    removed: tuple[Change, ...]
    breaking: tuple[Breaking, ...]
    python_hops: tuple[str, ...] = ()
    """Features of the new plan that call the Python interpreter, `VIEW.FEATURE calls MODULE:FUNCTION`."""

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        hops = [f"python hop: {hop}" for hop in self.python_hops]
        if not self:
            return "\n".join(["no changes", *hops])
        lines = []
        for sign, changes in (("+", self.added), ("~", self.changed), ("-", self.removed)):
            for change in changes:
                lines.append(f"{sign} {change}")
                lines.extend(f"    {detail}" for detail in change.details)
        lines.extend(f"! {breaking}" for breaking in self.breaking)
        return "\n".join(lines + hops)

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
                    "kind": item.kind,
                    "name": item.name,
                    "field": item.field,
                    "old": item.old,
                    "new": item.new,
                    "services": list(item.services),
                    "models": list(item.models),
                    "owners": list(item.owners),
                }
                for item in self.breaking
            ],
            "python_hops": list(self.python_hops),
        }


def _readable(detail: str) -> str:
    """A line of the engine's diff with its expressions as one would write them, not as JSON."""
    decoder = json.JSONDecoder()
    text, position = "", 0
    expressions = []
    while (start := detail.find('{"', position)) >= 0:
        try:
            node, end = decoder.raw_decode(detail, start)
            shown = expression_text(node)
        except (ValueError, KeyError, TypeError):
            break
        expressions.append(shown)
        text += detail[position:start] + shown
        position = end
    is_code = len(expressions) == 2 and expressions[0] == expressions[1]
    return text + detail[position:] + (" (the code of a function changed)" if is_code else "")


def _members(detail: str) -> list[str]:
    """A line of the engine's diff; of a changed source, a line for each member that changes."""
    decoder = json.JSONDecoder()
    try:
        if not detail.startswith("source: {"):
            return [detail]
        old, end = decoder.raw_decode(detail, len("source: "))
        new, _ = decoder.raw_decode(detail, end + len(" -> "))
    except ValueError:
        return [detail]
    before, after = _flat(old), _flat(new)
    return [
        f"source.{name}: {json.dumps(before.get(name))} -> {json.dumps(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(source: dict[str, Any]) -> dict[str, Any]:
    """The members of a source, with each column that it renames as one."""
    renamed = {f"rename.{old}": new for old, new in source.get("rename", {}).items()}
    return {**{name: value for name, value in source.items() if name != "rename"}, **renamed}


def diff_plans(old: _native.Plan | None, new: _native.Plan, models: Sequence[ModelUse]) -> PlanDiff:
    """The difference, with the registered models that a breaking change would break."""
    document = json.loads(new.diff(old))

    def changes(name: str) -> tuple[Change, ...]:
        return tuple(
            Change(
                item["kind"],
                item["name"],
                tuple(_readable(line) for told in item["details"] for line in _members(told)),
            )
            for item in document[name]
        )

    owners = _Owners(old, new)
    breaking = tuple(
        Breaking(
            kind="view",
            name=item["view"],
            field=item["field"],
            old=item["old"],
            new=item["new"],
            services=tuple(item["services"]),
            models=tuple(str(model) for model in models if model.service in item["services"]),
            owners=owners.of([item["view"]], item["services"]),
        )
        for item in document["breaking"]
    )
    if old is not None:
        breaking += tuple(replace(item, owners=owners.of([], [item.name])) for item in _broken_models(old, new, models))
    hops = tuple(
        f"{view}.{feature} calls {function['name']}"
        for view, feature, function in calls_of(new)
        if function["kind"] == "python"
    )
    return PlanDiff(new.digest, changes("added"), changes("changed"), changes("removed"), breaking, hops)


class _Owners:
    """Who answers for views and services: those who did until now, and those who would."""

    def __init__(self, *plans: _native.Plan | None) -> None:
        self._documents = [json.loads(plan.json) for plan in plans if plan is not None]

    def of(self, views: Sequence[str], services: Sequence[str]) -> tuple[str, ...]:
        wanted = [("views", view) for view in views] + [("on_demand_views", view) for view in views]
        wanted += [("services", service) for service in services]
        found = [
            document[section][name]["owner"]
            for section, name in wanted
            for document in self._documents
            if name in document[section]
        ]
        return tuple(dict.fromkeys(owner for owner in found if owner))


@dataclass(frozen=True)
class _ServiceFeature:
    origin: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.dtype}"


def _features(plan: _native.Plan, services: set[str]) -> dict[str, dict[str, _ServiceFeature]]:
    """The features by name of those services that the plan has."""
    found = {}
    for service in services & json.loads(plan.json)["services"].keys():
        features = json.loads(plan.service(service))["features"]
        found[service] = {
            item["name"]: _ServiceFeature(f"{item['view']}.{item['feature']}", item["dtype"]) for item in features
        }
    return found


def _broken_models(old: _native.Plan, new: _native.Plan, models: Sequence[ModelUse]) -> tuple[Breaking, ...]:
    """What a service no longer gives to a model that was trained on it. What its views lose is found by the engine."""
    broken: dict[tuple[str, str | None, str, str], list[str]] = {}
    lost: tuple[str, str | None, str, str]
    taken = {model.service for model in models if model.service is not None}
    features_before, features_after = _features(old, taken), _features(new, taken)
    for model in models:
        if model.service is None or model.service not in features_before:
            continue
        before, after = features_before[model.service], features_after.get(model.service)
        if after is None:
            lost = (model.service, None, f"service of {len(before)} features", "removed")
            broken.setdefault(lost, []).append(str(model))
            continue
        for name in before.keys() & model.features.keys():
            had, now = before[name], after.get(name)
            if now is None or (now.origin != had.origin and now.dtype != had.dtype):
                lost = (model.service, name, str(had), "removed" if now is None else str(now))
                broken.setdefault(lost, []).append(str(model))
    return tuple(
        Breaking("service", service, name, had, now, services=(), models=tuple(users))
        for (service, name, had, now), users in sorted(broken.items(), key=str)
    )
