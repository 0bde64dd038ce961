from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from headrace import HeadraceError, InputError, _native
from headrace.errors import FAMILIES, make_error, nearest_hint


def test_every_slug_of_the_engine_has_a_family(repository_root: Path) -> None:
    source = (repository_root / "core/types/src/error.rs").read_text()
    slugs = set(re.findall(r'^    \w+ => "(\w+)",$', source, re.MULTILINE))
    assert slugs == {slug for family in FAMILIES.values() for slug in family}


def test_the_engine_raises_the_family_of_its_slug() -> None:
    with pytest.raises(InputError) as raised:
        _native.canonical_json("{")
    assert raised.value.code == "invalid_json"
    assert isinstance(raised.value, ValueError)
    assert raised.value.hint in str(raised.value)


def test_a_slug_of_a_newer_engine_is_still_an_error_of_headrace() -> None:
    assert type(make_error("unheard_of", "message")) is HeadraceError


def test_errors_survive_pickling_between_processes() -> None:
    error = make_error("store_full", "full", "grow")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, str(again)) == (type(error), "store_full", "full (grow)")


def test_the_nearest_name_is_offered() -> None:
    assert "did you mean 'temp'" in nearest_hint("tmp", ["temp", "wind"], "columns")
    assert nearest_hint("zzz", [], "columns") == "there are no columns"
