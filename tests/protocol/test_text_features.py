"""Models of texts behind each door: stored texts, computed ones and given ones, in process, in JSON and as tensors."""

from __future__ import annotations

import datetime as dt
import json
import math
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.protocol.conftest import NOW, NOW_US, Served, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own dependencies
    client_http = pytest.importorskip("tritonclient.http", reason="install it with: pip install 'tritonclient[http]'")

from tritonclient.utils import InferenceServerException

from headrace import FeatureStore, HeadraceError, Model
from headrace.export import export_sklearn
from headrace.export.exported import ExportedModel

DEFINITIONS = """
from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
fields = [Field("city", String), Field("runways", Int32)]
airports = FeatureView("airports", [airport], fields, PushSource(event_ts="at"))
carrier = OnDemandFeatureView(
    "carrier",
    inputs=[Field("code", String)],
    schema=[Field("line", String, col("code").str.upper())],
)
delays = FeatureService("delays", [airports, carrier])
"""

CITIES = ["New York", "Zürich", "東京", ""]
LINES = ["UA", "LX", "NH"]
AIRPORTS = {"JFK": "New York", "ZRH": "Zürich", "HND": "東京", "XXX": None, "YYY": "Unseen"}
FIELDS = [("city", "string"), ("runways", "int32"), ("line", "string")]


def fitted(unknown: str) -> tuple[Any, pandas.DataFrame]:
    random = np.random.default_rng(1)
    rows = pandas.DataFrame(
        {
            "city": pandas.Series(random.choice(CITIES, 200), dtype=object),
            "runways": random.integers(1, 6, 200),
            "line": pandas.Series(random.choice(LINES, 200), dtype=object),
        }
    )
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown=unknown), ["city", "line"]), remainder=StandardScaler()
    )
    answers = rows["city"].map({city: float(place) for place, city in enumerate(CITIES)}) + rows["runways"]
    return make_pipeline(encoder, Ridge()).fit(rows, answers + (rows["line"] == "LX")), rows


def register(
    project: Path, name: str, exported: ExportedModel, service: str | None, fields: list[tuple[str, str]]
) -> None:
    named = [{"name": field, "dtype": dtype} for field, dtype in fields]
    draft = {
        "task": exported.task,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {
            "service": service,
            "features": named,
            "join_keys": [{"name": "origin", "dtype": "string"}] if service else [],
            "request_fields": [{"name": "code", "dtype": "string"}] if service else [],
        },
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    Model.create(project / ".headrace" / "models", name, json.dumps(draft), exported.file.read_bytes())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts") / "project"
    (root / "features").mkdir(parents=True)
    (root / "headrace.toml").write_text('[project]\nname = "texts"\n[payload]\nsample = 1.0\n')
    (root / "features" / "all.py").write_text(DEFINITIONS)
    with FeatureStore(root, clock=lambda: NOW_US) as store:
        store.apply()
        rows = {
            "origin": list(AIRPORTS),
            "at": pa.array([NOW - dt.timedelta(hours=1)] * len(AIRPORTS), pa.timestamp("us", "UTC")),
            "city": list(AIRPORTS.values()),
            "runways": pa.array([4, 3, 4, 1, 2], pa.int32()),
        }
        store.push("airports", rows)
    model, rows_seen = fitted("ignore")
    exported = export_sklearn(model, root / "model.safetensors", rows_seen[:20])
    register(root, "delays", exported, "delays", FIELDS)
    register(root, "given", exported, None, FIELDS)
    strict = export_sklearn(fitted("error")[0], root / "strict.safetensors", rows_seen[:20])
    register(root, "strict", strict, "delays", FIELDS)
    return root


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    with serving(project) as served:
        yield served


ORIGINS = ["JFK", "ZRH", "HND", "YYY"]
CODES = ["ua", "lx", "", "Never Seen"]
ASKED: dict[str, Any] = {"entities": {"origin": ORIGINS}, "request": {"code": CODES}}


def expected(cities: list[str], lines: list[str], runways: list[int]) -> list[float]:
    rows = pandas.DataFrame({"city": cities, "runways": runways, "line": lines}, dtype=object)
    values: list[float] = fitted("ignore")[0].predict(rows.astype({"runways": float})).tolist()
    return values


def looked_up() -> list[float]:
    cities = [str(AIRPORTS[origin]) for origin in ORIGINS]
    return expected(cities, [code.upper() for code in CODES], [4, 3, 4, 2])


def values(answer: dict[str, Any]) -> list[float]:
    return [prediction["value"] for prediction in answer["predictions"]]


def post(served: Served, model: str, body: dict[str, Any]) -> dict[str, Any]:
    address = f"http://{served.address}/v1/deployments/{model}/predict"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as found:
        answer: dict[str, Any] = json.load(found)
    return answer


def test_texts_of_the_store_and_of_expressions(served: Served) -> None:
    assert values(served.engine.predict("delays", **ASKED)) == pytest.approx(looked_up(), rel=1e-12)
    assert values(post(served, "delays", ASKED)) == values(served.engine.predict("delays", **ASKED))


def test_texts_that_the_request_gives(served: Served) -> None:
    ask = ASKED | {"features": {"city": ["", "Zürich", "Zu\u0308rich", "JFK"], "line": ["NH", "LX", "nh", None]}}
    found = values(served.engine.predict("delays", **ask))
    lines = ["NH", "LX", "nh", "no line"]
    assert found == pytest.approx(expected(ask["features"]["city"], lines, [4, 3, 4, 2]), rel=1e-12)
    assert values(post(served, "delays", ask)) == found


def test_an_unknown_category_fails_its_row_alone(served: Served) -> None:
    for answer in (served.engine.predict("strict", **ASKED), post(served, "strict", ASKED)):
        errors = [prediction.get("status", {}).get("error") for prediction in answer["predictions"]]
        assert [error is None for error in errors] == [True, True, False, False]
        assert "row 2 of 'line': '' is no category" in str(errors[2])
        assert "row 3 of 'city': 'Unseen' is no category" in str(errors[3])
        assert [prediction.get("value") for prediction in answer["predictions"]][:2] == pytest.approx(
            looked_up()[:2], rel=1e-9
        )
    with pytest.raises(HeadraceError, match="'city' is"):
        served.engine.predict("given", features={"city": "JFK", "runways": [1], "line": ["UA"]})


def test_contributions_of_texts(served: Served) -> None:
    answer = served.engine.predict("delays", **ASKED, outputs=["margin"], explain=True)
    for prediction in answer["predictions"]:
        told = prediction["explanation"]
        assert set(told["contributions"]) == {"city", "runways", "line"}
        assert told["expected"] + sum(told["contributions"].values()) == pytest.approx(prediction["margin"])


def tensor(name: str, texts: list[Any], binary: bool) -> Any:
    given = client_http.InferInput(name, [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object), binary_data=binary)
    return given


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_of_bytes(served: Served, binary: bool) -> None:
    client = client_http.InferenceServerClient(served.address)
    asked = [tensor("origin", ORIGINS, binary), tensor("code", CODES, binary)]
    found = client.infer("delays", asked).as_numpy("value")
    assert found.tolist() == pytest.approx(looked_up(), rel=1e-12)
    metadata = client.get_model_metadata("given")
    assert metadata["inputs"] == [
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "runways", "datatype": "INT32", "shape": [-1]},
        {"name": "line", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [one["data_type"] for one in client.get_model_config("given")["input"]] == [
        "TYPE_STRING",
        "TYPE_INT32",
        "TYPE_STRING",
    ]
    runways = client_http.InferInput("runways", [3], "INT32")
    runways.set_data_from_numpy(np.array([1, 2, 3], dtype=np.int32), binary_data=binary)
    cities, lines = ["Zürich", "東京", "nowhere"], ["UA", "UA", "LX"]
    found = client.infer("given", [tensor("city", cities, binary), runways, tensor("line", lines, binary)])
    assert found.as_numpy("value").tolist() == pytest.approx(expected(cities, lines, [1, 2, 3]), rel=1e-12)
    with pytest.raises(InferenceServerException, match="features"):
        matrix = client_http.InferInput("features", [1, 3], "FP64")
        matrix.set_data_from_numpy(np.zeros((1, 3)))
        client.infer("given", [matrix])
    client.close()


def test_bytes_that_are_no_text_fail_their_row(served: Served) -> None:
    client = client_http.InferenceServerClient(served.address)
    code = client_http.InferInput("code", [2], "BYTES")
    code.set_data_from_numpy(np.array([b"ua", b"\xff\xfe"], dtype=object))
    found = client.infer("delays", [tensor("origin", ["JFK", "ZRH"], True), code]).as_numpy("value")
    assert found.tolist() == pytest.approx([looked_up()[0], math.nan], nan_ok=True)
    client.close()


def test_a_signature_that_calls_a_text_a_number_is_refused(tmp_path: Path) -> None:
    model, rows = fitted("ignore")
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:10])
    for fields, told in (
        ([("city", "float64"), *FIELDS[1:]], "feature 'city' is a float64, the model takes text there"),
        (
            [FIELDS[0], ("runways", "string"), FIELDS[2]],
            "feature 'runways' is a string, the model takes a number there",
        ),
    ):
        with pytest.raises(HeadraceError, match=told):
            register(tmp_path, "wrong", exported, None, fields)
        assert not list((tmp_path / ".headrace" / "models" / "wrong").glob("[0-9]*"))


def test_texts_are_logged_as_they_were_served_and_described(served: Served, project: Path) -> None:
    served.engine.predict("delays", **ASKED, id="logged")
    served.engine.flush_payload()
    tables = [pq.read_table(path) for path in (project / ".headrace" / "payload").glob("*/*/*.parquet")]
    rows = [row for table in tables for row in table.to_pylist() if row["request_id"] == "logged"]
    assert [row["outputs"]["city"] for row in rows] == [AIRPORTS[origin] for origin in ORIGINS]
    assert [row["outputs"]["line"] for row in rows] == [code.upper() for code in CODES]
    with FeatureStore(project, clock=lambda: NOW_US) as store:
        described = store.describe("airports")
    assert "city" in json.dumps(described, default=str)
