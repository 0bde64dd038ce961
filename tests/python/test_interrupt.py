from __future__ import annotations

import subprocess
import sys

# Joins for as long as it is let; says whether Ctrl-C came out of the join itself. The signal comes from a thread of the
# same process, which can only run while the join has let go of the interpreter.
PROGRAM = """
import os
import signal
import threading
import pyarrow as pa
from headrace import _native
from headrace.compiler import compile_plan
from headrace.definitions import Entity, FeatureService, FeatureView, Field, PushSource

item = Entity("item", join_keys=[Field("id", "int64")])
views = [FeatureView(f"v{n}", [item], [Field(f"x{n}", "float64")], PushSource("at")) for n in range(4)]
plan = _native.Plan.from_json(compile_plan("p", [FeatureService("all", views)]))
rows = 300_000
times = pa.array(range(rows), pa.int64()).cast(pa.timestamp("us", "UTC"))
keys = pa.array([n * 7919 % 1000 for n in range(rows)])
entities = pa.table({"id": keys, "at": times})
sources = {
    view.name: pa.table({"id": keys, "__event_ts": times, "__created_ts": times, f"x{n}": pa.array([1.0] * rows)})
    for n, view in enumerate(views)
}

def join():
    found = _native.PointInTimeJoin(plan, "all", entities, "at", threads=1)
    for view in found.views():
        found.add(view, sources[view])
    return found.finish()

joining = False
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        joining = True
        join()
        joining = False
except KeyboardInterrupt:
    print("interrupted", joining, flush=True)
# The engine is as good as before.
print(join().num_rows)
"""


def test_ctrl_c_ends_a_long_join() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["interrupted True", "300000"]
