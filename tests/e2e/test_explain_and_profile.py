"""`headrace explain`, `headrace predict --explain` and `headrace profile` on the small project."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Command = Callable[..., Any]
MODEL = "departure_risk_lightgbm"
PAIRS = ("origin=JFK", "tailnum=N001", "carrier=UA", "planned_departure=2013-11-01T13:00:00Z")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, headrace: Command, trained: Path) -> Path:
    """The training rows, as a file."""
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    flights = trained / "data" / "flights.parquet"
    done = headrace("join", "departure_risk", flights, path, "--event-time", "read_at", "--project", trained)
    assert done.status == 0, done.stderr
    return path


def test_a_file_is_explained_row_by_row(headrace: Command, trained: Path, rows: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.parquet", tmp_path / "summary.png"
    done = headrace(
        *("explain", MODEL, "--input", rows, "--output", out, "--plot", plot, "--project", trained, "--json")
    )
    assert done.status == 0, done.stdout
    manifest = json.loads((trained / ".headrace" / "models" / MODEL / "1" / "model.json").read_text())
    features = [field["name"] for field in manifest["signature"]["features"]]
    found = pq.read_table(out)
    assert found.column_names == [*features, "__expected", "__margin"]
    assert found.num_rows == done.json["rows"] == pq.read_metadata(rows).num_rows
    total = np.sum([found[name].to_numpy() for name in [*features, "__expected"]], axis=0)
    np.testing.assert_allclose(total, found["__margin"].to_numpy(), rtol=1e-12)
    magnitudes = done.json["mean_magnitude"]
    assert set(magnitudes) == set(features)
    assert list(magnitudes.values()) == sorted(magnitudes.values(), reverse=True)
    assert list(done.json["expected"].values()) == [found["__expected"][0].as_py()]
    assert plot.read_bytes().startswith(PNG)
    assert not list(tmp_path.glob(".*"))


def test_explain_says_what_is_wrong_before_any_work(
    headrace: Command, copy_of_trained: Path, rows: Path, tmp_path: Path
) -> None:
    ask = ("explain", MODEL, "--project", copy_of_trained, "--json")
    assert headrace(*ask, "--input", rows).error["code"] == "usage"
    short = tmp_path / "short.parquet"
    pq.write_table(pa.table({"a": [1.0]}), short)
    out = tmp_path / "out.parquet"
    done = headrace(*ask, "--input", short, "--output", out)
    assert (done.status, done.error["code"]) == (1, "missing_column")
    done = headrace(*ask, "--input", rows, "--output", tmp_path / "out.csv")
    assert (done.status, done.error["code"]) == (2, "invalid_argument")
    done = headrace("explain", "nobody", "--project", copy_of_trained, "--input", rows, "--output", out, "--json")
    assert (done.status, done.error["code"]) == (2, "unknown_model")
    text = copy_of_trained / ".headrace" / "models" / MODEL / "1" / "model.txt"
    silent = tmp_path / "silent.txt"
    silent.write_text(text.read_text().replace("\ninternal_count=", "\nwas_count="))
    done = headrace("explain", silent, "--input", short, "--output", out, "--json")
    assert (done.status, done.error["code"]) == (1, "unsupported_model")
    assert "no covers" in done.error["message"]
    assert not out.exists()


def test_a_prediction_is_explained_on_the_command_line(headrace: Command, trained: Path) -> None:
    ask = ("predict", MODEL, *PAIRS, "--clock", "2013-11-01T12:00:00Z", "--project", trained)
    whole = headrace(*ask, "--explain", "--output", "margin", "--json").json["predictions"][0]
    explanation = whole["explanation"]
    total = explanation["expected"] + sum(explanation["contributions"].values())
    assert total == pytest.approx(whole["margin"], rel=1e-12)
    top = headrace(*ask, "--top", "3", "--json").json["predictions"][0]["explanation"]
    largest = sorted(explanation["contributions"].items(), key=lambda one: -abs(one[1]))[:3]
    assert list(top["contributions"].items()) == largest
    assert top["expected"] + sum(top["contributions"].values()) + top["others"] == pytest.approx(total, rel=1e-12)
    told = headrace(*ask, "--explain").stdout
    assert "why     the expected margin" in told
    assert "None" not in told


def test_profile_tells_times_and_recommends(headrace: Command, trained: Path, tmp_path: Path) -> None:
    plot = tmp_path / "profile.png"
    ask = ("profile", MODEL, "--project", trained, "--rows-max", "12", "--threads", "2", "--seconds", "0.01")
    done = headrace(*ask, "--slo", "60s", "--price", "0.5", "--plot", plot, "--json")
    assert done.status == 0, done.stdout
    report = done.json
    assert [(one["rows"], one["threads"]) for one in report["results"]] == [
        (rows, threads) for threads in (1, 2) for rows in (1, 2, 4, 8, 12)
    ]
    for one in report["results"]:
        assert one["device"] == "cpu"
        assert one["meets_slo"]
        assert one["p50_us"] > 0
        assert one["rows_per_s"] == pytest.approx(one["rows"] * 1e6 / one["p50_us"])
        assert one["cost_per_million"] > 0
    assert report["slo_us"] == 60e6
    assert report["memory_bytes"] > 0
    assert report["recommendation"]["point"]["rows"] in (1, 2, 4, 8, 12)
    assert plot.read_bytes().startswith(PNG)
    told = headrace(*ask, "--slo", "60s").stdout
    assert "meets the objective, largest" in told
    assert "cost" not in told


def test_profile_ends_with_one_when_nothing_is_fast_enough(
    headrace: Command, trained: Path, rows: Path, tmp_path: Path
) -> None:
    ask = ("profile", MODEL, "--project", trained, "--rows-max", "2", "--seconds", "0.01", "--input", rows)
    done = headrace(*ask, "--slo", "0.001us", "--json")
    assert done.status == 1
    assert done.json["recommendation"]["point"] is None
    assert "no batch size meets" in done.json["recommendation"]["text"][0]
    assert headrace("profile", MODEL, "--project", trained, "--slo", "5").status == 2
    file = shutil.copy(trained / ".headrace" / "models" / MODEL / "1" / "model.txt", tmp_path)
    done = headrace("profile", file, "--slo", "5ms", "--json")
    assert (done.status, done.error["code"]) == (4, "missing_data")
