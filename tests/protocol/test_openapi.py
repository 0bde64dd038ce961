"""The server describes itself by OpenAPI 3.1, and answers as it says."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import hypothesis
import pytest
import schemathesis
import schemathesis.core.result as schemathesis_result
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def document(served: Any) -> dict[str, Any]:
    with urlopen(f"http://{served.address}/v1/openapi.json", timeout=30) as reply:
        assert reply.headers["content-type"] == "application/json"
        told: dict[str, Any] = json.load(reply)
    return told


def test_the_document_is_sound_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"


def test_each_deployment_tells_its_columns(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/deployments/late/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body["entities"]["properties"]) == {"origin"}
    planned, seats = (body["request"]["properties"][name]["items"] for name in ("planned", "seats"))
    assert planned == {"type": ["string", "null"], "format": "date-time"}
    assert (seats["minimum"], seats["maximum"]) == (-(2**31), 2**31 - 1)
    assert set(body["features"]["properties"]) == {"temp", "wind", "hour", "crowd"}
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    scores = answer["predictions"]["items"]["properties"]["scores"]
    assert set(scores["properties"]) == {"on_time", "späť"}
    assert {"/v1/deployments/late/versions/1/predict", "/v2/models/{name}/infer"} <= set(document["paths"])
    assert "/v1/deployments/simple/predict" not in document["paths"]  # a model of tensors


def test_the_page_can_be_read_without_anything_from_elsewhere(served: Any) -> None:
    with urlopen(f"http://{served.address}/v1/docs", timeout=30) as reply:
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        page = reply.read().decode()
    assert "<td>origin<td>entities<td>string" in page
    assert not [foreign for foreign in ("<script", "src=", "//") if foreign in page]


def test_answers_are_those_that_are_described(document: dict[str, Any], served: Any) -> None:
    statuses = asked_as_described(document, served.address)
    assert len(statuses) > 100
    assert {200, 400, 404} <= set(statuses)


def asked_as_described(document: dict[str, Any], address: str) -> list[int]:
    """Whatever the document allows is asked; nothing is a defect of the server, and all answers have their schemas."""
    schema = schemathesis.openapi.from_dict(document)
    statuses: list[int] = []
    for found in schema.get_all_operations():
        assert isinstance(found, schemathesis_result.Ok), found
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=15,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def ask(case: Any) -> None:
            response = case.call(base_url=f"http://{address}", timeout=60)
            statuses.append(response.status_code)
            # A deadline of some milliseconds may pass on a busy machine, and that is described.
            assert response.status_code < 500 or response.status_code == 504, response.text
            case.validate_response(response, checks=CHECKS)

        ask()
    return statuses
