"""Types of command-line values that several commands share."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    TimeType = click.ParamType[datetime.datetime]
    AddressType = click.ParamType[tuple[str | None, int]]
    SecondsType = click.ParamType[datetime.timedelta]
    LatencyType = click.ParamType[float]
else:  # older versions of click cannot be subscripted
    TimeType = AddressType = SecondsType = LatencyType = click.ParamType


class UtcTime(TimeType):
    """A time in ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.datetime:
        if isinstance(value, datetime.datetime):
            return value
        try:
            when = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is not a time; write it like 2013-11-01T12:00:00Z", param, ctx)
        return when.replace(tzinfo=datetime.UTC) if when.tzinfo is None else when.astimezone(datetime.UTC)


class Address(AddressType):
    """`PORT` or `HOST:PORT`; port 0 takes a free one."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            self.fail(f"'{value}' is not an address; write 8000 or 127.0.0.1:8000", param, ctx)
        return host or None, int(port)


class Seconds(SecondsType):
    """A number and its unit: `500ms`, `5s`, `2m`, `1h`."""

    name = "duration"
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 (constant)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.timedelta:
        if isinstance(value, datetime.timedelta):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(ms|s|m|h|d)", str(value))
        if found is None:
            self.fail(f"'{value}' is not a duration; write it like 500ms, 5s, 2m or 1h", param, ctx)
        return datetime.timedelta(seconds=float(found[1]) * self.units[found[2]])


class Latency(LatencyType):
    """A time of a request, in microseconds: `500us`, `5ms`, `0.01s`."""

    name = "latency"
    units = {"us": 1.0, "ms": 1e3, "s": 1e6}  # noqa: RUF012 (constant)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s)", str(value))
        us = float(found[1]) * self.units[found[2]] if found is not None else 0.0
        if us <= 0:
            self.fail(f"'{value}' is not a latency; write it like 5ms, 500us or 0.01s", param, ctx)
        return us


UTC_TIME = UtcTime()
ADDRESS = Address()
SECONDS = Seconds()
LATENCY = Latency()
