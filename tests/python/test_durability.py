"""`kill -9` at random moments: each key then shows the old or the new row, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore

DEFINITIONS = """
from headrace import *

item = Entity("item", join_keys=[Field("id", Int64)])
stock = FeatureView(
    "stock",
    [item],
    [Field("version", Int64), Field("check", Int64), Field("text", String)],
    FileSource("stock.parquet", event_ts="at"),
)
pushed = FeatureView("pushed", [item], [Field("version", Int64), Field("check", Int64)], PushSource(event_ts="at"))
all_stock = FeatureService("all_stock", [stock])
all_pushed = FeatureService("all_pushed", [pushed])
"""

# Prints, as an acknowledgement, how many rows are durable, and goes on when it is told to, or at once where nobody will
# say so; small batches make many moments to die at.
MATERIALIZE = """
import sys
import headrace.sources

headrace.sources.BATCH_ROWS_MAX = 500
store = headrace.FeatureStore(sys.argv[1])
store.materialize(progress=lambda view, rows: (print(rows, flush=True), sys.stdin.readline()))
store.close()
"""

# Acknowledges each version of all keys, which is written as one batch.
PUSH = """
import sys
import headrace
import pyarrow as pa

store = headrace.FeatureStore(sys.argv[1])
keys, version = range(int(sys.argv[2])), int(sys.argv[3])
while True:
    version += 1
    store.push("pushed", {
        "id": list(keys),
        "at": pa.array([version] * len(keys), pa.timestamp("us", "UTC")),
        "version": [version] * len(keys),
        "check": [version * 7 + key for key in keys],
    })
    print(version, flush=True)
"""

KEYS = 5_000
SETTINGS = "[online]\nsnapshot_log_bytes = 150000\n"  # snapshots are among the moments to die at


def run_and_kill(program: str, *arguments: str, delay_s: float) -> list[int]:
    """Runs a program, kills it some time after its first acknowledgement, and returns all of them."""
    command = [sys.executable, "-c", program, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    child.wait()
    child.stdout.close()
    return [int(line) for line in (first + rest).splitlines() if line]


def load_and_kill(root: Path, acknowledgements: int, delay_s: float) -> list[int]:
    """Runs a load, kills it some time after it has gone on from an acknowledgement, and returns all of them."""
    command = [sys.executable, "-c", MATERIALIZE, str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdin is not None
    seen = ""
    for _ in range(acknowledgements):
        seen += child.stdout.readline()
        child.stdin.write("\n")
        child.stdin.flush()
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    rest, _ = child.communicate()
    return [int(line) for line in (seen + rest).splitlines() if line]


def write_source(root: Path, version: int) -> None:
    columns = {
        "id": list(range(KEYS)),
        "at": pa.array([version] * KEYS, pa.timestamp("us", "UTC")),
        "version": [version] * KEYS,
        "check": [version * 7 + key for key in range(KEYS)],
        "text": [f"{version} of {key}" for key in range(KEYS)],
    }
    pq.write_table(pa.table(columns), root / "stock.parquet", row_group_size=500)


def read(root: Path, service: str, keys: int) -> tuple[list[int | None], list[int | None], list[str | None]]:
    """The versions, checks and texts of all keys, as a process that starts now sees them."""
    store = FeatureStore(root)
    features = store.get_online_features(service, {"id": list(range(keys))})["features"]
    return features["version"], features["check"], features.get("text", [None] * keys)


@pytest.mark.slow
def test_killed_while_materializing(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, SETTINGS)
    FeatureStore(root).apply()
    chance = random.Random(20130101)
    finished = 0
    for version in range(1, 13):
        write_source(root, version)
        acknowledged = run_and_kill(MATERIALIZE, str(root), delay_s=chance.uniform(0.0, 0.12))
        finished += acknowledged[-1] == KEYS
        versions, checks, texts = read(root, "all_stock", KEYS)
        assert versions[: acknowledged[-1]] == [version] * acknowledged[-1], "acknowledged rows are there"
        for key, (found, check, text) in enumerate(zip(versions, checks, texts, strict=True)):
            if found is None:
                assert version == 1 and key >= acknowledged[-1]
                continue
            assert found <= version
            assert (check, text) == (found * 7 + key, f"{found} of {key}"), "a row is old or new, never a mixture"
        with FeatureStore(root) as store:  # what was cut off is made up for, so the next round starts from this version
            store.materialize()
        assert set(read(root, "all_stock", KEYS)[0]) == {version}
    assert finished < 12, "no round was cut off: the test tests nothing"


@pytest.mark.slow
def test_a_load_killed_again_and_again_writes_each_row_once(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS, SETTINGS)
    FeatureStore(root).apply()
    write_source(root, 1)
    chance = random.Random(20130102)
    acknowledged = 0
    for _ in range(3):  # a round writes at most three of the ten batches
        rows = load_and_kill(root, chance.randrange(1, 3), chance.uniform(0.0, 0.004))
        assert rows[-1] < KEYS, "a load that was not cut off tests nothing"
        acknowledged = FeatureStore(root).open_online().next_sequence
        versions, _, _ = read(root, "all_stock", KEYS)
        assert versions[:acknowledged] == [1] * acknowledged
    with FeatureStore(root) as store:
        store.materialize()
        assert store.open_online().next_sequence == KEYS, "a row was written twice"
        assert store.open_online().intervals("stock")


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killed_while_pushing(make_project: Callable[..., Path], durability: str) -> None:
    root = make_project(DEFINITIONS, SETTINGS + f'durability = "{durability}"\n')
    FeatureStore(root).apply()
    chance, keys, version = random.Random(durability), 300, 0
    for _ in range(8):
        acknowledged = run_and_kill(PUSH, str(root), str(keys), str(version), delay_s=chance.uniform(0.0, 0.2))
        versions, checks, _ = read(root, "all_pushed", keys)
        assert len(set(versions)) == 1, "a batch is there as a whole or not at all"
        [found] = set(versions)
        assert found in (acknowledged[-1], acknowledged[-1] + 1)
        assert checks == [found * 7 + key for key in range(keys)]
        version = found


@pytest.mark.slow
def test_killed_again_and_again_without_ever_closing(make_project: Callable[..., Path]) -> None:
    """A start after a kill is itself killed: replay changes nothing, so it may be repeated."""
    root = make_project(DEFINITIONS)
    FeatureStore(root).apply()
    write_source(root, 1)
    acknowledged = [0]
    for delay_s in (0.02, 0.0, 0.05):
        acknowledged = run_and_kill(MATERIALIZE, str(root), delay_s=delay_s)
    versions, _, _ = read(root, "all_stock", KEYS)
    assert versions[: acknowledged[-1]] == [1] * acknowledged[-1]
