"""A join on two Ray nodes gives the bytes of a join on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore, HeadraceError, partitions
from headrace.ray_join import RAY_VARIABLES

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


@needs_ray
@pytest.mark.slow
def test_two_nodes_give_the_same_bytes(
    cluster: str, weather_store: FeatureStore, weather_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    weather = pq.read_table(weather_project / "weather.parquet")
    pq.write_table(weather, weather_project / "weather.parquet", row_group_size=2)  # several tasks read it
    nodes: list[int] = []
    joined = partitions.JoinedPartitions.tables

    def watched(self: partitions.JoinedPartitions) -> Iterator[pa.Table]:
        nodes.append(self.nodes)
        return joined(self)

    monkeypatch.setattr(partitions.JoinedPartitions, "tables", watched)
    times = weather["time_hour"].drop_null()
    asked = pa.table(
        {
            "origin": [("JFK", "EWR", None, "LGA")[row % 4] for row in range(300)],
            "event_timestamp": times.take([row % len(times) for row in range(300)]),
            "planned": times.take([row % len(times) for row in range(300)]),
        }
    )
    here = weather_store.write_historical_features("risk", asked, tmp_path / "here.parquet", statuses=True)
    there = weather_store.write_historical_features("risk", asked, tmp_path / "ray.parquet", statuses=True, on="ray")
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert here == there
    assert nodes == [2], "both nodes have joined partitions"
    (weather_project / "runways.csv").write_text("origin,tracks\nJFK,4\n")
    with pytest.raises(HeadraceError, match=r"runways\.csv") as caught:
        weather_store.get_historical_features("risk", asked, on="ray")
    assert caught.value.code == "missing_column", "the error of a task is the error here"
    assert not list(weather_store.config.spill.iterdir())


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
