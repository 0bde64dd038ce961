"""The Common API and feature lookup over HTTP give what the embedded engine and the feature store give."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

NOW_US = 1_357_009_200_000_000  # of the server's clock


def post(served: Any, path: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://{served.address}{path}", data), timeout=30
        ) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_prediction_is_the_embedded_one_to_the_last_bit(served: Any, rows: dict[str, Any]) -> None:
    outputs = ["label", "scores", "margin"]
    status, answer = post(served, "/v1/deployments/late/predict", {"id": "7", "outputs": outputs, **rows})
    assert status == 200
    expected = served.engine.predict("late", **rows, outputs=outputs, id="7")
    assert answer.pop("timing_us").keys() == expected.pop("timing_us").keys()
    assert answer == expected


def test_times_are_text_in_any_zone(served: Any, rows: dict[str, Any]) -> None:
    text = ["2013-01-01T03:00:00Z", "2013-01-01 10:00:00", "2013-01-02T04:00:00+02:00"]
    body = {**rows, "request": {**rows["request"], "planned": text}}
    by_text = post(served, "/v1/deployments/late/predict", body)[1]["predictions"]
    assert by_text == post(served, "/v1/deployments/late/predict", rows)[1]["predictions"]


def test_a_bad_row_fails_alone(served: Any, rows: dict[str, Any]) -> None:
    at = "2013-01-01T03:00:00Z"
    spoiled = {**rows, "request": {"planned": [at, "soon", at], "seats": [1, 2, 2**40]}}
    status, answer = post(served, "/v1/deployments/late/predict", spoiled)
    assert status == 200
    statuses = [row.get("status", {}).get("error", "") for row in answer["predictions"]]
    assert statuses[0] == ""
    assert "'soon' is not a timestamp" in statuses[1]
    assert "1099511627776 is not an int32" in statuses[2]
    assert answer["predictions"][0]["label"] in {"on_time", "späť"}
    assert answer["predictions"][1]["label"] is None


def test_a_number_is_no_time(served: Any, rows: dict[str, Any]) -> None:
    """Nobody can tell seconds from microseconds; binary tensors say it by their protocol."""
    epoch = {**rows, "request": {**rows["request"], "planned": [1_357_009_200, 1_357_009_200_000_000, 0.5]}}
    status, answer = post(served, "/v1/deployments/late/predict", epoch)
    assert status == 200
    assert all("does not say its unit" in row["status"]["error"] for row in answer["predictions"])
    body = {"feature_service": "risk", "entities": {"origin": ["JFK"]}, "request": {"planned": [0], "seats": [1]}}
    answer = post(served, "/get-online-features", body)[1]
    assert answer["results"][-1]["statuses"] == ["INVALID"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/deployments/late/predict", b"{", 400, "invalid_json"),
        ("/v1/deployments/late/predict", {"entities": {"airport": ["JFK"]}}, 400, "unknown_entity"),
        ("/v1/deployments/late/predict", {"entities": {"origin": ["JFK"]}}, 400, "missing_column"),
        ("/v1/deployments/early/predict", {}, 404, "unknown_model"),
        ("/v1/deployments/late/versions/3/predict", {}, 404, "unknown_model_version"),
        ("/get-online-features", {"feature_service": "none"}, 404, "unknown_feature_service"),
        ("/get-online-features", {"feature_service": "risk", "entity": {"origin": ["JFK"]}}, 400, "invalid_argument"),
        ("/v9", {}, 404, "not_found"),
    ],
)
def test_refusals_have_a_status_and_a_code(served: Any, path: str, body: Any, status: int, code: str) -> None:
    found, answer = post(served, path, body)
    assert (found, answer["code"]) == (status, code)
    assert answer["error"]


def test_features_are_those_of_the_store(served: Any) -> None:
    entities = {"origin": ["JFK", "XXX", None]}
    request = {"planned": ["1970-01-01", "1970-01-01T01:00:00Z", "1970-01-01"], "seats": [9, None, 3]}
    body = {"feature_service": "risk", "entities": {**entities, **request}}
    for place in ("request", "request_context"):
        beside = {"feature_service": "risk", "entities": entities, place: request}
        assert post(served, "/get-online-features", beside) == post(served, "/get-online-features", body)
    status, answer = post(served, "/get-online-features", body)
    assert status == 200
    assert answer["metadata"]["feature_names"] == ["origin", "temp", "wind", "hour", "crowd"]
    found = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert found.pop("origin")["values"] == entities["origin"]
    # The clock of the server stands still, so its time is asked for.
    expected = served.engine.store.online_plan("risk").read(entities, request, now_us=NOW_US)
    assert {name: result["values"] for name, result in found.items()} == expected["features"]
    assert {name: result["statuses"] for name, result in found.items()} == expected["statuses"]
    assert found["temp"]["statuses"] == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert found["crowd"]["statuses"] == ["PRESENT", "NULL_VALUE", "PRESENT"]
