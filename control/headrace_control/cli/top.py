"""`headrace top`: what running servers are doing, live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace_control.cli.output import Output, epilog, project_option

if TYPE_CHECKING:
    from rich.console import Console

    from headrace_control.top import Sample, ServerFigures

SECONDS_MIN = 0.1


@click.command(
    "top",
    epilog=epilog(
        "headrace top",
        "headrace top --url 127.0.0.1:8002 --url 127.0.0.1:9002",
        "headrace top --once --interval 0.5",
        "headrace top --once --json",
    ),
)
@project_option
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="HOST:PORT",
    help="A server's metrics port; give it several times for several servers. Default: the project's.",
)
@click.option(
    "--interval",
    type=click.FloatRange(SECONDS_MIN, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print what happened between, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout for each look.")
def command(project: Path, urls: tuple[str, ...], interval: float, once: bool, as_json: bool) -> None:
    """Show what running servers are doing: requests, errors, latencies, queues and costs of each model.

    All of it is read from the servers' metrics ports; latencies are those of the last interval, by phase. q quits, s
    sorts by something else. Without a terminal a table is printed for each look.
    """
    from headrace_control.top.prometheus import check_url, scrape

    found = [check_url(url) for url in urls] or [default_url(project)]
    with ThreadPoolExecutor(len(found)) as pool:

        def look() -> list[Sample]:
            return list(pool.map(scrape, found))

        before = look()
        if once:
            time.sleep(interval)
            after = look()
            show(between(before, after), after[0].at - before[0].at, as_json)
            if all(sample.error is not None for sample in after):
                raise click.exceptions.Exit(1)
            return
        Watch(look, before, interval, as_json).run()


def default_url(project: Path) -> str:
    """The metrics port of the project, or the usual one where there is none."""
    from headrace.config import CONFIG_FILE, ServerSection, load_config

    server = load_config(project).server if (project / CONFIG_FILE).exists() else ServerSection()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"[{host}]:{server.metrics_port}" if ":" in host else f"{host}:{server.metrics_port}"


def between(before: Sequence[Sample], after: Sequence[Sample]) -> list[ServerFigures]:
    from headrace_control.top import figures_between

    return [figures_between(then, now) for then, now in zip(before, after, strict=True)]


def show(servers: list[ServerFigures], seconds: float, as_json: bool) -> None:
    from headrace_control.top import document, render

    if as_json:
        click.echo(json.dumps(document(servers, seconds)))
    else:
        Output(False).stdout.print(render(servers, "requests/s", keys=False))


class Watch:
    """Looks again and again until q, Ctrl-C, or the end of whoever reads."""

    def __init__(self, look: Callable[[], list[Sample]], before: list[Sample], interval: float, as_json: bool) -> None:
        self._look = look
        self._before = before
        self._interval = interval
        self._as_json = as_json

    def run(self) -> None:
        stdout = Output(False).stdout
        if self._as_json or not stdout.is_terminal:
            while True:
                time.sleep(self._interval)
                servers, seconds = self._next()
                show(servers, seconds, self._as_json)
        else:
            self._run_live(stdout)

    def _next(self) -> tuple[list[ServerFigures], float]:
        after = self._look()
        seconds = after[0].at - self._before[0].at
        servers = between(self._before, after)
        self._before = after
        return servers, seconds

    def _run_live(self, stdout: Console) -> None:
        from rich.live import Live

        from headrace_control.top import SORTS, render
        from headrace_control.top.keys import key_within, single_keys

        sorts = list(SORTS)
        servers: list[ServerFigures] = []
        with single_keys() as has_keyboard, Live(console=stdout, screen=True, auto_refresh=False) as live:
            due = time.monotonic() + self._interval
            while True:
                key = key_within(max(due - time.monotonic(), 0.0), has_keyboard)
                if key == "q":
                    return
                if key == "s":
                    sorts.append(sorts.pop(0))
                if time.monotonic() >= due:
                    servers, _ = self._next()
                    due = time.monotonic() + self._interval
                live.update(render(servers, sorts[0], has_keyboard), refresh=True)
