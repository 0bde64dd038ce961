"""What callers hand over that is no name, no time and no frame is refused in headrace's own words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from headrace import (
    Engine,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    Float64,
    InputError,
    Int64,
    PushSource,
)

AT = dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)
AT_US = 1767322800_000000
DEFINITIONS = """
from headrace import *

customer = Entity("customer", join_keys=[Field("customer_id", Int64)])
orders = FeatureView("orders", [customer], [Field("spent", Float64)], PushSource(event_ts="at"))
spender = FeatureService("spender", [orders])
"""


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    root = make_project(DEFINITIONS)
    with FeatureStore(root, clock=lambda: AT) as store:
        store.apply()
        store.push("orders", {"customer_id": [7], "at": [AT], "spent": [99.0]})
    return root


def test_a_path_that_is_none() -> None:
    for make in (FeatureStore, Engine):
        with pytest.raises(InputError, match="the project's folder is None"):
            make(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("clock", [AT, 123, "now"])
def test_a_clock_that_is_no_function_is_refused_at_once(project: Path, clock: Any) -> None:
    with pytest.raises(InputError, match=r"clock is .*, not a function") as caught:
        FeatureStore(project, clock=clock)
    assert "clock=lambda: now" in caught.value.hint


def test_times_are_microseconds_or_datetimes(project: Path) -> None:
    assert FeatureStore(project, clock=lambda: AT).now_us() == AT_US
    assert FeatureStore(project, clock=lambda: AT.replace(tzinfo=None)).now_us() == AT_US
    with pytest.raises(InputError, match=r"what the clock returned is 1\.5"):
        FeatureStore(project, clock=lambda: 1.5).now_us()  # type: ignore[arg-type, return-value]
    for clock in (AT, AT_US):
        with Engine(project, clock_us=clock) as engine:
            engine.set_clock(AT)
    with pytest.raises(InputError, match="clock_us is 'now'"):
        Engine(project, clock_us="now")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'2026-01-01' is not a time"):
        FeatureStore(project).materialize("2026-01-01")  # type: ignore[arg-type]


def test_a_service_is_named_or_given(project: Path) -> None:
    customer = Entity("customer", join_keys=[Field("customer_id", Int64)])
    view = FeatureView("orders", [customer], [Field("spent", Float64)], PushSource(event_ts="at"))
    service = FeatureService("spender", [view])
    keys = {"customer_id": [7]}
    frame = {**keys, "event_timestamp": [AT]}
    with FeatureStore(project, clock=lambda: AT) as store:
        assert store.get_online_features(service, keys) == store.get_online_features("spender", keys)
        assert store.get_historical_features(service, frame) == store.get_historical_features("spender", frame)
        reads: list[Callable[..., Any]] = [store.get_online_features, store.get_historical_features]
        for wrong in (None, ["orders:spent"]):
            for read in reads:
                with pytest.raises(InputError, match="the feature service is") as caught:
                    read(wrong, keys)
                assert ("define a FeatureService" in caught.value.hint) == (wrong is not None)


def test_frames_of_other_libraries(project: Path) -> None:
    with FeatureStore(project, clock=lambda: AT) as store:
        frame = pd.DataFrame({"customer_id": [7, 8], "event_timestamp": [AT, AT]}, index=["a", "b"])
        names = ["customer_id", "event_timestamp", "spent"]
        assert store.get_historical_features("spender", frame).column_names == names
        for empty in (pd.DataFrame({name: [] for name in names[:2]}), pd.DataFrame(columns=names[:2])):
            found = store.get_historical_features("spender", empty)
            assert found.column_names == names
            assert found.num_rows == 0
        with pytest.raises(InputError, match="is a Polars LazyFrame") as caught:
            store.get_historical_features("spender", pl.LazyFrame({"customer_id": [7], "event_timestamp": [AT]}))
        assert "call .collect()" in caught.value.hint
        with pytest.raises(InputError, match="has a column 'spent', which the service 'spender' adds"):
            store.get_historical_features("spender", {"customer_id": [7], "event_timestamp": [AT], "spent": [1.0]})


def test_deletes_with_other_keys_name_the_view(project: Path) -> None:
    with (
        FeatureStore(project, clock=lambda: AT) as store,
        pytest.raises(InputError, match="the frame of keys that view 'orders' shall forget has no column"),
    ):
        store.delete("orders", {"customer": [7]})
