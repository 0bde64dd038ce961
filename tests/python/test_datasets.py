"""Training sets that are kept: the same bytes later, their parts, what they were made of."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import FeatureStore, HeadraceError
from headrace.dataset_statistics import column_statistics
from headrace.datasets import HashSplit, TimeSplit
from headrace.digests import digest_file

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def rows(hours: int = 4) -> dict[str, Any]:
    return {
        "origin": ["JFK", "EWR"] * hours,
        "planned": [START] * 2 * hours,
        "event_timestamp": [START + n // 2 * HOUR for n in range(2 * hours)],
        "late": [n % 3 for n in range(2 * hours)],
    }


def test_reading_it_later_gives_the_same_bytes(weather_store: FeatureStore, weather_project: Path) -> None:
    dataset = weather_store.create_dataset("risks", "risk", rows())
    data, table = dataset.path.read_bytes(), dataset.to_arrow()
    joined = weather_store.get_historical_features("risk", rows())
    assert repr(table.to_pylist()) == repr(joined.to_pylist())
    (weather_project / "weather.parquet").unlink()
    weather_store.materialize(views=["runway"])
    with FeatureStore(weather_project) as later:
        again = later.dataset("risks")
        assert again.path.read_bytes() == data
        assert repr(again.to_arrow()) == repr(table)
        assert again.digest == digest_file(again.path)
        assert again.to_pandas().shape == (8, table.num_columns)


def test_the_same_rows_are_the_same_version(weather_store: FeatureStore, weather_project: Path) -> None:
    first = weather_store.create_dataset("risks", "risk", rows())
    assert weather_store.create_dataset("risks", "risk", rows()).version == first.version == 1
    second = weather_store.create_dataset("risks", "risk", rows(3))
    assert second.version == 2
    (weather_project / "runways.csv").write_text("origin,runways\nJFK,9\nEWR,3\n")
    third = weather_store.create_dataset("risks", "risk", rows(3))
    assert (third.version, third.manifest["rows"]) == (3, second.manifest["rows"])
    found = third.diff(second)
    assert "lineage" in found and "runways.max" in found["statistics"]
    assert found["statistics"]["runways.max"] == [4, 9]
    assert third.diff(third) == {}
    assert weather_store.dataset("risks").version == 3
    assert weather_store.dataset("risks", 1).digest == first.digest
    assert weather_store.dataset("risks", first.digest).version == 1
    assert weather_store.datasets.names() == ["risks"]


def test_a_bound_of_memory_makes_the_same_version(weather_store: FeatureStore, tmp_path: Path) -> None:
    asked = pa.concat_tables([pa.table(rows())] * 400)
    first = weather_store.create_dataset("risks", "risk", asked)
    assert weather_store.create_dataset("risks", "risk", asked, memory="1MB").version == first.version
    pq.write_table(asked, tmp_path / "asked.parquet")
    assert weather_store.create_dataset("risks", "risk", tmp_path / "asked.parquet").version == first.version
    with pytest.raises(HeadraceError, match="on is 'dask'"):
        weather_store.create_dataset("risks", "risk", asked, on="dask")


def test_what_it_was_made_of_is_written_down(weather_store: FeatureStore, weather_project: Path) -> None:
    dataset = weather_store.create_dataset("risks", "risk", rows(), as_known_at=True)
    manifest = dataset.manifest
    assert manifest["query"]["service"] == "risk" and manifest["query"]["as_known_at"] is True
    assert manifest["lineage"]["plan_digest"] == weather_store.applied.digest
    [file] = manifest["lineage"]["views"]["weather"]["files"]
    assert file["path"] == "weather.parquet"
    assert file["digest"] == digest_file(weather_project / "weather.parquet")
    temp = manifest["statistics"]["temp"]
    values = [value for value in dataset.to_arrow()["temp"].to_pylist() if value is not None]
    assert (temp["rows"], temp["nulls"]) == (8, 8 - len(values))
    assert (temp["min"], temp["max"], temp["mean"]) == (min(values), max(values), sum(values) / len(values))


def test_parts_by_time(weather_store: FeatureStore) -> None:
    split = TimeSplit("event_timestamp", {"validate": START + HOUR, "test": START + 3 * HOUR})
    dataset = weather_store.create_dataset("risks", "risk", rows(), split)
    assert dataset.manifest["parts"] == {"train": 2, "validate": 4, "test": 2}
    times = {part: set(dataset.to_arrow(part)["event_timestamp"].to_pylist()) for part in dataset.manifest["parts"]}
    assert times["train"] == {START}
    assert times["validate"] == {START + HOUR, START + 2 * HOUR}
    assert dataset.to_arrow("test").column_names == dataset.to_arrow().column_names[:-1]
    with pytest.raises(HeadraceError, match=r"no part 'tests'.*did you mean 'test'"):
        dataset.to_arrow("tests")


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=60), st.integers(0, 100))
def test_parts_by_key_keep_a_key_together_and_stay(keys: list[int | None], share: int) -> None:
    split = HashSplit(["key"], {"train": share / 100, "test": 1 - share / 100}, salt="s")
    table = pa.table({"key": pa.array(keys, pa.int64())})
    parts = split.parts(table).to_pylist()
    of_key = dict(zip(keys, parts, strict=True))
    assert [of_key[key] for key in keys] == parts
    assert split.parts(table.slice(len(keys) // 2)).to_pylist() == parts[len(keys) // 2 :]
    assert set(parts) <= ({"train"} if share == 100 else {"test"} if share == 0 else {"train", "test"})


def test_shares_of_keys_are_about_as_asked() -> None:
    table = pa.table({"key": list(range(10_000))})
    parts = HashSplit(["key"], {"train": 0.8, "validate": 0.1, "test": 0.1}).parts(table).to_pylist()
    assert [round(parts.count(name) / 10_000, 1) for name in ("train", "validate", "test")] == [0.8, 0.1, 0.1]


def test_a_split_that_is_none_is_refused(weather_store: FeatureStore) -> None:
    for split in (HashSplit(["origin"], {"a": 0.5}), TimeSplit("event_timestamp", {"b": START + HOUR, "a": START})):
        with pytest.raises(HeadraceError) as raised:
            weather_store.create_dataset("risks", "risk", rows(), split)
        assert raised.value.code == "invalid_argument"
    with pytest.raises(HeadraceError, match=r"\.\./x"):
        weather_store.create_dataset("../x", "risk", rows())
    assert weather_store.datasets.names() == []
    with pytest.raises(HeadraceError, match="no dataset 'risks'"):
        weather_store.dataset("risks")


def test_a_changed_file_is_found_out(weather_store: FeatureStore) -> None:
    dataset = weather_store.create_dataset("risks", "risk", rows())
    data = bytearray(dataset.path.read_bytes())
    data[len(data) // 2] ^= 1
    dataset.path.write_bytes(bytes(data))
    with pytest.raises(HeadraceError) as raised:
        dataset.to_arrow()
    assert raised.value.code == "corrupt_store"


NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(math.nan))


@given(st.lists(NUMBERS, max_size=30))
def test_statistics_are_those_of_the_values(values: list[float | None]) -> None:
    found = column_statistics(pa.chunked_array([pa.array(values, pa.float64())]))
    given_values = [value for value in values if value is not None and not math.isnan(value)]
    assert found["nulls"] == values.count(None)
    assert found["nan"] == len(values) - found["nulls"] - len(given_values)
    if given_values:
        assert (found["min"], found["max"]) == (min(given_values), max(given_values))
        assert math.isclose(found["mean"], sum(given_values) / len(given_values), rel_tol=1e-9, abs_tol=1e-9)


def test_statistics_of_other_types() -> None:
    for values in (["a", "b", "a", None], [b"a", None], [True, False], [START, None], [[1], None], [None], [2**63]):
        found = column_statistics(pa.chunked_array([pa.array(values, pa.uint64() if values == [2**63] else None)]))
        assert found["rows"] == len(values)
    strings = column_statistics(pa.chunked_array([pa.array(["a", "b", "a", None])]))
    assert strings["top"] == [["a", 2], ["b", 1]]


def test_an_unfinished_version_is_no_version(weather_store: FeatureStore, weather_project: Path) -> None:
    (weather_project / ".headrace/datasets/risks/.left").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), weather_project / ".headrace/datasets/risks/.left/data.parquet")
    assert weather_store.datasets.names() == []
    assert weather_store.create_dataset("risks", "risk", rows()).version == 1
