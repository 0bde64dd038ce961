"""`headrace verify consistency` over a real server: what was served is proven, outlives a kill, shows in metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace import FeatureStore
from headrace.push_files import copy_pushes, counted_pushes

Command = Callable[..., Any]
DEADLINE_SECONDS = 60

DEFINITIONS = """
from headrace import *

user = Entity("user", join_keys=[Field("user", Int64)])
profile = FeatureView("profile", [user], [Field("age", Int64), Field("city", String)], PushSource(event_ts="at"))
people = FeatureService("people", [profile])
"""
SETTINGS = """
[payload]
sample = 1.0
segment_seconds = 0.1

[server]
refresh_seconds = 0.1
"""


def make_project(folder: Path) -> Path:
    (folder / "features").mkdir(parents=True)
    (folder / "headrace.toml").write_text(SETTINGS)
    (folder / "features/all.py").write_text(DEFINITIONS)
    with FeatureStore(folder) as store:
        store.apply()
        push(store, [1, 2, 3], 30)
    return folder


def push(store: FeatureStore, users: list[int], age: int) -> None:
    at = [datetime.now(UTC)] * len(users)
    store.push("profile", {"user": users, "age": [age] * len(users), "city": ["Rome"] * len(users), "at": at})


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "headrace_control", "serve", "--http", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def ask(ready: dict[str, Any], users: list[int]) -> dict[str, Any]:
    body = json.dumps({"feature_service": "people", "entities": {"user": users}}).encode()
    url = f"http://127.0.0.1:{ready['http_port']}/get-online-features"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def metrics(ready: dict[str, Any]) -> str:
    with urllib.request.urlopen(f"http://{ready['metrics']}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_a_server_is_proven_killed_and_proven_wrong(headrace: Command, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project")
    nothing = headrace("verify", "consistency", "--json", "--project", folder)
    assert (nothing.status, nothing.error["code"]) == (4, "missing_data")
    written = 'headrace_payload_rows_total{outcome="written"}'
    with served(folder) as (process, ready):
        ask(ready, [1, 2, 9])
        with FeatureStore(folder) as store:
            push(store, [2], 31)
        until(lambda: 31 in ask(ready, [2])["results"][1]["values"])
        until(lambda: f"{written} 0" not in metrics(ready) and "headrace_payload_waiting_rows 0" in metrics(ready))
        proven = headrace("verify", "consistency", "--json", "--project", folder)
        assert proven.status == 0, proven.stdout + proven.stderr
        assert proven.json["consistent"]
        assert {one["feature"] for one in proven.json["features"]} == {"age", "city"}
        ratio = 'headrace_consistency_mismatch_ratio{deployment="people",feature="age"} 0'
        until(lambda: ratio in metrics(ready))
        process.kill()
        process.wait()
    files = sorted((folder / ".headrace/payload").glob("*/*/lookup-*.parquet"))
    assert files
    (files[0].parent / f".{files[0].name}.tmp").write_bytes(files[0].read_bytes()[:50])
    [path] = (folder / ".headrace/history/profile").glob("*.pushes")
    *_, newest = counted_pushes(path)
    copy_pushes(path, path.with_suffix(".copy"), newest.number, 0)
    path.with_suffix(".copy").rename(path)
    plot = tmp_path / "consistency.png"
    wrong = headrace("verify", "consistency", "--lag", "1h", "--plot", plot, "--project", folder)
    assert wrong.status == 1, wrong.stdout + wrong.stderr
    assert "age of user=2 at " in wrong.stdout
    assert "no earlier state explains it" in wrong.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    files[0].write_bytes(b"PAR1")
    broken = headrace("verify", "consistency", "--json", "--project", folder)
    assert (broken.status, broken.error["code"]) == (1, "corrupt_store")
    assert str(files[0]) in broken.error["message"]


def test_a_lag_is_a_number_with_a_unit(headrace: Command, tmp_path: Path) -> None:
    done = headrace("verify", "consistency", "--lag", "5", "--project", tmp_path)
    assert done.status == 2
    assert "5s" in done.stderr
