"""A small project with the shape of the example: its definitions, a few hundred flights, forests of a few trees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace_control

EXAMPLE = Path(headrace_control.__file__).parent / "examples" / "flights"
TIMESTAMP = pa.timestamp("us", "UTC")
CARRIERS = ("UA", "B6", "DL")
ORIGINS = ("EWR", "JFK", "LGA")
FLIGHTS = 600
PLANES = 25
SECONDS_MAX = 280


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = self.json["error"]
        return found


Command = Callable[..., Done]


@pytest.fixture(scope="session")
def headrace() -> Command:
    """Runs `headrace ARGS` as a process of its own."""

    def run(*args: object, cwd: Path | None = None) -> Done:
        command = [sys.executable, "-m", "headrace_control", *map(str, args)]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=SECONDS_MAX
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four source files of the small project."""
    folder = tmp_path_factory.mktemp("sources") / "data"
    folder.mkdir()
    random = np.random.default_rng(11)
    write_flights(folder, random)
    write_weather(folder, random)
    tails: list[str | None] = [f"N{number:03}" for number in range(PLANES)]
    table = {
        "tailnum": pa.array(tails),
        "year_built": pa.array([None if n == 3 else 1990 + n for n in range(PLANES)], pa.int64()),
        "engines": pa.array([2] * PLANES, pa.int64()),
        "seats": pa.array([50 + 10 * n for n in range(PLANES)], pa.int64()),
    }
    pq.write_table(pa.table(table), folder / "planes.parquet")
    return folder


def write_flights(folder: Path, random: np.random.Generator) -> None:
    """Flights of the whole year, and the event of each one that arrived."""
    start = datetime(2013, 1, 1, 6, tzinfo=UTC)
    minutes = np.sort(random.integers(0, 364 * 24 * 60, FLIGHTS))
    planned = [start + timedelta(minutes=int(minute)) for minute in minutes]
    late = random.normal(8, 25, FLIGHTS).round() + 20 * np.array([at.hour > 15 for at in planned])
    unknown = random.random(FLIGHTS) < 0.04
    tails = [None if random.random() < 0.02 else f"N{random.integers(PLANES + 3):03}" for _ in planned]
    carriers = random.choice(CARRIERS, FLIGHTS).tolist()
    delays = [None if missing else float(delay) for missing, delay in zip(unknown, late, strict=True)]
    table = {
        "origin": pa.array(random.choice(ORIGINS, FLIGHTS).tolist()),
        "tailnum": pa.array(tails, pa.string()),
        "carrier": pa.array(carriers),
        "flight": pa.array(range(FLIGHTS), pa.int64()),
        "dest": pa.array(["LAX"] * FLIGHTS),
        "planned_departure": pa.array(planned, TIMESTAMP),
        "read_at": pa.array([at - timedelta(hours=1) for at in planned], TIMESTAMP),
        "arr_delay": pa.array(delays, pa.float64()),
    }
    pq.write_table(pa.table(table), folder / "flights.parquet")
    known = [row for row in range(FLIGHTS) if delays[row] is not None]
    departures = {
        "origin": table["origin"].take(pa.array(known)),
        "carrier": table["carrier"].take(pa.array(known)),
        "tailnum": table["tailnum"].take(pa.array(known)),
        "departed_at": pa.array([planned[row] + timedelta(minutes=float(late[row]) / 2) for row in known], TIMESTAMP),
        "dep_delay": pa.array([float(late[row]) / 2 for row in known]),
    }
    pq.write_table(pa.table(departures).sort_by("departed_at"), folder / "departed.parquet")
    arrived = [row for row in range(FLIGHTS) if delays[row] is not None and tails[row] is not None]
    events = {
        "carrier": pa.array([carriers[row] for row in arrived]),
        "tailnum": pa.array([tails[row] for row in arrived], pa.string()),
        "finished_at": pa.array(
            [planned[row] + timedelta(minutes=200 + float(late[row])) for row in arrived], TIMESTAMP
        ),
        "dep_delay": pa.array([float(late[row]) / 2 for row in arrived]),
        "arr_delay": pa.array([float(late[row]) for row in arrived]),
        "air_time": pa.array([200.0] * len(arrived)),
        "distance": pa.array([1400.0] * len(arrived)),
    }
    pq.write_table(pa.table(events).sort_by("finished_at"), folder / "finished.parquet")


def write_weather(folder: Path, random: np.random.Generator) -> None:
    """Weather every six hours: with a ttl of three hours, about half of the reads find none."""
    hours = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=6 * step) for step in range(4 * 366)]
    rows = len(hours) * len(ORIGINS)
    names = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    table: dict[str, Any] = {
        "origin": pa.array([origin for _ in hours for origin in ORIGINS]),
        "time_hour": pa.array([hour for hour in hours for _ in ORIGINS], TIMESTAMP),
        "wind_dir": pa.array([None if random.random() < 0.05 else float(random.integers(360)) for _ in range(rows)]),
    }
    table |= {name: pa.array(random.normal(50, 20, rows)) for name in names}
    pq.write_table(pa.table(table), folder / "weather.parquet")


@pytest.fixture
def project(tmp_path: Path, sources: Path) -> Path:
    """The small project, nothing applied yet."""
    return make_project(tmp_path / "flights", sources)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, sources: Path, headrace: Command) -> Path:
    """The small project, applied, trained and materialized to the end of October. Tests only read it."""
    folder = make_project(tmp_path_factory.mktemp("trained") / "flights", sources)
    for args in (("apply",), ("train",), ("materialize", "--end", "2013-11-01T12:00:00Z")):
        done = headrace(*args, "--project", folder)
        assert done.status == 0, done.stderr
    return folder


@pytest.fixture
def copy_of_trained(tmp_path: Path, trained: Path) -> Path:
    """A trained project that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "flights"))


def make_project(folder: Path, sources: Path) -> Path:
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "data", ".*"))
    shutil.copytree(sources, folder / "data")
    settings = folder / "headrace.toml"
    text = settings.read_text("utf-8").replace("rounds = 300", "rounds = 12")
    settings.write_text(text.replace("min_data_in_leaf = 100", "min_data_in_leaf = 5"), "utf-8")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replaces text in a file that has it."""
    text = path.read_text("utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new), "utf-8")
