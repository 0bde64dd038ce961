"""A join on a Ray cluster: the same partitions as `headrace.partitions`, cut and joined by tasks.

This side never imports Ray. It cuts the entity rows, starts a process that drives the cluster (`headrace.ray_driver`),
and puts the answers, which that process leaves in files, back into the order of the entity rows.

    JOIN FOLDER/job.json, plan.json      what is joined
    JOIN FOLDER/KEYS/N.entities          entity rows, cut
    JOIN FOLDER/KEYS/N.found             what the driver brings back
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import _native
from headrace.errors import make_error
from headrace.historical import JoinRequest
from headrace.partitions import JoinedPartitions, cut_entities, key_sets, spill_folder, told_of_full_disks
from headrace.sources import fingerprint

PARTITIONS_MIN = 16
"""So many at least, so that several machines have some each."""

RAY_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0"}
"""Nothing is reported to anyone outside."""

_SIMPLE = ("service", "event_ts_column", "as_known_at", "threads", "now_us", "memory_bytes", "chunk_rows")
_PATHS = ("sources_root", "history_root", "spill_root")


def save_request(request: JoinRequest, folder: Path) -> None:
    """Writes what is joined, for the driver and its tasks."""
    job = {name: getattr(request, name) for name in _SIMPLE}
    job |= {name: str(getattr(request, name)) for name in _PATHS}
    job["as_of"] = {view: _moment(request, view) for view in request.views}
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "plan.json").write_text(request.plan.json)


def _moment(request: JoinRequest, view: str) -> int | str | None:
    """The state in which all tasks read a view: of a Delta table a version, so that no task sees a later one."""
    rows, moment = request.views[view], request.moment_of(view)
    if not rows.is_pushed and rows.source["format"] == "delta":
        version: int = fingerprint(rows, request.sources_root, moment)
        return version
    return moment.isoformat() if isinstance(moment, dt.datetime) else moment


def load_request(job_text: str, plan_text: str) -> JoinRequest:
    """The request of a job."""
    job: dict[str, Any] = json.loads(job_text)
    paths: dict[str, Any] = {name: Path(job[name]) for name in _PATHS}
    return JoinRequest(
        plan=_native.Plan.from_json(plan_text),
        document=json.loads(plan_text),
        statuses=False,
        as_of=job["as_of"],
        **{name: job[name] for name in _SIMPLE},
        **paths,
    )


@contextlib.contextmanager
def joined_on_ray(request: JoinRequest, frames: Iterable[pa.Table], count: int) -> Iterator[JoinedPartitions]:
    """As `headrace.partitions.joined_in_partitions`, on a cluster: that of RAY_ADDRESS, or the one that runs on this
    machine. Without any, Ray is started for this join alone.

    Raises:
        ProcessError: `unavailable`, Ray is not installed, or the cluster failed.
        InputError, StoreError: as a join on this machine.
    """
    if importlib.util.find_spec("ray") is None:
        raise make_error("unavailable", "Ray is not installed", "pip install 'headrace[ray]'")
    count = max(count, PARTITIONS_MIN)
    with spill_folder(request.spill_root) as folder, told_of_full_disks(folder):
        rows = cut_entities(request, frames, folder, count)
        save_request(request, folder)
        told = _drive(folder, count)
        counts = {"rows": rows, "views": told["views"]}
        yield JoinedPartitions(request, folder, count, key_sets(request), counts, nodes=told["nodes"])


def _drive(folder: Path, count: int) -> dict[str, Any]:
    """Runs the driver; returns what it tells."""
    command = [sys.executable, "-m", "headrace.ray_driver", str(folder), str(count)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **RAY_VARIABLES},
        stdin=subprocess.DEVNULL,
    )
    result = folder / "result.json"
    if not result.exists():
        last = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit status {done.returncode}"
        raise make_error(
            "unavailable", f"the join on Ray failed: {last}", "see the logs of the cluster, or join without --on ray"
        )
    told: dict[str, Any] = json.loads(result.read_text())
    if "error" in told:
        raise make_error(**told["error"])
    return told
