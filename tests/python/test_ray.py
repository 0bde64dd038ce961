"""A join on two Ray nodes gives the bytes of a join on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from shop import DEFINITIONS, KEYS, NOW_US, entity_rows, push_rows, write_sources

from headrace import FeatureStore, HeadraceError, ray_backfill, ray_join
from headrace.ray_process import RAY_VARIABLES, drive

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'headrace[ray]'")

# Two nodes of one machine: each has its own scheduler, workers and store of objects.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes, which ends with the tests."""
    environment = {**os.environ, **RAY_VARIABLES}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        lines = (line.split() for line in process.stdout)
        yield next(words[1] for words in lines if words[:1] == ["address"])
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many machines each work on the cluster has taken."""
    seen: list[int] = []

    def watched(kind: str, folder: Path) -> dict[str, Any]:
        told = drive(kind, folder)
        seen.append(told["nodes"])
        return told

    monkeypatch.setattr(ray_join, "drive", watched)
    monkeypatch.setattr(ray_backfill, "drive", watched)
    return seen


@needs_ray
@pytest.mark.slow
def test_every_kind_of_view_on_two_nodes(
    cluster: str,
    make_project: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[int],
) -> None:
    """Files, a Delta table, pushed rows, and aggregates of both: the bytes of a join, the answers after a load."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    users, cities = [*range(-1, KEYS + 3)], ["Oslo", "Rome", "", "Łódź"] * (KEYS // 4 + 1)
    asked = {"user_id": users, "city": cities[: len(users)], "number": [number % 3 for number in range(len(users))]}
    online, loaded = [], []
    for name, on in (("here", None), ("ray", "ray")):
        root = make_project(DEFINITIONS, name=name)
        write_sources(root, 7)
        with FeatureStore(root, clock=lambda: NOW_US) as store:
            store.apply()
            push_rows(store, 7)
            rows = entity_rows(5_000, 7)
            store.write_historical_features("all", rows, tmp_path / f"{name}.parquet", statuses=True, on=on)
            store.materialize(views=["stock", "spent"], on=on)
            loaded.append(store.open_online().intervals("spent"))
            online.append(repr(store.get_online_features("all", asked)))
            if on is not None:
                (root / "shops.csv").write_text("city,number,width\nOslo,1,2\n")
                with pytest.raises(HeadraceError, match=r"shops\.csv") as caught:
                    store.materialize(views=["shops"], on=on)
                assert caught.value.code == "missing_column", "the error of a task is the error here"
                assert not list(store.config.spill.iterdir())
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert online[0] == online[1]
    assert loaded[0] == loaded[1]
    assert nodes == [2, 2, 2], "both nodes have joined, and have reduced, partitions"


def test_without_ray_it_says_how_to_get_it(weather_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = pa.table({"origin": ["JFK"], "event_timestamp": [0], "planned": [0]})
    asked = asked.set_column(1, "event_timestamp", asked["event_timestamp"].cast(pa.timestamp("us", "UTC")))
    asked = asked.set_column(2, "planned", asked["planned"].cast(pa.timestamp("us", "UTC")))
    with pytest.raises(HeadraceError, match="Ray is not installed") as caught:
        weather_store.get_historical_features("risk", asked, on="ray")
    assert "headrace[ray]" in caught.value.hint


def test_elsewhere_is_nowhere(weather_store: FeatureStore) -> None:
    with pytest.raises(HeadraceError, match="on is 'spark'"):
        weather_store.get_historical_features("risk", {}, on="spark")
