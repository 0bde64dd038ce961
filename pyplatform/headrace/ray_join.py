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
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import _native
from headrace.historical import JoinRequest
from headrace.partitions import JoinedPartitions, cut_entities, key_sets, spill_folder, told_of_full_disks
from headrace.ray_process import PARTITIONS_MIN, check_installed, drive
from headrace.sources import fingerprint

_SIMPLE = ("service", "event_ts_column", "as_known_at", "threads", "now_us", "memory_bytes", "chunk_rows")
_PATHS = ("sources_root", "history_root", "spill_root")


def save_request(request: JoinRequest, folder: Path, count: int) -> None:
    """Writes what is joined, in how many partitions, for the driver and its tasks."""
    job = {"count": count} | {name: getattr(request, name) for name in _SIMPLE}
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
    check_installed()
    count = max(count, PARTITIONS_MIN)
    with spill_folder(request.spill_root) as folder, told_of_full_disks(folder):
        rows = cut_entities(request, frames, folder, count)
        save_request(request, folder, count)
        told = drive("join", folder)
        counts = {"rows": rows, "views": told["views"]}
        yield JoinedPartitions(request, folder, count, key_sets(request), counts, nodes=told["nodes"])
