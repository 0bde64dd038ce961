"""Where a client connects to, and as whom."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from headrace.client.failures import refuse_argument

API_KEY_VARIABLE = "HEADRACE_API_KEY"
ANSWER_BYTES_MAX = 256 << 20

SCHEMES = {"http": (8000, False), "https": (443, True), "grpc": (8001, False), "grpcs": (443, True)}
"""Scheme -> its usual port, and whether it is encrypted."""


@dataclass(frozen=True)
class Tls:
    """How an encrypted connection is checked, for `https://` and `grpcs://`."""

    ca: str | os.PathLike[str] | None = None
    """A PEM file of the authorities that are trusted; by default the system's."""
    certificate: str | os.PathLike[str] | None = None
    """A PEM file with the client's own certificate, and `key` with its key."""
    key: str | os.PathLike[str] | None = None
    verify: bool = True
    """False takes any certificate, over HTTP only: for trials."""

    def context(self) -> ssl.SSLContext:
        """Of the standard library."""
        context = ssl.create_default_context(cafile=None if self.ca is None else os.fspath(self.ca))
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class Address:
    """Of a server."""

    scheme: str
    host: str
    port: int
    path: str = ""
    """Before the paths of headrace, where it is mounted in another application."""

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def is_encrypted(self) -> bool:
        return SCHEMES[self.scheme][1]

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"


def address_of(text: str) -> Address:
    """Reads `http://HOST:PORT` and its kin.

    Raises:
        InputError: `invalid_argument`.
    """
    hint = "give http://HOST:PORT, https://, grpc:// or grpcs://"
    try:
        parts = urlsplit(text)
        port = parts.port
    except (ValueError, AttributeError, TypeError) as error:
        refuse_argument(f"the address {text!r} cannot be read: {error}", hint)
    if parts.scheme not in SCHEMES or not parts.hostname:
        refuse_argument(f"the address {text!r} is not one of a server", hint)
    if parts.username or parts.password or parts.query or parts.fragment:
        refuse_argument("the address holds more than a host, a port and a path", f"{hint}; a key is given as api_key=")
    path = parts.path.rstrip("/")
    if path and parts.scheme.startswith("grpc"):
        refuse_argument(f"the gRPC address {text!r} has a path", hint)
    return Address(parts.scheme, parts.hostname, SCHEMES[parts.scheme][0] if port is None else port, path)


def api_key_of(given: str | None, file: str | os.PathLike[str] | None) -> str | None:
    """The key that is given, in a file, or in HEADRACE_API_KEY.

    Raises:
        InputError: `invalid_argument` for one that no header can hold.
        OSError: the file cannot be read.
    """
    if given is None and file is not None:
        given = Path(file).read_text("utf-8").strip()
    if given is None:
        given = os.environ.get(API_KEY_VARIABLE, "").strip() or None
    if given is not None and not (given.isascii() and given.isprintable() and given and " " not in given):
        refuse_argument("the API key is not one word of printable ASCII", "give the key alone, without 'Bearer'")
    return given
