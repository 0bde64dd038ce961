"""Load on a server: wrk for a closed loop where it is installed; for all else the generator of `bench/load`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_control.bench.micro import cargo_program
from headrace_control.errors import ControlError

SPARE_S = 30.0
"""How much longer than it measures a generator may take."""


@dataclass(frozen=True)
class Sample:
    """One block of load: answers of status 200, and how many requests got none of these."""

    per_s: float
    p50_us: float
    p99_us: float
    other: int = 0


@dataclass(frozen=True)
class Load:
    """How load is made on this machine.

    Attributes:
        generator: the built program of `bench/load`.
        wrk: the program, or `None` where it is not installed.
        script: `bench/load/wrk.lua`.
    """

    generator: Path
    wrk: str | None
    script: Path

    @classmethod
    def found(cls, root: Path, *, quick: bool) -> Load:
        """Builds the generator. A quick run does without wrk, which measures whole seconds only.

        Raises:
            ControlError: `missing_program` without cargo, `build_failed`.
        """
        program = cargo_program(root, "headrace-load", "load")
        return cls(program, None if quick else shutil.which("wrk"), root / "bench" / "load" / "wrk.lua")

    def closed(self, port: int, requests: Path, connections: int, seconds: float) -> Sample:
        """As many requests as are answered on so many connections.

        Raises:
            ControlError: `unavailable`, when the load could not be made.
        """
        if self.wrk is None:
            return sample_of_generator(self.generate(port, requests, connections, seconds))
        threads = min(2, connections)
        options = [
            "-t",
            str(threads),
            "-c",
            str(connections),
            "-d",
            f"{max(round(seconds), 1)}s",
            "-s",
            str(self.script),
        ]
        said = run([self.wrk, *options, f"http://127.0.0.1:{port}", "--", str(requests)], seconds)
        return sample_of_wrk(said)

    def generate(
        self,
        port: int,
        requests: Path,
        connections: int,
        seconds: float,
        *,
        rate: float | None = None,
        seed: int = 1,
        grpc: str | None = None,
    ) -> dict[str, Any]:
        """The generator's report; with `rate`, an open loop.

        Raises:
            ControlError: `unavailable`, when the load could not be made.
        """
        options = ["--warm-up", str(seconds / 10), "--seed", str(seed)]
        if rate is not None:
            options += ["--rate", str(rate)]
        if grpc is not None:
            options += ["--grpc", grpc]
        command = [str(self.generator), f"127.0.0.1:{port}", str(requests), str(connections), str(seconds), *options]
        report: dict[str, Any] = json.loads(run(command, seconds))
        return report


def run(command: Sequence[str], seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + SPARE_S)
    if done.returncode != 0:
        raise ControlError(
            "unavailable", f"the load broke off: {done.stderr.strip()[-300:]}", "look at the server's log"
        )
    return done.stdout


def sample_of_wrk(said: str) -> Sample:
    """The line of JSON that our script prints after wrk's own text.

    Raises:
        ControlError: `unavailable`, when there is none.
    """
    line = next((line for line in reversed(said.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise ControlError("unavailable", "wrk printed no result", "run it by hand with bench/load/wrk.lua")
    found = json.loads(line)
    other = found["not_ok"] + found["failed"]
    return Sample((found["requests"] - found["not_ok"]) / found["seconds"], found["p50_us"], found["p99_us"], other)


def sample_of_generator(report: Mapping[str, Any]) -> Sample:
    """The answers of status 200; a report without one has a rate of 0 and latencies as long as it measured."""
    answered = report["by_status"].get("200")
    other = report["due"] - (answered["count"] if answered else 0)
    if answered is None:
        return Sample(0.0, report["seconds"] * 1e6, report["seconds"] * 1e6, other)
    return Sample(answered["per_s"], answered["p50_us"], answered["p99_us"], other)
