"""The main job on a small project, through the command: define, train, register, materialize, serve, prove."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore
from headrace_control.demo import load, prove
from headrace_control.demo.child import Server
from headrace_control.progress import silent
from headrace_control.projects import open_applied
from headrace_control.training import dataset
from headrace_control.training.config import load_training
from headrace_control.training.register import versions

Command = Callable[..., Any]
MODELS = ("departure_risk_lightgbm", "departure_risk_xgboost")
CUT = datetime(2013, 11, 1, 12, tzinfo=UTC)
ASKED = {
    "entities": {"origin": ["JFK"], "tailnum": ["N004"], "carrier": ["UA"]},
    "request": {"planned_departure": ["2013-11-01T13:00:00Z"]},
}
PAIRS = ("origin=JFK", "tailnum=N004", "carrier=UA", "planned_departure=2013-11-01T13:00:00Z")


@pytest.mark.parametrize("name", MODELS)
def test_a_version_says_what_it_is_and_where_it_comes_from(trained: Path, name: str) -> None:
    (version,) = versions(trained / ".headrace" / "models", name)
    manifest = version.manifest
    assert manifest["task"] == "classification"
    assert manifest["labels"] == ["on_time", "late"]
    assert manifest["signature"]["service"] == "departure_risk"
    assert [field["name"] for field in manifest["signature"]["join_keys"]] == ["origin", "tailnum", "carrier"] or (
        {field["name"] for field in manifest["signature"]["join_keys"]} == {"origin", "tailnum", "carrier"}
    )
    assert [field["name"] for field in manifest["signature"]["request_fields"]] == ["planned_departure"]
    assert 0 < manifest["metrics"]["test"]["auc"] <= 1
    assert manifest["metrics"]["baselines"]["no features"] == 0.5
    lineage = manifest["lineage"]["dataset"]
    kept = trained / ".headrace" / "datasets" / "departures" / str(lineage["version"]) / "data.parquet"
    assert pq.ParquetFile(kept).metadata.num_rows == lineage["rows"] == sum(lineage["parts"].values())
    golden = json.loads((version.folder / "golden.json").read_text("utf-8"))
    width = len(manifest["signature"]["features"])
    assert golden["features"]
    assert all(len(row) == width for row in golden["features"])


def test_the_training_set_has_every_labelled_flight_once_and_in_order(trained: Path) -> None:
    with open_applied(trained) as store:
        built = dataset.build(store, load_training(trained).datasets["departures"])
    flights = pq.read_table(trained / "data" / "flights.parquet")
    labelled = flights.filter(pa.compute.is_valid(flights["arr_delay"]))
    assert built.joined_rows == flights.num_rows
    assert built.table["flight"].to_pylist() == labelled["flight"].to_pylist()
    assert built.labels.tolist() == [float(delay > 15) for delay in labelled["arr_delay"].to_pylist()]
    hours = [at.hour + at.minute / 60 for at in labelled["planned_departure"].to_pylist()]
    sines = built.table["hour_sin"].to_numpy()
    assert np.allclose(sines, [math.sin(hour * 2 * math.pi / 24) for hour in hours], rtol=0, atol=1e-12)


def test_features_hold_nothing_that_was_not_known_an_hour_before_departure(trained: Path) -> None:
    with open_applied(trained) as store:
        built = dataset.build(store, load_training(trained).datasets["departures"])
    events = pq.read_table(trained / "data" / "finished.parquet").to_pylist()
    by_plane: dict[str, list[tuple[datetime, float]]] = {}
    for event in events:
        by_plane.setdefault(event["tailnum"], []).append((event["finished_at"], event["arr_delay"]))
    quarter = np.timedelta64(15, "m").astype("timedelta64[us]").item()
    for row in built.table.select(["tailnum", "read_at", "plane_arr_delay"]).to_pylist():
        known = [delay for at, delay in by_plane.get(row["tailnum"], []) if at + quarter <= row["read_at"]]
        assert row["plane_arr_delay"] == (known[-1] if known else None)


def test_training_again_changes_nothing_until_it_is_forced(headrace: Command, copy_of_trained: Path) -> None:
    again = headrace("train", "--project", copy_of_trained, "--json")
    assert again.status == 0
    assert [(model["version"], model["new"]) for model in again.json["models"]] == [(1, False), (1, False)]
    forced = headrace("train", MODELS[0], "--force", "--project", copy_of_trained, "--json")
    assert [(model["version"], model["new"]) for model in forced.json["models"]] == [(2, True)]
    first, second = versions(copy_of_trained / ".headrace" / "models", MODELS[0])
    assert first.manifest["model"]["digest"] == second.manifest["model"]["digest"], "training is reproducible"


def test_the_same_question_gets_the_same_answer_everywhere(headrace: Command, trained: Path) -> None:
    local = headrace("predict", MODELS[0], *PAIRS, "--clock", CUT.isoformat(), "--project", trained, "--json")
    assert local.status == 0, local.stdout + local.stderr
    answer = local.json
    (prediction,) = answer["predictions"]
    assert answer["task"] == "classification"
    assert prediction["label"] in ("on_time", "late")
    assert sum(prediction["scores"].values()) == pytest.approx(1)
    with Server(trained, CUT) as server, load.connect(*server.address) as connection:
        reply = load.exchange(connection, load.post(f"/v1/deployments/{MODELS[0]}/predict", json.dumps(ASKED).encode()))
        assert reply.status == 200
        assert json.loads(reply.body)["predictions"] == answer["predictions"]
        url = "http://{}:{}".format(*server.address)
        asked = headrace("predict", MODELS[0], *PAIRS, "--url", url, "--project", trained, "--json")
        assert asked.json["predictions"] == answer["predictions"]
        refused = headrace("predict", "no_such_model", "-e", "origin=JFK", "--url", url, "--json")
        assert refused.status == 2
        assert refused.error["code"] in ("unknown_model", "unknown_deployment")
    people = headrace("predict", MODELS[0], *PAIRS, "--clock", CUT.isoformat(), "--project", trained)
    assert f"label   {prediction['label']}" in people.stdout


def test_a_server_answers_the_open_inference_protocol(trained: Path) -> None:
    http = pytest.importorskip("tritonclient.http")
    with Server(trained, CUT) as server:
        client = http.InferenceServerClient(url="{}:{}".format(*server.address))
        try:
            assert client.is_server_ready()
            assert client.is_model_ready(MODELS[1])
            with open_applied(trained) as store:
                rows = dataset.build(store, load_training(trained).datasets["departures"]).features[:5]
            named = versions(trained / ".headrace" / "models", MODELS[1])[0].manifest["signature"]["features"]
            inputs = []
            for number, field in enumerate(named):
                column = np.ascontiguousarray(rows[:, number])
                tensor = http.InferInput(field["name"], list(column.shape), "FP64")
                tensor.set_data_from_numpy(column, binary_data=True)
                inputs.append(tensor)
            result = client.infer(MODELS[1], inputs)
            assert result.get_response()["model_name"] == MODELS[1]
        finally:
            client.close()


def test_a_server_loads_no_frame_library(trained: Path) -> None:
    with Server(trained, CUT) as server:
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8")
    assert "_native" in loaded
    assert [name for name in ("pyarrow", "pandas", "numba") if name in loaded] == []


def test_a_new_process_finds_what_was_materialized(headrace: Command, trained: Path) -> None:
    status = headrace("status", "--project", trained, "--clock", CUT.isoformat(), "--json").json
    assert status["applied"]
    assert not status["changes"]
    assert status["tables"]["origin"]["keys"] == 3
    assert status["views"]["weather"]["intervals"] == [[None, CUT.isoformat()]]
    assert status["views"]["weather"]["age_seconds"] == 0
    assert [model["name"] for model in status["models"]] == list(MODELS)
    assert "departure_risk_xgboost" in headrace("status", "--project", trained).stdout


def test_materializing_twice_changes_nothing(headrace: Command, copy_of_trained: Path) -> None:
    before = headrace("status", "--project", copy_of_trained, "--json").json["tables"]
    again = headrace("materialize", "--project", copy_of_trained, "--end", CUT.isoformat(), "--json")
    assert again.status == 0
    assert headrace("status", "--project", copy_of_trained, "--json").json["tables"] == before
    more = headrace("materialize", "--project", copy_of_trained, "--incremental", "--json").json
    assert more["views"]["weather"]["rows"] > 0


def test_online_reads_equal_the_offline_join_bit_for_bit(trained: Path) -> None:
    config = load_training(trained).datasets["departures"]
    examples = pq.read_table(config.entities).sort_by(config.event_time)
    with open_applied(trained) as store:
        events, values, statuses, offline = prove.prove_features(store, config, examples, silent)
    assert events > examples.num_rows
    assert offline.num_rows == examples.num_rows
    assert (values, statuses) == (0, 0)


def test_the_proof_finds_a_difference_where_there_is_one() -> None:
    offline = pa.chunked_array([pa.array([1.0, None, float("nan"), 0.0, 2.0])])
    assert prove.differing([1.0, None, float("nan"), 0.0, 2.0], offline) == 0
    assert prove.differing([1.0, float("nan"), None, -0.0, math.nextafter(2.0, 3.0)], offline) == 4
    assert prove.differing(["a", None], pa.chunked_array([pa.array(["b", None])])) == 1
    assert prove.differing([2**53 + 1], pa.chunked_array([pa.array([2**53])])) == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_equals_the_training_library_within_the_bounds(trained: Path, name: str) -> None:
    with open_applied(trained) as store:
        rows = dataset.build(store, load_training(trained).datasets["departures"]).features
    (version,) = versions(trained / ".headrace" / "models", name)
    proof = prove.prove_model(version, rows, threads=1)
    assert proof.rows == len(rows)
    assert proof.holds, proof


def test_ulp_distance_counts_representable_numbers() -> None:
    one = np.array([1.0, -0.0, -1.0], dtype=np.float32)
    assert prove.ulp_distance(one, np.array([1.0, 0.0, -1.0]), np.float32) == 0
    assert prove.ulp_distance(one, np.nextafter(one, np.float32(2)), np.float32) == 1
    assert prove.ulp_distance(np.array([1.0]), np.array([np.nextafter(1.0, 0)]), np.float64) == 1


def test_a_store_that_was_not_closed_has_lost_nothing(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "flights"))
    with FeatureStore(folder) as store:
        pushed = {
            "carrier": ["ZZ"],
            "finished_at": [datetime(2013, 11, 1, tzinfo=UTC)],
            **{f"carrier_{name}": [1.5] for name in ("dep_delay", "arr_delay", "air_time", "distance")},
        }
        assert store.push("carrier_delay", pushed).inserted == 1
    with FeatureStore(folder) as store:
        read = store.get_online_features(
            "departure_risk",
            {"origin": ["JFK"], "tailnum": ["N004"], "carrier": ["ZZ"]},
            {"planned_departure": [datetime(2013, 11, 1, 13, tzinfo=UTC)]},
        )
    assert read["features"]["carrier_arr_delay"] == [1.5]
