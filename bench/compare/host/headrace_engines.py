"""The engine under test, the same code in every environment that hosts it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Engine, package
from expressions import DTYPES, FEATURES, headrace_features, matrix
from inputs import Array, ExpressionInputs, Inputs, LookupInputs, TreeInputs
from numpy.typing import NDArray

import headrace
from headrace import _native
from headrace.compiler import compile_plan
from headrace.export import ExportedModel, export_lightgbm, export_xgboost

SERVICE = "all_features"
KEY = "item_id"
LOAD_ROWS = 50_000
TTL_US = 30 * 24 * 3600 * 1_000_000
SKEW_US = 300 * 1_000_000
GOLDEN_ROWS = 64


def join_frames(
    plan: _native.Plan, service: str, entities: Any, sources: dict[str, Any], at: str, **options: Any
) -> _native.JoinedTable:
    """The point-in-time join of Arrow tables."""
    join = _native.PointInTimeJoin(plan, service, entities, at, **options)
    for view in join.views():
        join.add(view, sources[view])
    return join.finish()


class HeadraceLookup(Engine):
    """`OnlinePlan.read_into`: several feature views of one entity, each with an event time and a TTL to check."""

    version = headrace.__version__
    wants = "keys"
    note = "read_into a reused float32 buffer; event time and TTL of every view checked at the current time"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, LookupInputs)
        now_us = time.time_ns() // 1000
        plan = _native.Plan.from_json(self.plan_json(inputs))
        store = _native.LocalStore(plan)
        sequence = 0
        for view in range(inputs.views):
            for first in range(0, inputs.keys_count, LOAD_ROWS):
                rows = slice(first, min(first + LOAD_ROWS, inputs.keys_count))
                batch = self.batch(inputs, view, rows, now_us - 1_000_000)
                encoded, count, refused = store.encode(view_name(view), batch, sequence, now_us, SKEW_US)
                assert not refused
                store.apply(encoded)
                sequence += count
        # Kept alive: the plan reads the store's memory.
        self.store = store
        self.plan = store.online_plan(SERVICE)
        self.width = inputs.views * inputs.fields
        self.buffers: dict[int, NDArray[np.float32]] = {}

    def plan_json(self, inputs: LookupInputs) -> str:
        entity = headrace.Entity("item", join_keys=[headrace.Field(KEY, headrace.Int64)])
        views = [
            headrace.FeatureView(
                view_name(view),
                [entity],
                [headrace.Field(f"{view_name(view)}_{at}", headrace.Float32) for at in range(inputs.fields)],
                headrace.PushSource(event_ts="event_ts"),
                ttl=timedelta(microseconds=TTL_US),
            )
            for view in range(inputs.views)
        ]
        return compile_plan("bench", [headrace.FeatureService(SERVICE, views)])

    def batch(self, inputs: LookupInputs, view: int, rows: slice, event_us: int) -> Any:
        """Some rows of one view as the engine takes them."""
        pyarrow = package("pyarrow")
        time_type = pyarrow.timestamp("us", tz="UTC")
        count = rows.stop - rows.start
        times = pyarrow.array(np.full(count, event_us, np.int64)).cast(time_type)
        columns = {KEY: pyarrow.array(inputs.keys[rows]), "__event_ts": times, "__created_ts": times}
        values = inputs.table[rows, view * inputs.fields : (view + 1) * inputs.fields]
        for at in range(inputs.fields):
            columns[f"{view_name(view)}_{at}"] = pyarrow.array(np.ascontiguousarray(values[:, at]))
        return pyarrow.table(columns)

    def caller(self, rows: int) -> Call:
        out = self.buffers.setdefault(rows, np.zeros((rows, self.width), np.float32))
        read_into = self.plan.read_into
        return lambda keys: read_into(keys, out)

    def answer(self, rows: int, asked: Array) -> Array:
        self.caller(rows)(asked)
        return self.buffers[rows].copy()


class HeadraceExpressions(Engine):
    """`Expressions.run`: the twelve features as one compiled program, into the engine's own columns."""

    version = headrace.__version__
    wants = "rows"
    note = "one compiled program over columns that the engine holds; one thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, ExpressionInputs)
        features = headrace_features()
        view = headrace.OnDemandFeatureView(
            "computed",
            inputs=[headrace.Field(name, dtype) for name, dtype in DTYPES.items()],
            schema=[headrace.Field(name, dtype, features[name]) for name, dtype in FEATURES.items()],
        )
        plan = _native.Plan.from_json(compile_plan("bench", [headrace.FeatureService(SERVICE, [view])]))
        self.expressions = _native.Expressions(plan, SERVICE, inputs.columns)

    def caller(self, rows: int) -> Call:
        run = self.expressions.run
        return lambda asked: run(asked[0], rows)

    def answer(self, rows: int, asked: Array) -> Array:
        self.caller(rows)(asked)
        return np.asarray(matrix(self.expressions.values()))


def view_name(view: int) -> str:
    return f"view{view}"


class HeadraceTrees(Engine):
    """`Model.margins` on one thread, of a model version made from the file that the training library wrote."""

    version = headrace.__version__
    wants = "features"
    note = "Model.margins, threads=1"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, TreeInputs)
        rows = inputs.kinds["features"][:GOLDEN_ROWS]
        models = Path(options["folder"]) / "models"
        self.model = register(models, options["case"], options["library"], Path(options["model"]), rows)

    def caller(self, rows: int) -> Call:
        margins = self.model.margins
        return lambda features: margins(features, threads=1)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.model.margins(asked, threads=1)).reshape(-1)


class HeadraceNetworks(Engine):
    """`Model.margins` on one thread, of a model version made from the exported network."""

    version = headrace.__version__
    wants = "features"
    note = "Model.margins, threads=1"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        folder = Path(options["folder"])
        draft, data = (folder / "draft.json").read_text(), (folder / "model.safetensors").read_bytes()
        self.model = _native.Model.create(folder / "models", "network", draft, data)

    def caller(self, rows: int) -> Call:
        margins = self.model.margins
        return lambda features: margins(features, threads=1)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.model.margins(asked, threads=1)).reshape(-1)


class HeadraceTreesTwoThreads(HeadraceTrees):
    """The same on two threads. The worker may use one core only, so each call takes the others and gives them back."""

    note = "Model.margins, threads=2"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        super().load(inputs, options)
        self.cores = os.sched_getaffinity(0)
        if len(self.cores) < 2:
            raise RuntimeError("two threads need two cores")

    def caller(self, rows: int) -> Call:
        margins, cores, core = self.model.margins, self.cores, os.sched_getaffinity(0)

        def call(features: Array) -> object:
            os.sched_setaffinity(0, cores)
            try:
                return margins(features, threads=2)
            finally:
                os.sched_setaffinity(0, core)

        return call


class HeadraceContributions(HeadraceTrees):
    """`Model.contributions` on one thread."""

    note = "Model.contributions, threads=1"

    def caller(self, rows: int) -> Call:
        contributions = self.model.contributions
        return lambda features: contributions(features, threads=1)

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.model.contributions(asked, threads=1))


class HeadraceTwoCalls(HeadraceLookup):
    """`OnlinePlan.read_into` a reused buffer, then `Model.margins` of it."""

    note = "OnlinePlan.read_into, then Model.margins, threads=1"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        super().load(inputs, options)
        assert isinstance(inputs, LookupInputs)
        names = [f"{view_name(view)}_{at}" for view in range(inputs.views) for at in range(inputs.fields)]
        found = {
            "service": SERVICE,
            "features": [{"name": name, "dtype": "float32"} for name in names],
            "join_keys": [{"name": KEY, "dtype": "int64"}],
        }
        self.models, self.case = Path(options["folder"]) / type(self).__name__, options["case"]
        file, golden = Path(options["model"]), inputs.table[:GOLDEN_ROWS]
        self.model = register(self.models, self.case, options["library"], file, golden, found)

    def caller(self, rows: int) -> Call:
        look_up, out, margins = super().caller(rows), self.buffers[rows], self.model.margins

        def call(keys: Array) -> object:
            look_up(keys)
            return margins(out, threads=1)

        return call

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.caller(rows)(asked)).reshape(-1)


class HeadraceOneCall(HeadraceTwoCalls):
    """`Engine.predict_arrays`: the same store and model behind one call."""

    note = "Engine.predict_arrays"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        super().load(inputs, options)
        self.engine = _native.Engine(_native.Plan.from_json(self.plan_json(inputs)), self.store)
        self.engine.add_model(self.models / self.case / str(self.model.version))

    def caller(self, rows: int) -> Call:
        predict, case = self.engine.predict_arrays, self.case
        return lambda keys: predict(case, {KEY: keys})

    def answer(self, rows: int, asked: Array) -> Array:
        return np.asarray(self.engine.predict_arrays(self.case, {KEY: asked})["scores"]).reshape(-1)


def register(
    models: Path, name: str, library: str, file: Path, rows: Array, signature: dict[str, Any] | None = None
) -> _native.Model:
    """The next version of a model, exported as a user would: the engine's golden rows are the library's answers."""
    with tempfile.TemporaryDirectory() as folder:
        exported = export(library, file, Path(folder), rows)
        data = exported.file.read_bytes()
    given = {"features": [{"name": f"f{at}", "dtype": "float32"} for at in range(rows.shape[1])]}
    draft = {
        "task": exported.task,
        "format": exported.format,
        "golden": exported.golden,
        "signature": signature or given,
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "1970-01-01T00:00:00Z",
    }
    return _native.Model.create(models, name, json.dumps(draft), data)


def export(library: str, file: Path, folder: Path, rows: Array) -> ExportedModel:
    if library == "xgboost":
        return export_xgboost(package("xgboost").Booster(model_file=str(file)), folder / "trees.ubj", golden=rows)
    return export_lightgbm(package("lightgbm").Booster(model_file=str(file)), folder / "trees.txt", golden=rows)
