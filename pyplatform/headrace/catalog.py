"""The catalogue of a project: what is defined, who answers for it, who uses it, and how to find it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headrace.errors import make_error
from headrace.lineage import lineage_of, view_features
from headrace.registry import ModelUse

EntryKind = Literal["entity", "view", "on_demand_view", "feature", "service", "model"]


@dataclass(frozen=True)
class Entry:
    """One definition, feature or model. A feature has its view's owner and tags, a model its service's owner."""

    kind: EntryKind
    name: str
    """A feature is `VIEW:FEATURE`."""
    description: str
    owner: str
    tags: Mapping[str, str]
    details: str
    """What else tells it apart: keys, types, members."""
    score: float = 0.0
    """Of a search; more is better."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FeatureUse:
    """A feature and who uses it."""

    view: str
    name: str
    dtype: str
    computed: bool
    owner: str
    tags: Mapping[str, str]
    description: str
    """Of its view."""
    services: tuple[str, ...]
    """That give it, or a feature computed from it."""
    models: tuple[str, ...]
    """`NAME/VERSION` of those that take it, or a feature computed from it."""
    fresh_until_us: int | None = None
    """The end of the view's last materialized interval in microseconds UTC; None where there is none."""

    @property
    def unused(self) -> str:
        """Why it is unused; empty where a model takes it."""
        if not self.services:
            return "in no service"
        return "" if self.models else "no model takes it from its services"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "unused": self.unused}


def entries_of(plan: Mapping[str, Any], models: Sequence[ModelUse]) -> list[Entry]:
    """Everything in a plan document and the models registered beside it, in the order of kinds and names."""
    found: list[Entry] = []

    def add(kind: EntryKind, name: str, definition: Mapping[str, Any], details: str) -> None:
        found.append(Entry(kind, name, definition["description"], definition["owner"], definition["tags"], details))

    for name, entity in plan["entities"].items():
        add("entity", name, entity, _fields_text(entity["join_keys"]))
    for name, view in plan["views"].items():
        source = view["source"]
        place = source["path"] if source["kind"] == "file" else "pushed"
        add("view", name, view, f"of {', '.join(view['entities']) or 'everything'}, {place}")
    for name, view in plan["on_demand_views"].items():
        add("on_demand_view", name, view, f"from {', '.join(item['name'] for item in view['inputs'])}")
    for views in (plan["views"], plan["on_demand_views"]):
        for name, view in views.items():
            for field in view_features(view):
                add("feature", f"{name}:{field['name']}", view, field["dtype"])
    for name, service in plan["services"].items():
        add("service", name, service, ", ".join(entry["name"] for entry in service["features"]))
    nobody = {"description": "", "owner": "", "tags": {}}
    for model in models:
        service = plan["services"].get(model.service, nobody)
        about = {**nobody, "owner": service["owner"]}
        add("model", str(model), about, f"takes {', '.join(model.features)} from {model.service or 'no service'}")
    return found


def _fields_text(fields: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(f"{field['name']} {field['dtype']}" for field in fields)


# The place of a word counts first, then how much of a word was asked for.
_NAME, _LABEL, _DESCRIPTION, _DETAILS = 8.0, 4.0, 2.0, 1.0
_WHOLE, _BEGINNING, _WITHIN = 1.0, 0.6, 0.3
_WORD = re.compile(r"[^\W_]+")


def search(
    entries: Sequence[Entry],
    text: str = "",
    tags: Mapping[str, str] | Sequence[str] | None = None,
    owner: str | None = None,
) -> list[Entry]:
    """The entries that hold every word of `text`, best first.

    A word counts by where it is found (name, then tags and owner, description, details) and by how much of the found
    word it is (all, its beginning, a part). Entries of equal score keep their order.

    Args:
        entries: where to look.
        text: words in any order; case does not matter. Empty finds everything.
        tags: only entries with these: `{"tier": "gold"}`, or a list of `"tier"` (any value) and `"tier=gold"`.
        owner: only entries of this owner.

    Raises:
        InputError: `invalid_argument`, an argument has the wrong type.
    """
    if not isinstance(text, str) or not isinstance(owner, str | None):
        raise make_error("invalid_argument", f"the search for {text!r}, owner {owner!r} is not text", "give strings")
    wanted = _wanted_tags(tags)
    found = []
    for entry in entries:
        if owner is not None and entry.owner.casefold() != owner.casefold():
            continue
        if any(key not in entry.tags or value not in (None, entry.tags[key]) for key, value in wanted):
            continue
        score = _score(entry, text)
        if score is not None:
            found.append(Entry(**{**vars(entry), "score": score}))
    return sorted(found, key=lambda entry: -entry.score)


def _wanted_tags(tags: Mapping[str, str] | Sequence[str] | None) -> list[tuple[str, str | None]]:
    if isinstance(tags, Mapping):
        return list(tags.items())
    if isinstance(tags, str):
        tags = [tags]
    wanted: list[tuple[str, str | None]] = []
    for tag in tags or ():
        key, equals, value = tag.partition("=")
        wanted.append((key, value if equals else None))
    return wanted


def _score(entry: Entry, text: str) -> float | None:
    """None where a word is not found."""
    places = [
        (_NAME, entry.name),
        (_LABEL, " ".join([entry.owner, *entry.tags, *entry.tags.values()])),
        (_DESCRIPTION, entry.description),
        (_DETAILS, entry.details),
    ]
    words = [(weight, _words(place)) for weight, place in places]
    total = 0.0
    for asked in _words(text):
        best = max((weight * _match(asked, word) for weight, found in words for word in found), default=0.0)
        if not best:
            return None
        total += best
    return round(total + (_NAME if text and text.casefold() == entry.name.casefold() else 0.0), 3)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _match(asked: str, word: str) -> float:
    if asked == word:
        return _WHOLE
    return _BEGINNING if word.startswith(asked) else _WITHIN if asked in word else 0.0


def features_of(
    plan: Mapping[str, Any], models: Sequence[ModelUse], fresh_until_us: Mapping[str, int]
) -> list[FeatureUse]:
    """Every feature with its users.

    Args:
        plan: the plan document.
        models: those registered.
        fresh_until_us: view -> the end of its last materialized interval.
    """
    graph = lineage_of(plan, models)
    services = plan["services"]
    takers: dict[str, set[str]] = {}  # feature -> the models that take it itself
    for model in models:
        for entry in services.get(model.service, {}).get("features", ()):
            if entry["name"] in model.features:
                takers.setdefault(f"feature {entry['view']}:{entry['feature']}", set()).add(str(model))
    order = {str(model): place for place, model in enumerate(models)}
    found = []
    for section in ("views", "on_demand_views"):
        for name, view in plan[section].items():
            for field in view_features(view):
                made = graph.downstream([f"feature {name}:{field['name']}"])
                taken_by = set().union(*(takers.get(key, set()) for key in made))
                found.append(
                    FeatureUse(
                        view=name,
                        name=field["name"],
                        dtype=field["dtype"],
                        computed=section == "on_demand_views",
                        owner=view["owner"],
                        tags=view["tags"],
                        description=view["description"],
                        services=tuple(service for service in services if f"service {service}" in made),
                        models=tuple(sorted(taken_by, key=order.__getitem__)),
                        fresh_until_us=fresh_until_us.get(name),
                    )
                )
    return found
