from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace import DefinitionError, HeadraceError, Project

ENTITY = 'from headrace import *\nairport = Entity("airport", join_keys=[Field("origin", String)])\n'
VIEW = (
    "from headrace import *\nfrom .entities import airport\n"
    'weather = FeatureView("weather", [airport], [Field("temp", Float64)], FileSource("w.csv"))\n'
)


def test_files_of_a_project_import_each_other(make_project: Callable[..., Path]) -> None:
    root = make_project(VIEW)
    (root / "features/entities.py").write_text(ENTITY)
    plan = json.loads(Project.open(root).compile().json)
    assert plan["project"] == "project"
    assert list(plan["views"]) == ["weather"]


def test_two_projects_do_not_mix(make_project: Callable[..., Path]) -> None:
    one, two = make_project(ENTITY, name="one"), make_project(ENTITY.replace("airport", "port"), name="two")
    assert "airport" in json.loads(Project.open(one).compile().json)["entities"]
    assert "port" in json.loads(Project.open(two).compile().json)["entities"]


def test_a_changed_file_is_read_again(make_project: Callable[..., Path]) -> None:
    root = make_project(ENTITY)
    project = Project.open(root)
    project.compile()
    (root / "features/all.py").write_text(ENTITY.replace('"origin"', '"code"'))
    assert json.loads(project.compile().json)["entities"]["airport"]["join_keys"][0]["name"] == "code"


def test_a_wrong_type_is_said_before_an_input_without_use(make_project: Callable[..., Path]) -> None:
    view = """
from headrace import *
inputs = [Field("name", String), Field("unused", Int64)]
v = OnDemandFeatureView("v", inputs, [Field("x", Float64, col("name").sin())])
"""
    with pytest.raises(DefinitionError, match="sin"):
        Project.open(make_project(view)).compile()
    with pytest.raises(DefinitionError, match="no expression uses its input 'unused'"):
        Project.open(make_project(view.replace("String", "Float64"))).compile()


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("x = col('a').radian()", "'Expr' object has no attribute 'radian'", "did you mean 'radians'?"),
        ("x = FeatureView('v', [], [], None, tll=3)", "'tll'", "did you mean 'ttl'?"),
        ("x = Entity('e', joinkeys=[])", "'joinkeys'", "did you mean 'join_keys'?"),
        ("x = FeatureView('v', zzz=3)", "'zzz'", "correct that line"),
    ],
)
def test_the_nearest_word_is_named(make_project: Callable[..., Path], line: str, said: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Project.open(make_project(f"from headrace import *\n{line}\n")).compile()
    assert said in caught.value.message
    assert caught.value.hint == hint


def test_a_syntax_error_names_its_place_once(make_project: Callable[..., Path]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Project.open(make_project("x = (\n")).compile()
    assert caught.value.message.count("all.py") == 1
    assert "all.py:1: SyntaxError: '(' was never closed" in caught.value.message


@pytest.mark.parametrize(
    ("definitions", "line", "message"),
    [
        ("from headrace import *\nx = Entity('e', join_keys=[])\n", 2, "entity 'e' has no join keys"),
        ("import headrace\n\nraise RuntimeError('no')\n", 3, "RuntimeError: no"),
        ("x = (\n", 1, "SyntaxError"),
        ("import missing_library\n", 1, "missing_library"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    make_project: Callable[..., Path], definitions: str, line: int, message: str
) -> None:
    root = make_project(definitions)
    with pytest.raises(HeadraceError) as raised:
        Project.open(root).compile()
    assert f"all.py:{line}:" in raised.value.message
    assert message in raised.value.message


def test_a_project_without_definitions(make_project: Callable[..., Path]) -> None:
    root = make_project("")
    (root / "features/all.py").unlink()
    with pytest.raises(HeadraceError, match="there are no definitions in"):
        Project.open(root).compile()


COMPUTED = """from headrace import *
temp = Field("temp", String)
chill = OnDemandFeatureView(
    "chill",
    inputs=[temp],
    schema=[
        Field("length", Int64, col("temp").str.length()),
        Field("felt", Float64, 1 + col("temp").str.lower().sqrt()),
    ],
)
"""


def test_an_error_in_an_expression_names_its_file_and_line_and_points_at_the_part(
    make_project: Callable[..., Path],
) -> None:
    with pytest.raises(DefinitionError) as caught:
        Project.open(make_project(COMPUTED)).compile()
    first, shown, mark = caught.value.message.splitlines()
    assert "features/all.py:8: view 'chill': field 'felt': add(args[1]): sqrt(args[0]): expected a number" in first
    assert shown[mark.index("^") : mark.rindex("^") + 1] == 'sqrt(lower(col("temp")))'
