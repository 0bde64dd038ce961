"""Every error that headrace raises on purpose: what was wrong, named, and what to do next.

The engine (Rust) has one stable slug for each way in which something can be wrong. Programs match on `code` or catch a
family; people read the message and the hint. The families below are the only place where a slug gets a Python class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadraceError(Exception):
    """The parent of all errors of headrace.

    Attributes:
        code: a stable slug, for example `unknown_feature`.
        message: what was wrong, naming the thing.
        hint: what to do next; may be empty.
        request_id: of the request that a server refused; empty where there is none.
    """

    request_id: str = ""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={self.message!r}, hint={self.hint!r})"


class InputError(HeadraceError, ValueError):
    """The caller's values: a wrong type, length, shape or column."""


class UnknownNameError(HeadraceError, LookupError):
    """A name that nothing has: an unknown feature, view, service, entity, model or deployment."""


class DefinitionError(HeadraceError):
    """A definition that contradicts itself, another one, or what is in use already."""


class StoreError(HeadraceError):
    """A file, folder or store that cannot be read or written as asked."""


class AccessError(HeadraceError):
    """Who asks is not known, may not do it, or does it too often."""


class ProcessError(HeadraceError):
    """The state of this process: a busy port, a handle used after a fork, a defect of headrace."""


class RefusedRowsWarning(UserWarning):
    """Some of the rows that were pushed are not in the online table; the text says how many and why."""


FAMILIES: dict[type[HeadraceError], tuple[str, ...]] = {
    InputError: (
        "invalid_argument",
        "invalid_json",
        "invalid_tensor",
        "type_mismatch",
        "length_mismatch",
        "missing_column",
        "null_key",
        "too_large",
    ),
    UnknownNameError: (
        "unknown_dtype",
        "unknown_entity",
        "unknown_feature",
        "unknown_feature_view",
        "unknown_feature_service",
        "unknown_model",
        "unknown_model_version",
        "unknown_deployment",
        "not_found",
        "method_not_allowed",
        "unsupported",
    ),
    DefinitionError: ("invalid_definition", "invalid_expression", "name_clash", "breaking_change", "function_failed"),
    StoreError: (
        "corrupt_model",
        "unsupported_model",
        "golden_row_mismatch",
        "corrupt_store",
        "newer_format",
        "store_locked",
        "store_full",
        "read_only",
        "io",
    ),
    AccessError: ("unauthenticated", "permission_denied", "rate_limited"),
    ProcessError: (
        "port_busy",
        "used_after_fork",
        "unavailable",
        "model_failed",
        "deadline_exceeded",
        "cancelled",
        "internal",
    ),
}
_CLASS_OF_CODE = {code: family for family, codes in FAMILIES.items() for code in codes}


def make_error(code: str, message: str, hint: str = "") -> HeadraceError:
    """The exception for a slug; a slug that this version does not know gets the parent class."""
    return _CLASS_OF_CODE.get(code, HeadraceError)(code, message, hint)


def nearest_hint(name: str, known: Iterable[str], kind: str) -> str:
    """A hint that names the closest known name, or lists what there is.

    Args:
        name: what was asked for.
        known: the names that exist.
        kind: what they are, in the plural: "columns", "feature views".
    """
    names = sorted(known)
    if not names:
        return f"there are no {kind}"
    close = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"did you mean '{close[0]}'? {kind}: {listed}" if close else f"{kind}: {listed}"
