from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from headrace import (
    DefinitionError,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Float64,
    HeadraceError,
    Int64,
    List,
    OnDemandFeatureView,
    PushSource,
    String,
    UnknownNameError,
    col,
)
from headrace.compiler import check_inputs_used, compile_plan
from headrace.definitions import Definition

airport = Entity("airport", join_keys=[Field("origin", String)])
weather = FeatureView(
    "weather",
    [airport],
    [Field("temp", Float64), Field("wind", Float32)],
    FileSource("weather.parquet", event_ts="at", available_after=dt.timedelta(minutes=5)),
    ttl=dt.timedelta(hours=3),
)


def compiled(*definitions: Definition) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(compile_plan("p", definitions))
    return plan


def test_a_service_brings_everything_that_it_refers_to() -> None:
    chill = OnDemandFeatureView("chill", [weather], [Field("felt", Float64, col("temp") - col("wind"))])
    plan = compiled(FeatureService("risk", [chill]))
    assert list(plan["entities"]) == ["airport"]
    assert plan["views"]["weather"]["ttl_us"] == 3 * 3600 * 10**6
    assert plan["views"]["weather"]["source"]["available_after_us"] == 300 * 10**6
    assert plan["on_demand_views"]["chill"]["inputs"] == [
        {"name": "temp", "dtype": "float64", "from": "weather"},
        {"name": "wind", "dtype": "float32", "from": "weather"},
    ]
    assert plan["services"]["risk"]["features"] == [{"view": "chill", "feature": "felt", "name": "felt"}]


def test_full_names_keep_equal_features_apart() -> None:
    other = FeatureView("other", [airport], [Field("temp", Float64)], FileSource("o.csv", event_ts="at"))
    with pytest.raises(DefinitionError, match="two features named 'temp'"):
        FeatureService("both", [weather, other])
    service = FeatureService("both", [weather[["temp"]], other], full_feature_names=True)
    names = [entry["name"] for entry in compiled(service)["services"]["both"]["features"]]
    assert names == ["weather__temp", "other__temp"]


def test_the_order_of_features_is_kept() -> None:
    service = FeatureService("s", [weather[["wind", "temp"]]])
    assert [entry["feature"] for entry in service.to_json()["features"]] == ["wind", "temp"]


def test_a_plan_does_not_depend_on_the_order_of_definitions() -> None:
    service = FeatureService("s", [weather])
    assert compile_plan("p", [airport, weather, service]) == compile_plan("p", [service, weather, airport])


def test_the_same_name_for_different_things_is_refused() -> None:
    other = Entity("airport", join_keys=[Field("code", String)])
    with pytest.raises(DefinitionError, match="two different definitions of entity 'airport'"):
        compiled(airport, other)
    with pytest.raises(DefinitionError, match="is a feature view and an on-demand feature view"):
        compiled(OnDemandFeatureView("weather", [weather], [Field("t", Float64, col("temp") + 1)]), weather)


def test_an_equal_definition_twice_is_one() -> None:
    again = Entity("airport", join_keys=[Field("origin", String)])
    assert list(compiled(airport, again)["entities"]) == ["airport"]


def test_inputs_that_no_expression_uses() -> None:
    whole = OnDemandFeatureView("v", [weather], [Field("t", Float64, col("temp") + 1)])
    assert [entry["name"] for entry in compiled(whole)["on_demand_views"]["v"]["inputs"]] == ["temp"]
    named = OnDemandFeatureView("v", [weather, Field("at", Int64)], [Field("t", Float64, col("temp") + 1)])
    for definition in (named, FeatureService("s", [named])):
        with pytest.raises(DefinitionError, match="no expression uses its input 'at'"):
            check_inputs_used([definition])


def test_an_unknown_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(DefinitionError, match=r"uses 'tmp', which is not an input.*did you mean 'temp'"):
        compiled(OnDemandFeatureView("v", [weather], [Field("t", Float64, col("tmp") + 1)]))


def test_an_input_from_two_views_is_refused() -> None:
    other = FeatureView("other", [airport], [Field("temp", Float64)], FileSource("o.csv", event_ts="at"))
    with pytest.raises(DefinitionError, match="'temp' comes from 'weather' and from 'other'"):
        compiled(OnDemandFeatureView("v", [weather, other], [Field("t", Float64, col("temp") + 1)]))


def test_selecting_an_unknown_feature() -> None:
    with pytest.raises(UnknownNameError, match=r"view 'weather' has no feature 'tmp'.*did you mean 'temp'"):
        weather[["tmp"]]


def view(**changes: Any) -> FeatureView:
    given: dict[str, Any] = {
        "name": "v",
        "entities": [airport],
        "schema": [Field("x", Float64)],
        "source": FileSource("x.csv"),
    }
    return FeatureView(**(given | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Entity("1st", join_keys=[Field("id", Int64)]), "'1st' is not a name"),
        (lambda: Entity("a__b", join_keys=[Field("id", Int64)]), "'a__b' is not a name"),
        (lambda: Entity("e", join_keys=[]), "entity 'e' has no join keys"),
        (lambda: Entity("e", join_keys=[Field("id", Float64)]), "join key 'id' is a float64"),
        (lambda: Entity("e", join_keys=[Field("id", List(Int64))]), "join key 'id' is a list<int64>"),
        (lambda: FileSource("data.bin"), "does not tell its format"),
        (lambda: FileSource("data.csv", format="xml"), "there is no format 'xml'"),  # type: ignore[arg-type]
        (lambda: FileSource("data.csv", created_ts="at"), "and no event_ts"),
        (lambda: view(ttl=dt.timedelta(hours=1)), "has a ttl, and its rows have no event time"),
        (lambda: view(ttl=3600, source=PushSource(event_ts="at")), "ttl is 3600"),
        (lambda: view(schema=[Field("origin", String)]), "two columns named 'origin'"),
        (lambda: view(schema=[Field("x", Float64, col("y") + 1)]), "not a list of plain fields"),
        (lambda: view(schema=[]), "not a list of plain fields"),
        (lambda: view(source="x.csv"), "its source is 'x.csv'"),
        (lambda: view(entities=["airport"]), "not all Entity"),
        (lambda: OnDemandFeatureView("o", [weather], [Field("x", Float64)]), "fields with expressions"),
        (lambda: OnDemandFeatureView("o", ["weather"], [Field("x", Float64, col("t") + 1)]), "neither a request"),  # type: ignore[list-item]
        (lambda: FeatureService("s", []), "has no features"),
        (lambda: FeatureService("s", ["weather"]), "neither a view nor a selection"),  # type: ignore[list-item]
        (lambda: Field("x", "float16"), "'float16' is not a type"),
    ],
)
def test_a_wrong_definition_is_refused_where_it_is_written(make: Any, message: str) -> None:
    with pytest.raises(HeadraceError) as raised:
        make()
    assert message in raised.value.message
    assert raised.value.hint
