"""The text format of Prometheus, as far as our servers write it."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headrace.errors import make_error

PAGE_BYTES_MAX = 64 * 1024 * 1024
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? +(\S+)(?: +-?\d+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """A server's metrics at one moment; none of them, and the reason, where it could not be asked."""

    url: str
    at: float
    """Seconds of a clock that only goes forward."""
    families: Mapping[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    error: str | None = None

    def series(self, name: str, **wanted: str) -> Iterator[tuple[dict[str, str], float]]:
        """The samples of a name that have these labels."""
        for labels, value in self.families.get(name, []):
            if all(labels.get(label) == text for label, text in wanted.items()):
                yield labels, value

    def total(self, name: str, **wanted: str) -> float:
        return sum(value for _, value in self.series(name, **wanted))


def parse(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Metrics by name. A line that is none is left out: a newer server may write what this program does not know."""
    families: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.fullmatch(line)
        if found is None:
            continue
        name, labels, value = found.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        families.setdefault(name, []).append((_labels(labels or ""), number))
    return families


def _labels(text: str) -> dict[str, str]:
    def plain(value: str) -> str:
        return re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)

    return {found[1]: plain(found[2]) for found in _LABEL.finditer(text)}


def scrape(url: str, timeout: float = 5.0) -> Sample:
    """Asks `HOST:PORT` for its metrics. A server that cannot be asked gives a sample with an error."""
    host, _, port = url.rpartition(":")
    try:
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            body = answer.read(PAGE_BYTES_MAX)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        return Sample(url, time.monotonic(), error=f"cannot be asked: {error}")
    if answer.status != 200:
        return Sample(url, time.monotonic(), error=f"answers {answer.status}")
    return Sample(url, time.monotonic(), parse(body.decode("utf-8", "replace")))


def check_url(url: str) -> str:
    """`HOST:PORT` of a metrics port, however it was written.

    Raises:
        InputError: it is none.
    """
    plain = url.removeprefix("http://").removesuffix("/").removesuffix("/metrics")
    host, _, port = plain.rpartition(":")
    host = host or "127.0.0.1"
    if not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise make_error("invalid_argument", f"'{url}' is no metrics port", "write HOST:PORT, such as 127.0.0.1:8002")
    return f"{host}:{port}"
