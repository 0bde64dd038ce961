"""Opens the project that a command works on, and says what is missing in the command's own words."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from headrace import FeatureStore
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
