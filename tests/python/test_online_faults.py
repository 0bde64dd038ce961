"""Kills, full disks and full memory: what was acknowledged stays, nothing counts twice, and reads go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError
from headrace.push_files import counted_pushes

NOW_US = 1_700_000_000_000_000
DEFINITIONS = """
from datetime import timedelta

from headrace import *

item = Entity("item", join_keys=[Field("id", Int64)])
pushed = FeatureView("pushed", [item], [Field("version", Int64), Field("text", String)], PushSource(event_ts="at"))
clicks = FeatureView(
    "clicks",
    [item],
    [Field("price", Float64)],
    PushSource(event_ts="at"),
    aggregations=[Aggregation("price", ["count", "sum"], timedelta(days=1))],
)
all_pushed = FeatureService("all_pushed", [pushed])
all_clicks = FeatureService("all_clicks", [clicks])
"""
SETTINGS = "[online]\nsnapshot_log_bytes = 60000\n"  # snapshots are among the moments to die at

COMMON = f"""
import sys
import headrace
import pyarrow as pa

NOW_US = {NOW_US}
store = headrace.FeatureStore(sys.argv[1], clock=lambda: NOW_US)

def times(at, count):
    return pa.array([at] * count, pa.timestamp("us", "UTC"))
"""
# Every push is one event of each key; says first how many each key has had, then acknowledges each push by its number.
CLICK = (
    COMMON
    + """
keys = list(range(int(sys.argv[2])))
store.open_online(writable=True)
found = store.get_online_features("all_clicks", {"id": keys})["features"].values()
[done] = {value or 0 for values in found for value in values}  # every event is worth 1: counts and sums are equal
print(int(done), flush=True)
while True:
    done += 1
    store.push("clicks", {"id": keys, "at": times(NOW_US - 1000, len(keys)), "price": [1.0] * len(keys)})
    print(int(done), flush=True)
"""
)
PUSH = (
    COMMON
    + """
keys, version = list(range(int(sys.argv[2]))), int(sys.argv[3])
while True:
    version += 1
    texts = [f"{version} of {key}" for key in keys]
    at = times(NOW_US - 10**9 + version, len(keys))
    store.push("pushed", {"id": keys, "at": at, "version": [version] * len(keys), "text": texts})
    print(version, flush=True)
"""
)
# Pushes an event of each key and compacts, again and again, each time in a process of its own (forked, before it has a
# store) that is killed at a later change of a file than the last one. Another process then looks at what is left; the
# last one was not killed. Says how many were.
COMPACT = (
    COMMON.replace("store = ", "open_store = lambda: ")
    + """
import os, signal
from headrace.history import history_files

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
keys = list(range(5))

def run(work, *arguments):
    process = os.fork()
    if process == 0:
        try:
            work(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(process, 0)[1]

def compact(last):
    store = open_store()
    store.push("clicks", {"id": keys, "at": times(NOW_US - 1000, len(keys)), "price": [1.0] * len(keys)})
    left = [last]
    def watch(event, _):
        if event in CHANGES:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    store.compact()

def look(pushes):
    store = open_store()
    asked = {"id": keys, "event_timestamp": times(NOW_US, len(keys))}
    offline = store.get_historical_features("all_clicks", asked)
    online = store.get_online_features("all_clicks", {"id": keys})["features"]
    for name in ("price_count_1d", "price_sum_1d"):
        assert offline[name].to_pylist() == online[name] == [pushes] * len(keys), (pushes, offline[name], online)
    files = history_files(store.config.state / "history" / "clicks")
    assert sum(file.count_rows() for file in files) == pushes * len(keys)

pushes = 0
while True:
    killed = run(compact, pushes)
    pushes += 1
    assert run(look, pushes) == 0
    if not killed:
        break
    assert killed == signal.SIGKILL
print(pushes - 1)
"""
)
# Follows the writer; fails where a row goes back, or is of two versions.
FOLLOW = (
    COMMON
    + """
import time

newest = 0
until = time.monotonic() + 600  # of a machine that is busy
while newest < int(sys.argv[2]):
    assert time.monotonic() < until
    time.sleep(0.01)
    store.open_online().refresh()
    found = store.get_online_features("all_pushed", {"id": [0, 7]})["features"]
    assert found["version"][0] == found["version"][1], found
    version = found["version"][0] or 0
    assert version >= newest, (version, newest)
    assert found["text"] == ([f"{version} of 0", f"{version} of 7"] if version else [None, None]), found
    if version != newest:
        print(version, flush=True)
    newest = version
"""
)


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_after(child: subprocess.Popen[str], delay_s: float) -> list[int]:
    """Kills a program some time after its first acknowledgement; returns all of them."""
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    rest, said = child.communicate()
    lines = (first + rest).split()
    assert lines, said
    return [int(line) for line in lines]


def opened(root: Path) -> FeatureStore:
    return FeatureStore(root, clock=lambda: NOW_US)


@pytest.mark.slow
def test_events_count_once_however_often_the_writer_is_killed(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, SETTINGS)
    FeatureStore(root).apply()
    chance, acknowledged = random.Random(9), -1
    for _ in range(6):
        found, *pushed = kill_after(start(CLICK, root, 40), chance.uniform(0.0, 0.25))
        assert found in (max(acknowledged, 0), acknowledged + 1), "all that was acknowledged, and nothing twice"
        acknowledged = pushed[-1] if pushed else found


@pytest.mark.slow
def test_events_count_once_wherever_a_compaction_is_killed(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, SETTINGS)
    FeatureStore(root).apply()
    done = subprocess.run([sys.executable, "-c", COMPACT, root], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5, "a compaction that changes so few files tests nothing"


@pytest.mark.slow
def test_readers_follow_a_writer_that_is_killed_and_started_again(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, SETTINGS)
    FeatureStore(root).apply()
    chance, keys, rounds = random.Random(4), 40, 2
    version = kill_after(start(PUSH, root, keys, 0), 0.1)[-1]
    final = version + 1_000_000
    readers = [start(FOLLOW, root, final) for _ in range(2)]
    try:
        for _ in range(rounds):
            version = kill_after(start(PUSH, root, keys, version + 1), chance.uniform(0.05, 0.3))[-1]
        with opened(root) as store:
            at = pa.array([NOW_US] * keys, pa.timestamp("us", "UTC"))
            texts = [f"{final} of {key}" for key in range(keys)]
            store.push("pushed", {"id": list(range(keys)), "at": at, "version": [final] * keys, "text": texts})
            for reader in readers:
                out, said = reader.communicate(timeout=600)
                assert reader.returncode == 0, said
                assert int(out.split()[-1]) == final
    finally:
        for reader in readers:
            reader.kill()


# Pushes until the disk is full, and says what happened; then makes room and goes on.
FILL = (
    COMMON
    + """
import pathlib
import resource

def push(version, length):
    at, text = times(NOW_US - 10**9 + version, 1), [str(version) * length]
    store.push("pushed", {"id": [version % 10], "at": at, "version": [version], "text": text})

push(1, 1)
if sys.argv[2] == "limit":  # no file may grow beyond this
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
version = 1
try:
    while True:
        version += 1
        push(version, 100_000)
except headrace.HeadraceError as error:
    print(error.code, version, flush=True)
found = store.get_online_features("all_pushed", {"id": [(version - 1) % 10, version % 10]})["features"]
print(found["version"][0] == version - 1, found["version"][1] in (None, version - 10), flush=True)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    pathlib.Path(sys.argv[2]).unlink()
push(version, 2)  # there is room again: the same process goes on
version += 1
store.close()
store = headrace.FeatureStore(sys.argv[1], clock=lambda: NOW_US)
push(version, 1)
found = store.get_online_features("all_pushed", {"id": [(version - 1) % 10, version % 10]})["features"]
print(found["version"] == [version - 1, version], flush=True)
store.close()
"""
)


def fill(root: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", FILL, str(root), how], capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    assert lines[0] == "io", done.stdout + done.stderr
    assert lines[2:] == ["True", "True", "True"], done.stdout + done.stderr
    version = int(lines[1])
    found = opened(root).get_online_features("all_pushed", {"id": [(version - 1) % 10, version % 10]})["features"]
    assert found["version"] == [version - 1, version]


def test_a_file_that_may_not_grow_is_said_and_the_store_stays_readable(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS)
    FeatureStore(root).apply()
    fill(root, "limit")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_and_the_store_stays_readable(make_project: Callable[..., Path], tmp_path: Path) -> None:
    root = make_project(DEFINITIONS)
    disk = root / ".headrace"
    disk.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        FeatureStore(root).apply()
        (disk / "ballast").write_bytes(bytes(14_000_000))
        fill(root, str(disk / "ballast"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_windows_keep_to_the_bound_of_the_store(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, "[online]\nbytes_max = 1048576\n")
    FeatureStore(root).apply()

    def click(store: FeatureStore, keys: range) -> None:
        at = pa.array([NOW_US - 1000] * len(keys), pa.timestamp("us", "UTC"))
        store.push("clicks", {"id": list(keys), "at": at, "price": [1.0] * len(keys)})

    def counts(store: FeatureStore, keys: list[int]) -> list[Any]:
        return next(iter(store.get_online_features("all_clicks", {"id": keys})["features"].values()))

    with opened(root) as store:
        pushed = 0
        with pytest.raises(HeadraceError) as raised:
            while pushed < 100_000:
                click(store, range(pushed, pushed + 500))
                pushed += 500
        assert raised.value.code == "store_full"
        assert pushed > 0
        assert counts(store, [0, pushed - 1, pushed]) == [1, 1, None], "what was refused is not there in part"
    store = opened(root)
    assert counts(store, [0, pushed - 1, pushed]) == [1, 1, None]


def test_a_pushed_file_without_content_keeps_nobody_from_training(make_project: Callable[..., Path]) -> None:
    """What a power cut may leave of the last pushes where `durability` is "process"."""
    root = make_project(DEFINITIONS)
    FeatureStore(root).apply()

    def push(store: FeatureStore, version: int) -> None:
        at = pa.array([NOW_US - 1000 + version], pa.timestamp("us", "UTC"))
        store.push("pushed", {"id": [1], "at": at, "version": [version], "text": ["x"]})

    with opened(root) as store:
        push(store, 1)
        push(store, 2)
    [path] = (root / ".headrace/history/pushed").iterdir()
    entities = pa.table({"id": [1], "event_timestamp": pa.array([NOW_US], pa.timestamp("us", "UTC"))})

    def version() -> object:
        return FeatureStore(root).get_historical_features("all_pushed", entities).column("version").to_pylist()

    whole = path.read_bytes()
    *_, last = counted_pushes(path)
    path.write_bytes(whole[: last.at] + bytes(len(whole) - last.at))
    with pytest.raises(HeadraceError, match="cannot be read"):
        version()
    with pytest.warns(UserWarning, match="power cut"):
        opened(root).open_online(writable=True).close()
    assert version() == [1], "the push before it is there"
    assert path.with_suffix(".torn").read_bytes() != path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.warns(UserWarning, match="power cut"), opened(root) as store:
        push(store, 3)
    assert version() == [3]
