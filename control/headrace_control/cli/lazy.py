"""A command group that imports a command only when it is called: `headrace --help` and `serve` start fast."""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from headrace_control.errors import FAILED, OK, USAGE, describe, exit_code

INTERRUPTED = 130
# How newer versions of click say that a group was called without a command.
HELP_ASKED: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class LazyGroup(click.Group):
    """Commands named by module and described by one line, loaded at first use.

    It also owns the end of every command: the exit code and, for an error, one block on stderr (with `--json`, one
    object on stdout).
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        """`lazy`: command name -> (module, one line of help); the module's `command` is the click command."""
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        command = import_module(self.lazy[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in arguments
        try:
            status = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except HELP_ASKED as error:
            click.echo(error.format_message())
            sys.exit(USAGE)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "headrace"
            fail("usage", error.format_message(), f"see {command} --help", as_json, USAGE)
        except (click.Abort, KeyboardInterrupt):
            fail("cancelled", "the command was interrupted", "run it again to go on", as_json, INTERRUPTED)
        except BrokenPipeError:
            sys.exit(FAILED)
        except Exception as error:
            known = describe(error)
            if known is None and isinstance(error, OSError):
                known = ("io", str(error), "check that the path exists and that you may use it")
            if known is None:
                raise
            code, message, hint = known
            fail(code, message, hint, as_json, exit_code(error, code))
        sys.exit(status if isinstance(status, int) else OK)


def fail(code: str, message: str, hint: str, as_json: bool, status: int) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message, "hint": hint}}))
    else:
        click.echo(f"error: {message}\n  what to do: {hint}\n  ({code})", err=True)
    sys.exit(status)


def option_values(values: MutableMapping[str, str], pairs: Sequence[str], option: str) -> None:
    """Adds `name=value` pairs to `values`.

    Raises:
        click.BadParameter: naming the pair that has no `=`.
    """
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{pair}' is not of the form name=value", param_hint=option)
        values[name] = value
