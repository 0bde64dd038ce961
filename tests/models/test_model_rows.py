"""Rows with texts, as a `Model` by itself takes them: what is no number is never made one."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace import HeadraceError, Model
from headrace.export import export_sklearn

ROWS = pandas.DataFrame({"place": ["JFK", "EWR"] * 10, "size": np.arange(20.0)})


@pytest.fixture
def pipeline() -> Pipeline:
    encoder = make_column_transformer((OneHotEncoder(), ["place"]), remainder="passthrough")
    return make_pipeline(encoder, LinearRegression()).fit(ROWS, np.arange(20.0) % 7)


@pytest.fixture
def model(pipeline: Pipeline, tmp_path: Path) -> Model:
    exported = export_sklearn(pipeline, tmp_path / "model.safetensors", golden=ROWS[:8])
    return Model.from_bytes(exported.format, exported.file.read_bytes())


SIZES: list[Any] = [
    [2, 3.5],
    (2, 3.5),
    [np.float32(2), np.int8(3)],
    [True, np.False_],
    np.array([2, 3]),
    np.array([2.0, 3.5], dtype="float32"),
    pandas.Series([2.0, 3.5]),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_numbers_of_every_kind(model: Model, pipeline: Pipeline, sizes: Any) -> None:
    expected = pipeline.predict(pandas.DataFrame({"place": ["JFK", "EWR"], "size": [float(size) for size in sizes]}))
    found = model.margins({"place": ["JFK", "EWR"], "size": sizes})
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)


MISSING: list[Any] = [[None, 1.0], [float("nan"), 1.0], [pandas.NA, 1.0], np.ma.array([3.0, 1.0], mask=[True, False])]


@pytest.mark.parametrize("sizes", MISSING)
def test_what_is_missing_is_not_a_number(model: Model, sizes: Any) -> None:
    found = model.margins({"place": ["JFK", "EWR"], "size": sizes})
    assert np.isnan(found[:, 0]).tolist() == [True, False]


WRONG: list[tuple[Any, Any, str]] = [
    (["JFK"], ["1.5"], "row 0 of 'size' is '1.5'"),
    (["JFK"], np.array(["1.5"]), "row 0 of 'size' is '1.5'"),
    (["JFK"], np.array(["2020-01-01"], "datetime64[ns]"), "'size' holds times"),
    (["JFK"], [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], "row 0 of 'size' is datetime"),
    (["JFK"], pandas.Series([1], dtype="category"), "'size' holds categories that are numbers"),
    ("JFK", [1.0], "'place' is a str"),
    (["\ud800"], [1.0], "row 0 of 'place' is no Unicode text"),
]


@pytest.mark.parametrize(("places", "sizes", "told"), WRONG)
def test_what_is_no_number_or_no_text_is_named(model: Model, places: Any, sizes: Any, told: str) -> None:
    with pytest.raises(HeadraceError, match=told):
        model.margins({"place": places, "size": sizes})


def test_rows_are_named_by_the_signature(pipeline: Pipeline, tmp_path: Path) -> None:
    exported = export_sklearn(pipeline, tmp_path / "model.safetensors", golden=ROWS[:8])
    draft = {
        "task": exported.task,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": [{"name": "place", "dtype": "string"}, {"name": "size", "dtype": "float64"}]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "1970-01-01T00:00:00Z",
    }
    named = Model.create(tmp_path / "models", "named", json.dumps(draft), exported.file.read_bytes())
    with pytest.raises(HeadraceError, match="row 1 of 'place'"):
        named.margins([["JFK", 1.0], ["XXX", 2.0]])
