"""One run: its settings, workers, time limit, and what it could not measure."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from headrace_control.bench.environments import environment_python
from headrace_control.bench.machine import calibrate, describe_machine
from headrace_control.bench.places import cache_folder, checkout, engine_overlay
from headrace_control.bench.results import Bar, BarRule, Measured, Report, Result
from headrace_control.bench.workers import Worker
from headrace_control.errors import ControlError

OURS = "headrace"
TIME_LIMIT_S = 15 * 60.0
"""An area ends within this; what is left unmeasured then is said."""

JOB_TIMEOUT_S = 600.0
"""Loading a store or a model, converting and compiling included."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}

Note = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the caller chose.

    Attributes:
        peers: engines to measure beside ours and the bounds; `None` for all of them.
        only: cases to measure, as `CASE` or `CASE/ROWS`, with `*`; empty for all of them.
        block_ms: least time of a block of calls to one engine before the next engine's turn.
        repeats: blocks of each engine at each point.
        python: an interpreter to use for every environment instead of making them from their locks.
    """

    seed: int = 1
    quick: bool = False
    peers: tuple[str, ...] | None = None
    only: tuple[str, ...] = ()
    block_ms: int = 60
    repeats: int = 7
    pin: bool = True
    calibrate: bool = True
    python: Path | None = None
    time_limit_s: float = TIME_LIMIT_S

    def takes_engine(self, engine: str, always: Sequence[str]) -> bool:
        return self.peers is None or engine in always or engine in self.peers

    def takes_point(self, case: str, rows: int) -> bool:
        return not self.only or any(matches(pattern, case, rows) for pattern in self.only)


def matches(pattern: str, case: str, rows: int) -> bool:
    """Whether a pattern of `--only` means this point, by `CASE` or `CASE/ROWS`."""
    return fnmatchcase(case, pattern) or fnmatchcase(f"{case}/{rows}", pattern)


@dataclass(frozen=True)
class Loaded:
    """An engine that is ready to be called, in its worker, under `key`."""

    engine: str
    version: str
    worker: Worker
    key: str


@dataclass
class Session:
    """The workers of a run and its remarks. Leaving the block ends every process and removes the temporary files."""

    settings: Settings
    note: Note = print
    root: Path = field(default_factory=checkout)
    cache: Path = field(default_factory=cache_folder)
    skipped: dict[str, str] = field(default_factory=dict)
    compared: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        self.workers: dict[str, Worker] = {}
        self.versions: dict[str, str] = {}
        self.choices: dict[str, str] = {}
        self.environments: dict[str, Any] = {}
        self.started = time.monotonic()
        self.load_average = os.getloadavg()[0]
        self.core: int | None = None
        if self.settings.pin and len(os.sched_getaffinity(0)) > 1:
            self.core = max(os.sched_getaffinity(0))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def seconds_left(self) -> float:
        return self.settings.time_limit_s - (time.monotonic() - self.started)

    @property
    def compare(self) -> Path:
        return self.root / "bench" / "compare"

    def start_worker(self, environment: str, variables: dict[str, str]) -> Worker:
        """A new worker; the caller or the session closes it.

        Raises:
            ControlError: the environment cannot be made, or the worker does not start.
        """
        self.note(f"environment {environment}")
        python = self.settings.python or environment_python(self.compare, environment, self.cache)
        overlay = engine_overlay(self.cache)
        path = {"PYTHONPATH": str(overlay) if overlay else "", "PYTHONNOUSERSITE": "1"}
        worker = Worker(environment, python, self.compare, {**path, **variables})
        self.environments[environment] = worker.ask("hello", JOB_TIMEOUT_S)
        return worker

    def worker(self, environment: str) -> Worker:
        """The run's worker of an environment, started at first use, its libraries limited to one thread."""
        if environment not in self.workers:
            worker = self.start_worker(environment, ONE_THREAD)
            self.workers[environment] = self.stack.enter_context(worker)
        return self.workers[environment]

    def load(
        self, engine: str, environment: str, key: str, data: dict[str, Any], options: dict[str, Any]
    ) -> Loaded | None:
        """Loads an engine; `None`, with the reason kept, when it cannot be."""
        if engine in self.skipped:
            return None
        self.note(f"load {key}")
        try:
            worker = self.worker(environment)
            reply = worker.ask("load", JOB_TIMEOUT_S, engine=engine, key=key, data=data, options=options)
        except ControlError as error:
            self.skip(key, error)
            return None
        self.versions[engine] = reply["version"]
        if reply["note"]:
            self.choices[engine] = reply["note"]
        self.details.setdefault("load_seconds", {})[key] = round(reply["load_s"], 2)
        return Loaded(engine, reply["version"], worker, key)

    def skip(self, what: str, error: ControlError) -> None:
        """Keeps why something is not measured, and says it."""
        self.skipped[what] = f"{error.message}; {error.hint}"
        self.note(f"without {what}: {self.skipped[what]}")

    def pin_workers(self) -> None:
        """One core for all workers: only one of them runs at a time."""
        if self.core is not None:
            for worker in self.workers.values():
                worker.ask("pin", JOB_TIMEOUT_S, core=self.core)

    def _worker_memory(self) -> dict[str, Any]:
        found = {}
        for environment, worker in self.workers.items():
            # A worker that has ended was named when it did.
            with suppress(ControlError):
                found[environment] = worker.ask("memory", JOB_TIMEOUT_S)
        return found

    def report(
        self, area: str, results: list[Result], rules: Sequence[BarRule], more_bars: Sequence[Bar] = ()
    ) -> Report:
        """The run's report: figures, machine, and the bars whose point and engines were asked for.

        Args:
            area: its name.
            results: what was timed.
            rules: of bars on these.
            more_bars: on what is no time, such as bytes.
        """
        measured = Measured(results)
        settings = self.settings
        asked = [
            rule
            for rule in rules
            if settings.takes_point(rule.case, rule.rows)
            and all(settings.takes_engine(one, [OURS]) for one in rule.engines)
        ]
        machine = describe_machine() | {"load_average_at_start": self.load_average}
        if settings.calibrate:
            self.note("calibrate")
            try:
                machine["calibration"] = calibrate(self.root, self.cache, self.core)
            except ControlError as error:
                self.skip("calibration", error)
        bars = [*(rule.judge(measured) for rule in asked), *more_bars]
        machine |= {
            "versions": self.versions,
            "how": self.choices,
            "environments": self.environments,
            "workers_memory_mib": self._worker_memory(),
            "settings": {
                "seed": settings.seed,
                "quick": settings.quick,
                "block_ms": settings.block_ms,
                "repeats": settings.repeats,
                "workers_on_core": self.core,
            },
            "outputs_compared": self.compared,
            "not_measured": self.skipped,
            "absolute_bars_in_calibrations": _in_calibrations(asked, measured, machine.get("calibration", {})),
            "seconds": round(time.monotonic() - self.started, 1),
            **self.details,
        }
        return Report(area, machine, results, bars)


def _in_calibrations(rules: list[BarRule], measured: Measured, calibration: dict[str, Any]) -> dict[str, Any]:
    """Absolute bars divided by this machine's unavoidable costs, so that they can be compared between machines."""
    found: dict[str, Any] = {}
    for rule in rules:
        median_us = measured.median_us(rule.engine, rule.case, rule.rows)
        if rule.to is not None or median_us is None:
            continue
        # The workers' own core, where there is one.
        for name, value in (calibration.get("one_core") or calibration.get("any_core", {})).items():
            cost, unit = name.rsplit("_", 1)
            cost_us = value / 1000 if unit == "ns" else value
            found.setdefault(rule.name, {})[cost.replace("_", " ")] = float(f"{median_us / cost_us:.3g}")
    return found
