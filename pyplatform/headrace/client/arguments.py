"""What callers ask, before it is a request of any transport."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.client.columns import Mapped, plain_columns, plain_value
from headrace.client.failures import refuse_argument


@dataclass(frozen=True)
class Predict:
    """A prediction: of which deployment, and on what."""

    deployment: str
    version: int | None
    id: str
    entities: Mapped
    features: Mapped
    request: Mapped
    outputs: tuple[str, ...]
    explain: bool
    explain_top: int
    """0 for all features."""
    priority: int


def predict_arguments(
    deployment: str,
    entities: Any,
    features: Any,
    request: Any,
    outputs: Sequence[str] | None,
    explain: bool | Mapping[str, int],
    version: int | None,
    id: str | None,  # noqa: A002 (the member's name in the Common API)
    priority: int,
) -> Predict:
    """Checks and gathers them.

    Raises:
        InputError: `invalid_argument`, `type_mismatch`.
    """
    if isinstance(outputs, str):
        refuse_argument(f"outputs is {outputs!r}, not a list", 'give names: ["label", "scores", "margin"]')
    top = 0
    if isinstance(explain, Mapping):
        top = explain.get("top", 0)
        if set(explain) != {"top"} or isinstance(top, bool) or not isinstance(top, int) or top < 1:
            refuse_argument(f"explain is {dict(explain)!r:.100}", 'give True, or {"top": 5}')
    return Predict(
        deployment=name_of("deployment", deployment),
        version=version_of(version),
        id=id_of(id),
        entities=plain_columns("entities", entities),
        features=plain_columns("features", features),
        request=plain_columns("request", request),
        outputs=tuple(outputs or ()),
        explain=bool(explain),
        explain_top=top,
        priority=priority_of(priority),
    )


def name_of(what: str, name: Any) -> str:
    """A name, which may be any text but none.

    Raises:
        InputError: `invalid_argument`.
    """
    name = getattr(name, "name", name)
    if not isinstance(name, str) or not name:
        refuse_argument(f"the {what} is {name!r:.100}, not a name", "give its name")
    return name


def version_of(version: Any) -> int | None:
    is_number = isinstance(version, int) and not isinstance(version, bool) and version >= 0
    if version is not None and not is_number:
        refuse_argument(f"version is {version!r:.100}, not a number", "give a number, or None for the usual one")
    return version  # type: ignore[no-any-return]


def id_of(given: str | None) -> str:
    """The caller's, or one that is made here, so that errors tell it too."""
    if given is None:
        return uuid.uuid4().hex
    if not isinstance(given, str):
        refuse_argument(f"id is {given!r:.100}, not a text", "give a text")
    return given


def priority_of(priority: Any) -> int:
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= 9:
        refuse_argument(f"priority is {priority!r:.100}", "give 1 (first) to 9 (last), or 0 for the usual one")
    return priority


def seconds_of(timeout: float | None, usual: float) -> float:
    """A time limit.

    Raises:
        InputError: `invalid_argument`.
    """
    seconds = usual if timeout is None else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        refuse_argument(f"timeout is {seconds!r:.100}", "give a number of seconds above 0")
    return float(seconds)


def event_time(given: Any) -> Any:
    """A datetime; microseconds since 1970 become one.

    Raises:
        InputError: `invalid_argument`, `type_mismatch`.
    """
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=given)
    time = plain_value("event_ts", given)
    if not isinstance(time, dt.datetime):
        refuse_argument(f"event_ts is {given!r:.100}, not a time", "give a datetime, or microseconds since 1970")
    return time
