"""Opens the project that a command works on, and says what is missing in the command's own words."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Collection
from pathlib import Path

from headrace import FeatureStore, HeadraceError
from headrace_control.errors import ControlError


def check_project(project: Path) -> None:
    """Makes sure that the folder is a project.

    Raises:
        ControlError: `not_a_project`.
    """
    if not (project / "headrace.toml").is_file():
        raise ControlError(
            "not_a_project",
            f"there is no headrace.toml in {project.resolve()}",
            "go to a project's folder, name it with --project, or make one with: headrace init NAME",
        )


def open_store(project: Path, now: datetime.datetime | None = None) -> FeatureStore:
    """The project's features.

    Args:
        project: the folder.
        now: a clock that stands still at this time; `None` is the machine's.

    Raises:
        ControlError: `not_a_project`.
        headrace.HeadraceError: a setting is wrong.
    """
    check_project(project)
    return FeatureStore(project, clock=standing_clock(now))


def open_applied(project: Path, now: datetime.datetime | None = None) -> FeatureStore:
    """As `open_store`, for commands that need a plan in force.

    Raises:
        ControlError: `not_a_project`, `not_applied`.
    """
    store = open_store(project, now)
    if store.plans.head() is None:
        raise ControlError(
            "not_applied", f"no definitions have been applied in {project.resolve()}", "run: headrace apply"
        )
    return store


def newer_than(store: FeatureStore, clock: datetime.datetime, views: Collection[str] | None = None) -> list[str]:
    """Warnings about views whose materialized intervals end after a clock: the online table keeps only the newest rows.

    Args:
        store: the project's features, with a plan in force.
        clock: the time as of which features are read.
        views: only these; `None` is every view.
    """
    if store.plans.head() is None:
        return []
    online, at = store.open_online(), to_us(clock)
    ends = {
        name: max((end for _, end in online.intervals(name)), default=at)
        for name, view in json.loads(store.applied.json)["views"].items()
        if view["source"]["event_ts"] is not None and (views is None or name in views)
    }
    late = [name for name, end in ends.items() if end > at]
    if not late:
        return []
    until = from_us(max(ends[name] for name in late)).isoformat(timespec="seconds")
    return [
        f"the online table was materialized until {until}, after the clock {clock.isoformat(timespec='seconds')}: "
        f"it keeps only the newest row of each key, so features may be younger than the clock "
        f"(views: {', '.join(late)}); for features as of then, materialize --end {clock:%Y-%m-%dT%H:%M:%SZ} first, "
        "into a table that has no later rows"
    ]


def differs(store: FeatureStore) -> str | None:
    """Says that the definitions are not those of the plan in force, which is what the command works with."""
    try:
        same = store.project.compile().digest == store.plans.head()
    except HeadraceError as error:
        return f"the definitions are wrong, and the plan in force is used: {error.message}"
    if same:
        return None
    return "the definitions differ from the plan in force, which is used; to put them in force, run: headrace apply"


def standing_clock(now: datetime.datetime | None) -> Callable[[], int] | None:
    if now is None:
        return None
    at = to_us(now)
    return lambda: at


def to_us(when: datetime.datetime) -> int:
    """Microseconds since 1970 in UTC."""
    return (when - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=microseconds)
