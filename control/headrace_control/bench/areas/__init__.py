"""What can be measured: one module an area, each with `run(session) -> Report`."""

from __future__ import annotations

from headrace_control.bench.areas import demo, expr, lookup, pit, trees

AREAS = {"lookup": lookup, "trees": trees, "demo": demo, "expr": expr, "pit": pit}
