"""How commands speak: results on stdout, progress and remarks on stderr, one JSON object with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from headrace.plan_diff import PlanDiff

PIPE_COLUMNS = 200

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
project_option = click.option(
    "--project",
    "project",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current folder",
    help="The project's folder, with its headrace.toml.",
)


def epilog(*examples: str) -> str:
    """The end of a help page: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


def row_rate(rows: int, seconds: float) -> int:
    """Rows a second, rounded."""
    return round(rows / seconds) if seconds > 0 else 0


class Output:
    """What a command prints, in the form that its caller asked for."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def stdout(self) -> Console:
        from rich.console import Console

        # Nothing is wrapped in a file or a pipe, where no one knows how wide the reader's screen is.
        return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)

    def result(self, values: dict[str, Any], *lines: str | Table) -> None:
        """`values` as JSON with `--json`; otherwise the lines and tables, made for people."""
        if self.as_json:
            click.echo(json.dumps(values, default=str))
            return
        console = self.stdout
        for line in lines:
            console.print(line, markup=False) if isinstance(line, str) else console.print(line)

    def note(self, text: str) -> None:
        """A remark that is no result: on stderr, and not at all with `--json`."""
        if not self.as_json:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """What one should know before trusting the result: on stderr, with `--json` too."""
        click.echo(f"warning: {text}", err=True)

    @contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Progress]:
        """A bar on stderr while the block runs; silent where no one looks."""
        if self.as_json or not sys.stderr.isatty():
            yield silent
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)

            yield lambda done, text: bar.update(task, completed=done, description=text or what)


def describe_diff(diff: PlanDiff, verbose: bool) -> list[str]:
    """The lines of a plan's difference: for what is new or gone its name, for what changes each detail."""
    if not diff:
        return ["no changes"]
    lines = []
    for sign, changes in (("+", diff.added), ("~", diff.changed), ("-", diff.removed)):
        for change in changes:
            details = change.details if verbose or sign == "~" else ()
            size = f"  ({len(change.details)})" if change.details and not details else ""
            lines += [f"{sign} {change}{size}", *(f"    {detail}" for detail in details)]
    return lines + [f"! {breaking}" for breaking in diff.breaking]
