"""Calls that got no answer, as the exceptions of headrace, and whether they may be made again."""

from __future__ import annotations

import enum
from typing import NoReturn

from headrace.errors import HeadraceError, make_error

CODE_OF_STATUS = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "cancelled",
    413: "too_large",
    429: "rate_limited",
    501: "unsupported",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
    507: "store_full",
}
"""Slugs of answers that name none, which others than headrace give: proxies, mostly."""

TEXT_CHARS_MAX = 2000
"""Of a server's words in a message."""


class Repeat(enum.Enum):
    """Whether a call that failed may be made again."""

    NEVER = enum.auto()
    IDEMPOTENT = enum.auto()
    """It may have been done, so only a call that does the same when it is done twice."""
    ALWAYS = enum.auto()
    """It has not reached the server."""


class Failure(Exception):  # noqa: N818 (the error is inside)
    """An attempt that got no answer; it never leaves the client."""

    def __init__(
        self, error: HeadraceError, repeat: Repeat = Repeat.NEVER, *, wait_seconds: float = 0.0, request_id: str = ""
    ) -> None:
        super().__init__(error)
        self.error = error
        self.repeat = repeat
        self.wait_seconds = wait_seconds
        """How long the server asks to be left alone."""
        self.request_id = request_id
        """As the server tells it."""


def split_hint(text: str) -> tuple[str, str]:
    """`what was wrong (what to do)` as message and hint."""
    text = text.strip()
    if not text.endswith(")"):
        return text, ""
    depth = 0
    for place in range(len(text) - 1, 0, -1):
        depth += (text[place] == ")") - (text[place] == "(")
        if depth == 0:
            is_apart = text[place - 1] == " "
            return (text[: place - 1], text[place + 1 : -1]) if is_apart else (text, "")
    return text, ""


def refusal(code: str, text: str) -> HeadraceError:
    """The exception for what a server says of a request."""
    message, hint = split_hint(text[:TEXT_CHARS_MAX])
    return make_error(code, message, hint)


def unreachable(address: str, reason: object, repeat: Repeat) -> Failure:
    """Of a connection that was not made, or lost before an answer."""
    message = f"{address} cannot be reached: {reason}"
    return Failure(make_error("unavailable", message, "is the server running there?"), repeat)


def late(address: str, seconds: float) -> Failure:
    """Of an answer that did not come in time."""
    message = f"{address} did not answer within {seconds:g} s"
    return Failure(make_error("deadline_exceeded", message, "allow more: timeout=SECONDS"))


def unreadable(address: str, reason: object) -> Failure:
    """Of an answer that no headrace server gives."""
    message = f"{address} answered what cannot be read: {str(reason)[:TEXT_CHARS_MAX]}"
    return Failure(make_error("internal", message, "is that a headrace server, of a version like this client's?"))


def refuse_argument(message: str, hint: str) -> NoReturn:
    """Of what the caller gave.

    Raises:
        InputError: `invalid_argument`.
    """
    raise make_error("invalid_argument", message, hint)
