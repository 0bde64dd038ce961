"""A handle that is used after a fork raises by name, and nothing waits for threads that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from headrace import FeatureStore

# The child uses each handle, drops all of them, ends as a normal program does, and works with handles of its own.
PROGRAM = """
import gc, os, sys, warnings
import headrace

warnings.simplefilter("ignore", DeprecationWarning)
root = sys.argv[1]
store = headrace.FeatureStore(root)
store.materialize()
online = store.open_online()
plan = online.local.online_plan("gates")
engine = headrace.Engine(store)
engine.get_online_features("gates", {"origin": ["JFK"]})
row = {"origin": ["JFK"], "at": ["2013-01-01T00:00:00Z"], "open": [True], "crew": ["a"]}
calls = {
    "LocalStore": lambda: len(online.local),
    "OnlinePlan": lambda: plan.read({"origin": ["JFK"]}),
    "Engine": lambda: engine.native.predict("none"),
    "push": lambda: store.push("gate", row),
    "reads": lambda: store.get_online_features("gates", {"origin": ["JFK"]}),
    "close": lambda: (engine.close(), store.close()),
}
child = os.fork()
if child == 0:
    for name, call in calls.items():
        try:
            call()
            print(name, "worked", flush=True)
        except headrace.HeadraceError as error:
            print(name, error.code, error.message.split(" was")[0], flush=True)
    del store, online, plan, engine, calls
    gc.collect()
    own = headrace.FeatureStore(root)
    try:
        own.open_online(writable=True)
    except headrace.HeadraceError as error:
        print("writer", error.code, flush=True)
    found = own.get_online_features("risk", {"origin": ["JFK"]}, {"planned": [0]})
    print("own", found["features"]["runways"], flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
print("parent", store.push("gate", row).inserted, len(online.local) > 0)
engine.close()
print("logged", engine.payload_stats()["written_rows"])
store.close()
"""


def test_handles_refuse_to_work_after_a_fork(weather_project: Path) -> None:
    FeatureStore(weather_project).apply()
    command = [sys.executable, "-c", PROGRAM, str(weather_project)]
    environment = {**os.environ, "HEADRACE_PAYLOAD_SAMPLE": "1"}  # which has a thread
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "LocalStore used_after_fork this LocalStore",
        "OnlinePlan used_after_fork this OnlinePlan",
        "Engine used_after_fork this Engine",
    ]
    assert [line.split()[1] for line in lines[3:5]] == ["used_after_fork"] * 2
    assert lines[5] == "close worked", "a child may let go of what it has inherited"
    assert lines[6:] == ["writer store_locked", "own [4]", "child 0", "parent 1 True", "logged 1"]
