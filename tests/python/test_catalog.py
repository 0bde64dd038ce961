"""Search, feature list and lineage of a project."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from headrace import FeatureStore, HeadraceError

OWNED = """
from headrace import *

customer = Entity("customer", join_keys=[Field("customer_id", Int64)], description="A person who buys.", owner="ana")
orders = FeatureView(
    "orders",
    [customer],
    [Field("spent", Float64), Field("count", Int64)],
    FileSource("data/orders.parquet", event_ts="at", rename={"total": "spent"}),
    description="What a customer has bought, by day.",
    tags={"tier": "gold", "domain": "sales"},
    owner="ana",
)
visits = FeatureView(
    "visits", [customer], [Field("pages", Int64)], PushSource(event_ts="at"), tags={"tier": "silver"}, owner="Bo"
)
ratio = OnDemandFeatureView(
    "ratio",
    inputs=[orders[["spent"]], visits, Field("now", Timestamp)],
    schema=[
        Field("spent_per_page", Float64, col("spent") / col("pages")),
        Field("hour", Int64, col("now").dt.hour()),
    ],
    owner="ana",
)
buyer = FeatureService("buyer", [orders[["spent"]], ratio], owner="cem", description="Who will buy?")
"""


@pytest.fixture
def store(make_project: Callable[..., Path]) -> FeatureStore:
    found = FeatureStore(make_project(OWNED))
    found.apply()
    return found


def names(store: FeatureStore, *args: object, **options: object) -> list[str]:
    return [f"{entry.kind} {entry.name}" for entry in store.search(*args, **options)]  # type: ignore[arg-type]


def test_search_looks_into_names_tags_owners_and_descriptions(store: FeatureStore) -> None:
    assert names(store, "orders")[:2] == ["view orders", "feature orders:spent"]
    assert names(store, "bought") == ["view orders", "feature orders:spent", "feature orders:count"]
    assert names(store, "SILVER") == ["view visits", "feature visits:pages"]
    assert names(store, "cem") == ["service buyer"]
    assert names(store, "person buy") == ["entity customer"], "every word must be there"
    assert names(store, "nothing like it") == []


def test_a_whole_name_comes_before_a_part_of_one(store: FeatureStore) -> None:
    found = store.search("spent")
    assert [entry.name for entry in found][:2] == ["orders:spent", "ratio:spent_per_page"]
    assert found[0].score >= found[1].score > found[-1].score
    assert names(store, "buy")[0] == "service buyer"


def test_search_by_tag_and_owner(store: FeatureStore) -> None:
    assert names(store, tags={"tier": "gold"}) == names(store, "", ["tier=gold"]) == names(store, tags="domain")
    assert names(store, tags=["tier", "domain=sales"], owner="ANA")[0] == "view orders"
    assert names(store, owner="bo") == ["view visits", "feature visits:pages"]
    assert names(store, "orders", tags={"tier": "silver"}) == []
    with pytest.raises(HeadraceError) as raised:
        store.search(7)  # type: ignore[arg-type]
    assert raised.value.code == "invalid_argument"


def test_features_know_their_users(weather_store: FeatureStore, make_model: Callable[..., Path]) -> None:
    make_model("late/1", {"temp": 0.5, "headwind": 1.0})
    weather_store.materialize()
    found = {f"{item.view}:{item.name}": item for item in weather_store.features()}
    assert found["weather:temp"].models == ("late/1",)
    assert found["weather:temp"].services == ("risk",)
    assert found["weather:wind_dir"].models == ("late/1",), "the model takes headwind, which is computed from it"
    assert found["departure:headwind"].computed
    assert found["departure:hour"].unused == found["runway:runways"].unused == "no model takes it from its services"
    assert found["weather:temp"].unused == ""
    assert found["weather:temp"].fresh_until_us == weather_store.now_us()
    assert found["gate:open"].fresh_until_us is None


def test_a_feature_in_no_service_is_unused(store: FeatureStore) -> None:
    found = {f"{item.view}:{item.name}": item for item in store.features()}
    assert found["orders:count"].unused == "in no service"
    assert found["visits:pages"].services == ("buyer",), "through a computed feature"


def test_freshness_is_known_without_opening_the_table(weather_store: FeatureStore, weather_project: Path) -> None:
    weather_store.materialize(views=["weather"])
    weather_store.close()
    with FeatureStore(weather_project) as reader:
        fresh = {item.view: item.fresh_until_us for item in reader.features()}
    assert fresh["weather"] == weather_store.now_us()
    assert fresh["runway"] is None


def test_lineage_leads_from_column_to_model(weather_store: FeatureStore, make_model: Callable[..., Path]) -> None:
    make_model("late/1", {"temp": 0.5})
    graph = weather_store.lineage()
    path = [
        "column weather.parquet#wind_dir",
        "feature weather:wind_dir",
        "feature departure:headwind",
        "service risk",
        "model late/1",
    ]
    assert set(pairwise(path)) <= set(graph.edges)
    assert ("request request:planned", "feature departure:hour") in graph.edges
    assert ("feature weather:temp", "feature departure:headwind") not in graph.edges, "the expression does not read it"
    assert graph.nodes["feature departure:headwind"].expression == 'cos(radians(col("wind_dir")))'
    document = graph.to_json()
    assert {"from": "service risk", "to": "model late/1"} in document["edges"]
    assert {"id", "kind", "name", "group", "label"} <= document["nodes"][0].keys()


def test_a_renamed_column_is_named_as_in_its_file(store: FeatureStore) -> None:
    assert ("column data/orders.parquet#total", "feature orders:spent") in store.lineage().edges
    assert ("column push visits#pages", "feature visits:pages") in store.lineage().edges


@pytest.mark.parametrize("name", ["spent", "orders:spent", "orders.spent", "data/orders.parquet#total"])
def test_lineage_about_one_thing_is_what_leads_to_it_and_what_it_leads_to(store: FeatureStore, name: str) -> None:
    about = store.lineage(name)
    assert set(about.nodes) == {
        "column data/orders.parquet#total",
        "feature orders:spent",
        "feature ratio:spent_per_page",
        "service buyer",
    }
    assert set(store.lineage("ratio").nodes) >= {"column push visits#pages", "request request:now", "service buyer"}


def test_lineage_of_an_unknown_name_is_refused_with_the_nearest(store: FeatureStore) -> None:
    with pytest.raises(HeadraceError, match="did you mean 'orders'") as raised:
        store.lineage("ordrs")
    assert raised.value.code == "not_found"


def test_plan_names_the_owners_of_what_would_break(make_project: Callable[..., Path]) -> None:
    root = make_project(OWNED)
    store = FeatureStore(root)
    store.apply()
    path = root / "features/all.py"
    path.write_text(path.read_text().replace('Field("spent", Float64)', 'Field("spent", Int64)'))
    [breaking] = store.plan().breaking
    assert breaking.owners == ("ana", "cem")
    assert str(breaking).endswith("would break service buyer (owners: ana, cem)")
    assert store.plan().to_json()["breaking"][0]["owners"] == ["ana", "cem"]
