"""What the control plane refuses, in the same shape as the engine's errors, and the exit codes of the command."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
REFUSED = 3
MISSING_PREREQUISITE = 4

EXIT_CODES = {
    "invalid_argument": USAGE,
    "unknown_command": USAGE,
    "unknown_deployment": USAGE,
    "unknown_entity": USAGE,
    "unknown_feature": USAGE,
    "unknown_feature_view": USAGE,
    "unknown_model": USAGE,
    "unknown_model_version": USAGE,
    "invalid_definition": REFUSED,
    "invalid_expression": REFUSED,
    "name_clash": REFUSED,
    "breaking_change": REFUSED,
    "unknown_dtype": REFUSED,
    "unknown_feature_service": REFUSED,
    "not_a_project": MISSING_PREREQUISITE,
    "missing_package": MISSING_PREREQUISITE,
    "missing_data": MISSING_PREREQUISITE,
    "not_applied": MISSING_PREREQUISITE,
    "not_found": MISSING_PREREQUISITE,
    "not_trained": MISSING_PREREQUISITE,
}
"""Exit code by slug; a slug that is not listed means that the work failed.

Names on a command line are the caller's, so an unknown one is a wrong call; a service is named in headrace.toml, so an
unknown one is refused.
"""


def exit_code(error: BaseException, slug: str) -> int:
    """What the command exits with. A definition is refused whatever is wrong with it, be it an unknown name."""
    families = {family.__name__ for family in type(error).__mro__}
    return REFUSED if "DefinitionError" in families else EXIT_CODES.get(slug, FAILED)


class ControlError(Exception):
    """A refusal of the control plane: what was wrong, in which thing, and what to do next.

    Attributes:
        code: a stable slug, for programs.
        message: names the thing and what is wrong with it.
        hint: what to do next.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.code = code
        self.message = message
        self.hint = hint


def describe(error: BaseException) -> tuple[str, str, str] | None:
    """The (code, message, hint) of an error that has them: ours and the engine's; `None` for any other."""
    # The engine's exceptions are told by their shape, so that the command starts without loading the engine.
    parts = tuple(getattr(error, name, None) for name in ("code", "message", "hint"))
    if all(isinstance(part, str) for part in parts):
        code, message, hint = parts
        return str(code), str(message), str(hint)
    return None


def require(module: str, package: str, needed_for: str) -> None:
    """Refuses to go on without an optional package.

    Raises:
        ControlError: `missing_package`, with the command that installs it.
    """
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise ControlError(
            "missing_package",
            f"the Python package '{package}' is not installed; {needed_for} needs it",
            f"pip install {package}",
        )
