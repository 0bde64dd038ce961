"""Two versions of a view live side by side, and who reads the first notices nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import DefinitionError, Entity, FeatureStore, FeatureView, Field, Float64, PushSource, String

FIRST = """
from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
weather = FeatureView("weather", [airport], [Field("temp", Float64)], PushSource(event_ts="at"))
risk = FeatureService("risk", [weather])
"""
SECOND = """
kelvin = FeatureView("weather", [airport], [Field("temp", Int64)], PushSource(event_ts="at"), version=2)
shifted = OnDemandFeatureView("shifted", [kelvin], [Field("celsius", Int64, col("temp") - 273)])
risk_kelvin = FeatureService("risk_kelvin", [kelvin, shifted])
both = FeatureService("both", [weather, kelvin], full_feature_names=True)
"""
AT = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


def rows(temp: float) -> dict[str, list[Any]]:
    return {"origin": ["JFK"], "at": [AT], "temp": [temp]}


@pytest.fixture
def store(make_project: Callable[..., Path]) -> FeatureStore:
    root = make_project(FIRST)
    found = FeatureStore(root)
    found.apply()
    found.push("weather", rows(20.0))
    path = root / "features/all.py"
    path.write_text(path.read_text() + SECOND)
    return found


def test_a_second_version_is_an_addition(store: FeatureStore) -> None:
    diff = store.plan()
    assert not diff.breaking
    assert not diff.changed
    assert not diff.removed
    assert "feature view weather@v2" in {str(change) for change in diff.added}


def test_each_version_has_its_own_rows(store: FeatureStore) -> None:
    store.apply()
    store.push("weather@v2", rows(293))
    key = {"origin": ["JFK"]}
    assert store.get_online_features("risk", key)["features"] == {"temp": [20.0]}
    assert store.get_online_features("risk_kelvin", key)["features"] == {"temp": [293], "celsius": [20]}
    both = store.get_online_features("both", key)["features"]
    assert both == {"weather__temp": [20.0], "weather@v2__temp": [293]}
    table = store.get_historical_features("both", {"origin": ["JFK"], "t": [AT]}, event_ts_column="t")
    assert table.select(["weather__temp", "weather@v2__temp"]).to_pylist() == [
        {"weather__temp": 20.0, "weather@v2__temp": 293}
    ]


def test_versions_survive_a_restart(store: FeatureStore) -> None:
    store.apply()
    store.push("weather@v2", rows(293))
    root = store.config.root
    store.close()
    with FeatureStore(root) as again:
        assert again.get_online_features("risk_kelvin", {"origin": ["JFK"]})["features"]["temp"] == [293]
        assert again.describe("weather@v2")["rows"] == 1
        assert {"feature weather@v2:temp", "feature shifted:celsius"} <= set(again.lineage("weather@v2").nodes)


@pytest.mark.parametrize("version", [0, -1, 2.0, True, 2**32, "2"])
def test_a_version_is_a_number_from_1_on(version: Any) -> None:
    airport = Entity("airport", join_keys=[Field("origin", String)])
    with pytest.raises(DefinitionError, match="its version is"):
        FeatureView("weather", [airport], [Field("temp", Float64)], PushSource(event_ts="at"), version=version)


def test_version_1_is_the_plain_name() -> None:
    airport = Entity("airport", join_keys=[Field("origin", String)])
    view = FeatureView("weather", [airport], [Field("temp", Float64)], PushSource(event_ts="at"), version=1)
    assert view.name == "weather"
