"""What can be measured: one module an area, each with `run(session) -> Report`."""

from __future__ import annotations

from headrace_control.bench.areas import (
    demo,
    expr,
    ingest,
    lookup,
    mlp,
    online,
    pit,
    predict,
    serve,
    shap,
    trees,
    windows,
)

AREAS = {
    "lookup": lookup,
    "online": online,
    "ingest": ingest,
    "pit": pit,
    "windows": windows,
    "expr": expr,
    "trees": trees,
    "mlp": mlp,
    "shap": shap,
    "predict": predict,
    "serve": serve,
    "demo": demo,
}
