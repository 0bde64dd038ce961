"""Statistics at ingest: what was written is described, deletions and keys are not, a kill is owned up to."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError, statistics
from headrace.statistics import IngestStatistics, describe_frame

AT = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


def test_a_materialized_view_is_described(weather_store: FeatureStore) -> None:
    weather_store.materialize()
    found = weather_store.describe("weather")
    assert (found["kind"], found["rows"], found["rows_missed"]) == ("view", 7, 0)
    assert list(found["columns"]) == ["temp", "wind_dir"], "keys are not described"
    temp = found["columns"]["temp"]
    assert (temp["dtype"], temp["nulls"], temp["min"], temp["max"], temp["distinct"]) == ("float64", 1, 1.0, 99.0, 6)
    assert sum(temp["histogram"]["counts"]) == 6
    assert found["columns"]["wind_dir"]["nans"] == 1
    assert found["event_ts"]["nulls"] == 1, "rows without a time are refused, and described"


def test_pushed_rows_add_up_and_deletions_do_not_count(weather_store: FeatureStore) -> None:
    rows = {"origin": ["JFK", "EWR"], "at": [AT, AT], "open": [True, None], "crew": ["a", "b"]}
    weather_store.push("gate", rows)
    weather_store.push("gate", rows)
    weather_store.delete("gate", {"origin": ["JFK"]})
    found = weather_store.describe("gate")
    assert found["rows"] == 4
    crew = found["columns"]["crew"]
    assert {item["value"]: item["count"] for item in crew["top"]} == {"a": 2, "b": 2}
    assert found["columns"]["open"]["nulls"] == 2


def test_small_pushes_are_counted_together(weather_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(statistics, "SHARED_BYTES_MAX", 0)
    rows = pa.table(
        {"origin": ["JFK"] * 40, "at": [AT] * 40, "open": [True] * 40, "crew": [f"c{n}" for n in range(40)]}
    )
    counted = 0
    for first, count in ((0, 2), (2, 2), (4, 9), (13, 1), (14, 0), (14, 3)):
        weather_store.push("gate", rows.slice(first, count))
        counted += count
        if counted in (4, 17):
            found = weather_store.describe("gate")
            assert found["rows"] == counted
            assert found["columns"]["crew"]["distinct"] == counted
    online = weather_store.open_online()
    assert online.statistics is not None
    assert online.statistics.rows_missed == 0


def test_a_service_is_described_by_its_features(weather_store: FeatureStore) -> None:
    weather_store.materialize()
    found = weather_store.describe("risk")
    assert found["rows"] == {"weather": 7, "runway": 2}
    assert found["columns"]["runways"]["max"] == 4.0
    assert found["columns"]["headwind"] is None, "it is computed when it is read"


def test_another_process_sees_what_was_saved(weather_store: FeatureStore, weather_project: Path) -> None:
    assert weather_store.describe("weather")["rows"] == 0
    weather_store.materialize()
    weather_store.close()
    with FeatureStore(weather_project) as reader:
        assert reader.describe("weather")["rows"] == 7


def test_rows_of_a_killed_process_are_missed_and_said_to_be(weather_store: FeatureStore, weather_project: Path) -> None:
    weather_store.materialize(views=["weather"])
    folder = weather_project / ".headrace/online/statistics"
    weather_store.close()
    for path in folder.iterdir():
        path.unlink()
    weather_store.push("gate", {"origin": ["JFK"], "at": [AT], "open": [True], "crew": ["a"]})
    assert weather_store.describe("gate")["rows"] == 1
    assert weather_store.describe("gate")["rows_missed"] == 6, "one of the seven rows was refused"


def test_damaged_statistics_do_not_keep_a_store_from_opening(
    weather_store: FeatureStore, weather_project: Path
) -> None:
    weather_store.materialize(views=["weather"])
    weather_store.close()
    path = weather_project / ".headrace/online/statistics/weather.stats"
    path.write_bytes(path.read_bytes()[:-3])
    with FeatureStore(weather_project) as reader, pytest.raises(HeadraceError) as raised:
        reader.describe("weather")
    assert raised.value.code == "corrupt_store"
    weather_store.materialize(views=["runway"])
    assert weather_store.describe("weather")["rows_missed"] == 6


def test_statistics_can_be_left_out(weather_project: Path) -> None:
    with (weather_project / "headrace.toml").open("a") as settings:
        settings.write("[online]\nstatistics = false\n")
    with FeatureStore(weather_project) as store:
        store.apply()
        store.materialize(views=["runway"])
        assert store.describe("runway")["rows"] == 0
    assert not (weather_project / ".headrace/online/statistics").exists()


def test_what_is_not_written_cannot_be_described(weather_store: FeatureStore) -> None:
    for name, part in (("departure", "computed when it is read"), ("wether", "no view or service")):
        with pytest.raises(HeadraceError, match=part) as raised:
            weather_store.describe(name)
        assert raised.value.code == "not_found"


def test_any_frame_is_described() -> None:
    table = pa.table({"x": [1, None], "l": [[1, 2], []]})
    found = describe_frame(table)
    assert found["rows"] == 2
    assert found["columns"]["l"]["measures"] == "elements"
    assert describe_frame(table.to_batches()) == found
    with pytest.raises(HeadraceError):
        describe_frame([1])


def test_a_state_of_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 2}')
    with pytest.raises(HeadraceError) as raised:
        IngestStatistics(tmp_path)
    assert raised.value.code == "newer_format"
