"""Functions in Python: compiled scalar functions, and Python functions with a hop."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import headrace
from headrace import (
    DefinitionError,
    FeatureStore,
    Float64,
    HeadraceError,
    ProcessError,
    _native,
    col,
    compiled_functions,
    python_function,
    scalar_function,
)
from headrace.compiled_functions import CompiledSource, compile_function

DEFINITIONS = """
import math

from headrace import *

RATE = 0.25


@scalar_function
def taxed(amount: float, count: int) -> float:
    if count > 3:
        return amount * RATE / (count - 4)
    return math.sqrt(amount)


@scalar_function
def or_none(amount: float | None, is_new: bool) -> int | None:
    if amount is None:
        return -1 if is_new else 0
    if amount > 100:
        return None
    return int(amount)


def shout(text):
    return text.upper() + "!"


@python_function(returns=String)
def shouted(texts, counts):
    return [None if text is None else shout(text) * count for text, count in zip(texts, counts)]


inputs = [Field("amount", Float64), Field("count", Int64), Field("text", String)]
computed = OnDemandFeatureView(
    "computed",
    inputs=inputs,
    schema=[
        Field("tax", Float64, taxed(col("amount"), col("count")) + 1),
        Field("whole", Int64, or_none(col("amount"), col("count") > 1)),
        Field("shouted", String, shouted(col("text"), col("count")).str.lower()),
    ],
)
service = FeatureService("all", [computed])
"""

ROWS: dict[str, list[Any]] = {
    "amount": [4.0, -1.0, None, 500.0, math.nan, 8.0],
    "count": [1, 1, 2, 4, 5, 6],
    "text": ["a", None, "b", "c", "d", ""],
}
EXPECTED: dict[str, list[Any]] = {
    "tax": [3.0, None, None, None, math.nan, 2.0],
    "whole": [4, -1, -1, None, None, 8],
    "shouted": ["a!", None, "b!b!", "c!c!c!c!", "d!" * 5, "!" * 6],
}


HOP = "".join(line for line in DEFINITIONS.splitlines(True) if "taxed(col" not in line and "or_none(col" not in line)
HOP = HOP.replace('Field("amount", Float64), ', "")
"""Without the compiled functions, whose compilation takes a second."""


def opened(root: Path) -> FeatureStore:
    store = FeatureStore(root)
    store.apply()
    return store


def online(store: FeatureStore, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    features: dict[str, list[Any]] = store.get_online_features("all", {}, rows)["features"]
    return features


def same(found: list[Any], expected: list[Any]) -> bool:
    return [repr(value) for value in found] == [repr(value) for value in expected]


@pytest.fixture
def store(make_project: Callable[..., Path]) -> FeatureStore:
    return opened(make_project(DEFINITIONS))


def test_functions_give_the_same_alone_in_a_batch_and_in_training(store: FeatureStore) -> None:
    batch = online(store, ROWS)
    for name, values in EXPECTED.items():
        assert same(batch[name], values), (name, batch[name])
        for row in range(6):
            alone = online(store, {column: [values[row]] for column, values in ROWS.items()})
            assert same(alone[name], [values[row]])
    rows = pa.table({**ROWS, "at": pa.array([0] * 6, pa.timestamp("us", "UTC"))})
    training = store.get_historical_features("all", rows, event_ts_column="at")
    for name, values in EXPECTED.items():
        assert same(training[name].to_pylist(), values)


def test_a_plan_says_which_features_cost_a_python_hop(make_project: Callable[..., Path]) -> None:
    diff = opened(make_project(HOP)).plan()
    assert diff.python_hops == ("computed.shouted calls all:shouted",)
    assert str(diff) == "no changes\npython hop: computed.shouted calls all:shouted"
    assert diff.to_json()["python_hops"] == list(diff.python_hops)


@pytest.mark.parametrize(
    ("old", "new", "feature"),
    [
        ("math.sqrt(amount)", "math.sqrt(amount) + 1", "tax"),
        ("RATE = 0.25", "RATE = 0.5", "tax"),
        ('"!"', '"?"', "shouted"),
        ("* count for", "* (count + 1) for", "shouted"),
    ],
)
def test_changed_code_is_a_change_of_the_plan(
    make_project: Callable[..., Path], store: FeatureStore, old: str, new: str, feature: str
) -> None:
    make_project(DEFINITIONS.replace(old, new))
    (change,) = store.plan().changed
    assert change.name == "computed"
    (detail,) = change.details
    assert feature in detail
    assert "the code of a function changed" in detail


def test_moved_code_is_no_change(make_project: Callable[..., Path], store: FeatureStore) -> None:
    make_project(DEFINITIONS.replace("RATE = 0.25\n", "RATE = 0.25\n\nOTHER = 1\n# a comment\n"))
    assert not store.plan()


def test_another_process_loads_the_functions(store: FeatureStore) -> None:
    program = """
    import json, sys
    from headrace import FeatureStore
    with FeatureStore(sys.argv[1]) as store:
        print(json.dumps(store.get_online_features("all", {}, json.loads(sys.argv[2]))["features"]))
    """
    asked = {column: values[:4] for column, values in ROWS.items()}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(store.config.root), json.dumps(asked)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {name: values[:4] for name, values in EXPECTED.items()}


def test_a_python_function_that_changed_after_apply_is_refused(make_project: Callable[..., Path]) -> None:
    opened(make_project(HOP)).close()
    root = make_project(HOP.replace('"!"', '"?"'))
    program = "import sys; from headrace import FeatureStore; FeatureStore(sys.argv[1]).online_plan('all')"
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "have no Python function 'all:shouted' as it was applied" in done.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('no such word')", "raised KeyError: 'no such word'"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("return texts[:-1]", "gave 5 values for 6 rows"),
        ("return counts", "gave a wrong value"),
        ("return 'abcdef'", "gave no column"),
        ("return 1 / 0", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_python_function_is_an_error_of_the_request(
    make_project: Callable[..., Path], body: str, said: str
) -> None:
    text = HOP.replace(
        "return [None if text is None else shout(text) * count for text, count in zip(texts, counts)]", body
    )
    asked = {name: ROWS[name] for name in ("count", "text")}
    with opened(make_project(text)) as store:
        with pytest.raises(DefinitionError, match=said) as raised:
            online(store, asked)
        assert raised.value.code == "function_failed"
        rows = pa.table({**asked, "at": pa.array([0] * 6, pa.timestamp("us", "UTC"))})
        with pytest.raises(DefinitionError, match=said):
            store.get_historical_features("all", rows, event_ts_column="at")


def test_a_python_function_may_return_an_array_and_gets_every_type(make_project: Callable[..., Path]) -> None:
    definitions = """
    import numpy as np
    from headrace import *

    @python_function(returns=Float64)
    def told(a, b, c, d, e, f):
        found = [type(v[0]).__name__ for v in (a, b, c, d, e, f)]
        assert found == ["int", "float", "bool", "str", "datetime", "list"], found
        return np.array([len(x) for x in f]) / 4

    view = OnDemandFeatureView(
        "v",
        inputs=[Field("a", Int8), Field("b", Float32), Field("c", Bool), Field("d", String), Field("e", Timestamp)],
        schema=[Field("x", Float32, told(col("a"), col("b"), col("c"), col("d"), col("e"), col("d").str.split(",")))],
    )
    service = FeatureService("all", [view])
    """
    with opened(make_project(textwrap.dedent(definitions))) as store:
        at = ["2013-01-01T00:00:00Z"] * 2
        asked: dict[str, list[Any]] = {"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "d": ["a,b", "a"], "e": at}
        assert online(store, asked) == {"x": [0.5, 0.25]}


def test_a_decorated_function_is_still_a_function() -> None:
    assert (half(3.0), doubled([1.0])) == (1.5, [2.0])
    assert repr(half(col("x"))) == 'half(col("x"))'
    assert repr(half) == f"<compiled function {__name__}:half>"
    with pytest.raises(DefinitionError, match="takes 1 arguments, got 2"):
        half(col("x"), 1)


@scalar_function
def half(x: float) -> float:
    """Half of it."""
    return x / 2


@python_function(returns=Float64)
def doubled(values: list[float]) -> list[float]:
    return [value * 2 for value in values]


def source(text: str) -> CompiledSource:
    """A function as a plan's author may have written it."""
    read = {"name": "m:f", "source": textwrap.dedent(text).strip(), "constants": {}}
    heads = text.strip().splitlines()[0]
    names = [part.split(":") for part in heads[heads.index("(") + 1 : heads.index(")")].split(",") if ":" in part]
    kinds = {"int": "int64", "float": "float64", "bool": "bool"}
    returns = heads.partition("->")[2].strip(" :")
    parameters = [
        {"name": name.strip(), "dtype": kinds.get(kind.strip(), "?"), "takes_null": False} for name, kind in names
    ]
    return CompiledSource.from_json({**read, "parameters": parameters, "returns": kinds.get(returns, "?")})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("while x > 0:\n        x -= 1", "has a while loop, which may never end"),
        ("for i in range(int(x)):\n        pass", "length is not a constant"),
        ("for i in range(300):\n        for j in range(300):\n            pass", "loops 90000 times"),
        (
            "for i in range(40000):\n        pass\n    for i in range(40000):\n        pass",
            "40000 times, after 40000 before",
        ),
        (
            "for i in range(300):\n        for j in range(200): pass\n        for j in range(100): pass",
            "loops 30000 times, after 60000 before it",
        ),
        (
            "if x > 0:\n        for i in range(40000): pass\n    else:\n        for i in range(40000): pass",
            "loops 40000 times, after 40000 before it",
        ),
        ("for i in range(10):\n        for j in range(65536):\n            pass", "loops 655360 times"),
        ("for i in range(65536):\n        x = " + " + ".join("x" * 40), "computes over 4194304 values in a call"),
        ("for i in range(1):\n        x += 1\n    " * 200 + "return x", "has over 128 loops and decisions"),
        ("if x > 0:\n        x += 1\n    " * 200 + "return x", "has over 128 loops and decisions"),
        ("x = 1 if x else 2\n    " * 200 + "return x", "has over 128 loops and decisions"),
        ("return " + " and ".join("x" * 200), "has over 128 loops and decisions"),
        ("return " + " < ".join("x" * 200), "has over 128 loops and decisions"),
        ("for i in range(10**9):\n        pass", "length is not a constant"),
        ("if x > 0:\n        y = 1.0\n    return y", "may use 'y' before it has a value"),
        ("for i in range(3):\n        y = 1.0\n    return y", "may use 'y' before it has a value"),
        ("y += 1", "may use 'y' before it has a value"),
        ("return " + " + ".join("x" * 200), "nested deeper than 100 levels"),
        ("for i in [1, 2]:\n        pass", "length is not a constant"),
        ("return f(x)", "calls itself"),
        ("return __import__('os').system('true')", "calls __import__"),
        ("return open", "uses 'open', which is no number"),
        ("return x.real", "cannot be compiled: x.real"),
        ("return math.factorial(3)", "calls math.factorial"),
        ("import os", "statement that cannot be compiled: import os"),
        ("return [y for y in (1, 2)][0]", "cannot be compiled"),
        ("return (lambda: 1)()", "calls lambda"),
        ("return 1 << 80", "shifts bits"),
        ("return 'a'", "has the constant 'a'"),
        ("return 10**30 if x else 99999999999999999999", "has the constant 99999999999999999999"),
        ("global x", "statement that cannot be compiled"),
        ("with x:\n        pass", "statement that cannot be compiled"),
        ("try:\n        pass\n    except ValueError:\n        pass", "statement that cannot be compiled"),
        ("def g():\n        pass", "statement that cannot be compiled"),
        ("return (y := 1)", "cannot be compiled"),
        ("_known_x = 1", "assigns to '_known_x'"),
        ("math = 1", "assigns to 'math'"),
        ("return x is None", "asks whether 'x' is None"),
        ("raise KeyError", "raises KeyError"),
        ("x[0] = 1.0", "statement that cannot be compiled"),
        ("x, y = 1, 2", "statement that cannot be compiled"),
    ],
)
def test_what_may_not_end_or_is_no_arithmetic_is_refused(body: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said.replace("(", r"\(")) as raised:
        source(f"def f(x: float) -> float:\n    {body}")
    assert raised.value.code == "invalid_definition"


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(256):\n        for j in range(256):\n            x += i * j",
        "for i in range(30000):\n        x += i\n    for i in range(35536):\n        x -= i",
        "for i in range(65536):\n        for j in range(1):\n            x += j",
        "for i in range(64):\n        for j in range(512): x += j\n        for j in range(512): x -= j",
        "for i in range(1):\n        x += 1\n    " * 128,
    ],
)
def test_as_many_steps_as_are_allowed_are_taken(body: str) -> None:
    assert source(f"def f(x: float) -> float:\n    {body.rstrip()}\n    return x").returns == "float64"


def test_the_line_of_the_loop_that_is_too_many_is_named(make_project: Callable[..., Path]) -> None:
    loops = "for i in range(40000):\n        amount += i\n    for i in range(40000):\n        amount -= i"
    root = make_project(DEFINITIONS.replace("return math.sqrt(amount)", loops))
    line = DEFINITIONS.splitlines().index("    return math.sqrt(amount)") + 3
    with pytest.raises(DefinitionError, match=rf"line {line}, loops 40000 times, after 40000 before it"):
        FeatureStore(root).plan()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(x) -> float:\n    return 1.0", "'x' has no annotation"),
        ("def f(x: str) -> float:\n    return 1.0", "is annotated 'str'"),
        ("def f(x: float):\n    return 1.0", "its result has no annotation"),
        ("def f() -> float:\n    return 1.0", "has no parameters"),
        ("def f(x: float = 1.0) -> float:\n    return 1.0", "other parameters than plain ones"),
        ("f = 1", "is not one def"),
        ("@[*range(10**12)]\ndef f(x: float) -> float:\n    return x", "has a decorator"),
        ("def f(x: float) -> float:\n    return " + "(" * 300 + "x" + ")" * 300, "cannot be read"),
        ("def f(x: float) -> float:\n" + "    x = x + 1\n" * 3000, "over 16384 bytes"),
    ],
)
def test_a_plan_of_another_author_is_checked_like_ones_own(text: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        CompiledSource.from_json({"name": "m:f", "source": text, "constants": {}, "parameters": [], "returns": "?"})


def test_the_place_of_what_is_refused_is_named(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS.replace("return math.sqrt(amount)", "while True:\n        pass"))
    line = DEFINITIONS.splitlines().index("    return math.sqrt(amount)") + 1
    with pytest.raises(DefinitionError, match=rf"all\.py:\d+: compiled function 'all:taxed', line {line}, has a while"):
        FeatureStore(root).plan()


def test_a_result_of_another_type_is_refused_at_plan(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS.replace("return int(amount)", "return amount"))
    with pytest.raises(DefinitionError, match="annotated to return int64, and returns float64"):
        FeatureStore(root).plan()


def test_an_argument_of_another_type_is_refused_with_its_position(make_project: Callable[..., Path]) -> None:
    root = make_project(
        DEFINITIONS.replace('taxed(col("amount"), col("count"))', 'taxed(col("amount"), col("amount"))')
    )
    with pytest.raises(DefinitionError, match=r"taxed\(args\[1\]\): expected an int, got float") as raised:
        FeatureStore(root).plan()
    assert "^^^" in raised.value.message


def test_functions_must_be_found_by_other_processes() -> None:
    def inner(x: float) -> float:
        return x

    for decorate in (scalar_function, python_function(returns=Float64)):
        with pytest.raises(DefinitionError, match="not a function at the top of a module"):
            decorate(inner)
        with pytest.raises(DefinitionError, match="not a function at the top of a module"):
            decorate(lambda x: x)


def test_without_numba_the_error_names_the_extra(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_project(DEFINITIONS.replace("RATE = 0.25", "RATE = 0.125"))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "headrace.numba_backend", raising=False)
    monkeypatch.delattr(headrace, "numba_backend", raising=False)
    with pytest.raises(ProcessError, match=r"pip install 'headrace\[numba\]'") as raised:
        FeatureStore(root).plan()
    assert raised.value.code == "unavailable"


def test_a_plan_without_functions_does_not_import_numba(make_project: Callable[..., Path]) -> None:
    text = DEFINITIONS.split("@scalar_function", maxsplit=1)[0]
    view = 'OnDemandFeatureView("v", [Field("a", Int64)], [Field("b", Int64, col("a") + 1)])'
    root = make_project(f'{text}service = FeatureService("all", [{view}])')
    program = """
    import sys
    from headrace import FeatureStore
    with FeatureStore(sys.argv[1]) as store:
        store.apply()
        store.get_online_features("all", {}, {"a": [1]})
    print("numba" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_plan_that_is_not_loaded_says_so(store: FeatureStore) -> None:
    plan = _native.Plan.from_json(store.applied.json)
    assert len(plan.unbound_functions()) == 3
    expressions = _native.Expressions(plan, "all", ROWS)
    with pytest.raises(HeadraceError, match="is not loaded in this process") as raised:
        expressions.run(0, 1)
    assert raised.value.code == "unavailable"


def test_the_native_code_lives_as_long_as_its_plan(store: FeatureStore) -> None:
    store.online_plan("all")
    compiled_functions._recent.clear()
    gc.collect()
    assert len(compiled_functions._compiled) >= 2  # the plan holds them
    assert same(online(store, ROWS)["tax"], EXPECTED["tax"])


def test_a_function_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code = source("def f(x: float) -> float:\n    return x * 3")
    monkeypatch.setattr(compiled_functions, "_compile", lambda _: SimpleNamespace(address=1))
    monkeypatch.setattr(compiled_functions, "_compiled", {})
    monkeypatch.setattr(compiled_functions, "_recent", deque())
    assert compile_function(code) is compile_function(code)


def test_loops_nested_deeper_than_python_has_them_are_refused() -> None:
    loops = "".join(f"{' ' * (depth + 4)}for i in range(1):\n" for depth in range(21))
    code = source(f"def f(x: float) -> float:\n{loops}{' ' * 25}x += 1\n    return x")
    with pytest.raises(DefinitionError, match="cannot be compiled: too many statically nested blocks"):
        compile_function(code)


def test_a_filter_of_events_cannot_call_a_function(make_project: Callable[..., Path]) -> None:
    definitions = """
    from datetime import timedelta
    from headrace import *

    @scalar_function
    def half(x: float) -> float:
        return x / 2

    user = Entity("user", [Field("user_id", Int64)])
    view = FeatureView(
        "v", [user], [Field("x", Float64)], PushSource(event_ts="at"),
        aggregations=[Aggregation("x", "sum", windows=timedelta(hours=1), where=half(col("x")) > 1)],
    )
    """
    root = make_project(textwrap.dedent(definitions))
    with pytest.raises(DefinitionError, match="its filter calls a Python function"):
        FeatureStore(root).plan()
