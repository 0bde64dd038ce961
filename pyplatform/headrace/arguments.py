"""What callers hand over in place of a name or a time, checked before the engine sees it.

No frame library is imported here.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from typing import Any

from headrace.definitions import FeatureService
from headrace.errors import make_error
from headrace.expressions import datetime_us


def service_name(service: Any) -> str:
    """The name of a feature service, given by name or as its definition.

    Raises:
        InputError: `type_mismatch`.
    """
    if isinstance(service, FeatureService):
        return service.name
    if isinstance(service, str):
        return service
    hint = "give its name, or the FeatureService itself"
    if isinstance(service, list | tuple):
        hint = "define a FeatureService of these features, apply it, and give its name"
    raise make_error("type_mismatch", f"the feature service is {service!r}, not a name", hint)


def folder_path(path: Any) -> str | os.PathLike[str]:
    """A project's folder.

    Raises:
        InputError: `type_mismatch`.
    """
    if isinstance(path, str | os.PathLike):
        found: str | os.PathLike[str] = path
        return found
    raise make_error("type_mismatch", f"the project's folder is {path!r}, not a path", "give a str or a Path")


def time_us(what: str, value: Any) -> int:
    """A time in microseconds UTC, given so or as a datetime (in UTC, if it has no zone).

    Raises:
        InputError: `type_mismatch`.
    """
    if isinstance(value, dt.datetime):
        return datetime_us(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise make_error("type_mismatch", f"{what} is {value!r}, not a time", "give a datetime, or microseconds since 1970")


def machine_clock() -> int:
    """The machine's clock, in microseconds UTC."""
    return time.time_ns() // 1000


def checked_clock(clock: Any) -> Callable[[], int]:
    """A clock that a caller made, with each of its times checked.

    Raises:
        InputError: `type_mismatch`.
    """
    if not callable(clock):
        hint = "give a function that returns microseconds since 1970 or a datetime, for example clock=lambda: now"
        raise make_error("type_mismatch", f"clock is {clock!r}, not a function", hint)
    return lambda: time_us("what the clock returned", clock())
