"""headrace: define features once, train on them, serve them.

```python
from headrace import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, Float64, String

airport = Entity("airport", join_keys=[Field("origin", String)])
weather = FeatureView("weather", [airport], [Field("temp", Float64)], FileSource("w.parquet", event_ts="time_hour"))
risk = FeatureService("risk", [weather])
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headrace._native import Model, OnlinePlan, __version__
from headrace.aggregations import Aggregation
from headrace.definitions import (
    Entity,
    FeatureSelection,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    PushSource,
)
from headrace.dtypes import (
    Bool,
    Bytes,
    DType,
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    List,
    String,
    Timestamp,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
)
from headrace.engine import Engine
from headrace.errors import (
    AccessError,
    DefinitionError,
    HeadraceError,
    InputError,
    ProcessError,
    RefusedRowsWarning,
    StoreError,
    UnknownNameError,
)
from headrace.expressions import (
    Expr,
    atan2,
    coalesce,
    col,
    concat,
    hash_of,
    haversine,
    if_else,
    lit,
    maximum,
    minimum,
    one_hot,
    when,
)
from headrace.feature_store import FeatureStore
from headrace.functions import python_function, scalar_function
from headrace.plan_diff import PlanDiff
from headrace.project import Project

if TYPE_CHECKING:
    from headrace import asgi as asgi
    from headrace.client import AsyncClient as AsyncClient
    from headrace.client import Client as Client

__all__ = [
    "Aggregation",
    "Bool",
    "Bytes",
    "DType",
    "DefinitionError",
    "Engine",
    "Entity",
    "Expr",
    "FeatureSelection",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileSource",
    "Float32",
    "Float64",
    "HeadraceError",
    "InputError",
    "Int16",
    "Int32",
    "Int64",
    "Int8",
    "List",
    "Model",
    "OnDemandFeatureView",
    "OnlinePlan",
    "PlanDiff",
    "AccessError",
    "ProcessError",
    "Project",
    "PushSource",
    "RefusedRowsWarning",
    "StoreError",
    "String",
    "Timestamp",
    "UInt16",
    "UInt32",
    "UInt64",
    "UInt8",
    "UnknownNameError",
    "__version__",
    "atan2",
    "coalesce",
    "col",
    "concat",
    "hash_of",
    "haversine",
    "if_else",
    "lit",
    "maximum",
    "minimum",
    "one_hot",
    "python_function",
    "scalar_function",
    "when",
]


def __getattr__(name: str) -> Any:
    """The clients and the ASGI application, imported by who uses them: serving processes do not."""
    if name in ("asgi", "client"):
        return importlib.import_module(f"headrace.{name}")
    if name in ("AsyncClient", "Client"):
        return getattr(importlib.import_module("headrace.client"), name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")
