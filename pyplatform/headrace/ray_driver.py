"""The process that drives a Ray cluster: `python -m headrace.ray_driver join|backfill FOLDER`, run by `ray_process`.

A shuffle in two rounds. Tasks of the first read parts of the sources and cut them; tasks of the second each join, or
reduce, a partition of all those parts, in the order of the sources. Answers are written to files as they come.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import ray_tasks
from headrace.backfill import Backfill, PartReport
from headrace.errors import HeadraceError
from headrace.historical import JoinRequest
from headrace.partitions import KeySet, add_counts, key_sets, write_found
from headrace.ray_join import load_request
from headrace.sources import source_parts


def main(kind: str, folder: Path) -> None:
    """Does the work, and leaves `result.json`: what it tells, or an error."""
    try:
        result = drive(kind, folder)
    except HeadraceError as error:
        result = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    (folder / "result.json.tmp").write_text(json.dumps(result))
    (folder / "result.json.tmp").replace(folder / "result.json")


def drive(kind: str, folder: Path) -> dict[str, Any]:
    """Runs the tasks and collects their answers."""
    import ray

    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        return _Join(ray, folder).run() if kind == "join" else _Backfill(ray, folder).run()
    except ray.exceptions.RayTaskError as error:
        told = _told(error)
        if told is None:
            raise
        return {"error": told}
    finally:
        ray.shutdown()


def _told(error: Any) -> dict[str, Any] | None:
    """The error of headrace in a task's."""
    try:
        told = json.loads(str(error.cause))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


class _Join:
    def __init__(self, ray: Any, folder: Path) -> None:
        self.ray = ray
        self.folder = folder
        self.job, self.plan = (folder / "job.json").read_text(), (folder / "plan.json").read_text()
        self.count: int = json.loads(self.job)["count"]
        self.request: JoinRequest = load_request(self.job, self.plan)
        self.counts: dict[str, Any] = {"views": {}}
        self.nodes: set[str] = set()

    def run(self) -> dict[str, Any]:
        for key_set in key_sets(self.request):
            parts = {view: self.cut(key_set, view) for view in key_set.views}
            self.join(key_set, parts)
        return {"views": self.counts["views"], "nodes": len(self.nodes)}

    def cut(self, key_set: KeySet, view: str) -> list[list[Any]]:
        """References to the parts of a view: by part, then by partition."""
        rows = self.request.views[view]
        partitions = self.count if key_set.keys else 1
        if rows.is_pushed:
            # The history is on this machine; it is cut here.
            return [
                [self.ray.put(data) for data in ray_tasks.cut([chunk], rows.schema(), key_set.keys, self.count)]
                for chunk in self.request.chunks(self.request.read(view))
            ]
        task = self.ray.remote(num_returns=partitions, scheduling_strategy="SPREAD")(_single(partitions))
        cut = [
            task.remote(self.job, self.plan, view, part, self.count)
            for part in source_parts(rows, self.request.sources_root, self.request.moment_of(view))
        ]
        return [one if partitions > 1 else [one] for one in cut]

    def join(self, key_set: KeySet, parts: dict[str, list[list[Any]]]) -> None:
        """Joins the partitions and writes what they find."""
        place = self.folder / key_set.name
        task = self.ray.remote(num_returns=2, scheduling_strategy="SPREAD")(ray_tasks.join_here)
        waiting: dict[Any, tuple[int, Any]] = {}
        for number in range(self.count):
            entities = (place / f"{number}.entities").read_bytes()
            views = [(view, len(parts[view])) for view in key_set.views]
            chosen = [part[number if key_set.keys else 0] for view in key_set.views for part in parts[view]]
            found, told = task.remote(self.job, self.plan, key_set.name, entities, views, *chosen)
            waiting[told] = (number, found)
        while waiting:
            ready, _ = self.ray.wait(list(waiting), num_returns=1)
            for one in ready:
                number, found = waiting.pop(one)
                told = json.loads(self.ray.get(one))
                add_counts(self.counts, key_set, number, told["counts"])
                self.nodes.add(told["node"])
                table = pa.ipc.open_stream(pa.BufferReader(self.ray.get(found))).read_all()
                write_found(self.request, place / f"{number}.found", table, self.count)


class _Backfill:
    """Leaves `NUMBER.rows` for each partition and, where the rows are described, `profile.stats`."""

    def __init__(self, ray: Any, folder: Path) -> None:
        self.ray = ray
        self.folder = folder
        self.text = (folder / "job.json").read_text()
        self.job = Backfill.from_json(self.text)

    def run(self) -> dict[str, Any]:
        job, ray = self.job, self.ray
        read = ray.remote(num_returns=job.partitions + 1, scheduling_strategy="SPREAD")(ray_tasks.read_here)
        parts = source_parts(job.rows, Path(job.sources_root), job.as_of)
        cut = [read.remote(self.text, part) for part in parts]
        reduce = ray.remote(num_returns=2, scheduling_strategy="SPREAD")(ray_tasks.reduce_here)
        waiting: dict[Any, tuple[int, Any]] = {}
        for number in range(job.partitions):
            rows, node = reduce.remote(self.text, *(part[number] for part in cut))
            waiting[node] = (number, rows)
        report = PartReport(job.letters_max)
        for part in cut:
            report.add(ray.get(part[-1]))
        del cut
        nodes: set[str] = set()
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for one in ready:
                number, rows = waiting.pop(one)
                nodes.add(ray.get(one))
                (self.folder / f"{number}.rows").write_bytes(ray.get(rows))
        if report.profile is not None:
            (self.folder / "profile.stats").write_bytes(report.profile.to_bytes())
        return {
            "accepted": report.accepted,
            "refused": report.refused,
            "letters": report.letters,
            "nodes": len(nodes),
        }


def _single(partitions: int) -> Any:
    """With one return value a task's result is the value, not a list of it."""
    return ray_tasks.cut_part if partitions > 1 else ray_tasks.cut_whole


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
