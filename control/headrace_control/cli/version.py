"""`headrace version`: which headrace and which engine answer here."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from headrace_control.cli.output import Output, epilog, json_option


@click.command("version", epilog=epilog("headrace version --json"))
@json_option
def command(as_json: bool) -> None:
    """Print the versions of headrace, of its engine and of Python.

    The engine's source digest names the Rust sources that it was built from.
    """
    import headrace
    from headrace import _native

    values = {
        "headrace": headrace.__version__,
        "headrace_control": version("headrace-control"),
        "engine": _native.__version__,
        "source_digest": _native.source_digest(),
        "python": platform.python_version(),
    }
    width = max(map(len, values))
    Output(as_json).result(values, *(f"{name.ljust(width)}  {value}" for name, value in values.items()))
