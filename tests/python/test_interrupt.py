from __future__ import annotations

import signal
import subprocess
import sys

# Joins for as long as it is let; says whether Ctrl-C came out of the join itself.
PROGRAM = """
import json
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
joining = False
print("ready", flush=True)
try:
    while True:
        joining = True
        _native.point_in_time_join(plan, "all", entities, sources, "at", threads=1)
        joining = False
except KeyboardInterrupt:
    print("interrupted", joining, flush=True)
# The engine is as good as before.
print(_native.point_in_time_join(plan, "all", entities, sources, "at", threads=1).num_rows)
"""


def test_ctrl_c_ends_a_long_join() -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=120)
    assert rest.splitlines() == ["interrupted True", "300000"]
