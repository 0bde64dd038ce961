"""Functions in Python for on-demand features: `@scalar_function`, compiled by Numba, and `@python_function`.

```python
@scalar_function
def per_item(amount: float, count: int) -> float:
    return amount / count                      # raises for a count of 0: null


@python_function(returns=Float64)
def sentiment(texts: list[str | None]) -> list[float | None]:
    return [None if text is None else score(text) for text in texts]


Field("per_item", Float64, per_item(col("amount"), col("count")))
```

A decorated function that is called with an expression is an expression; with plain values it is the plain function.

A plan names a function by module, qualified name and the digest of its code. That of a compiled function is in the plan
itself, so a process needs nothing but Numba to run it; that of a Python function comes from the project's definitions.
"""

from __future__ import annotations

import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from headrace import _native
from headrace.compiled_functions import CompiledSource, compile_function, read_function
from headrace.digests import digest_json
from headrace.dtypes import DTypeLike, as_dtype
from headrace.errors import DefinitionError, make_error
from headrace.expression_nodes import Node, nodes_inside_out
from headrace.expressions import Expr, lit

if TYPE_CHECKING:
    from headrace.project import Project

PACKAGE_OF_DEFINITIONS = "headrace_features_"
"""The files of a project's `features/` are modules of a package whose name begins so."""

_defined: dict[str, Callable[..., Any]] = {}
"""The Python functions that were decorated in this process, by digest."""


class PlanFunction:
    """A function that expressions can call."""

    def __init__(self, function: Callable[..., Any], definition: dict[str, Any], arguments: int | None) -> None:
        self.function = function
        self.definition = definition
        self._arguments = arguments
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<{self.definition['kind']} function {self.definition['name']}>"

    def __call__(self, *args: Any) -> Any:
        """An expression if an argument is one, otherwise the function's value."""
        if not any(isinstance(arg, Expr) for arg in args):
            return self.function(*args)
        if self._arguments is not None and len(args) != self._arguments:
            raise DefinitionError(
                "invalid_expression",
                f"function '{self.__name__}' takes {self._arguments} arguments, got {len(args)}",
                "give one expression or constant for each parameter",
            )
        nodes = [arg.node if isinstance(arg, Expr) else lit(arg).node for arg in args]
        return Expr({"op": "call", "function": self.definition, "args": nodes})


def scalar_function(function: Callable[..., Any]) -> PlanFunction:
    """Compiles a function of numbers: it runs as native code, for each row, without the interpreter.

    Parameters and result are annotated as `int` (64 bits), `float` or `bool`. The body may use arithmetic, comparisons,
    `if`, local variables, `for` over a `range` of constants, `math`, `abs`, `min`, `max`, `round`, `int`, `float` and
    `bool`, and numbers that are variables of its module; the plan keeps its source.

    - A null argument gives null without a call, unless the parameter is annotated `float | None`: then test it with
      `is None`.
    - What raises is null: division by zero, an int that overflows 64 bits, the int of NaN, `raise`, `return None`.
    - A function of `math` outside its domain is NaN, where Python raises. `**` is a float.
    - `while` and recursion are refused, and so are more than 65,536 steps of all loops together, 128 loops and
      decisions, or four million values computed in a call: a call always ends, and soon.

    A process compiles the functions of a plan when it loads it, which takes about a second each, and needs Numba: the
    extra `headrace[numba]`.

    Raises:
        DefinitionError: `invalid_definition`, naming file and line of what cannot be compiled.
    """
    name = _name_of(function)
    code = read_function(name, function, *_source_of(name, function))
    definition: dict[str, Any] = {"kind": "compiled", "name": name, **code.to_json()}
    definition["digest"] = digest_json(_dumps(definition))
    return PlanFunction(function, definition, len(code.parameters))


def python_function(*, returns: DTypeLike) -> Callable[[Callable[..., Any]], PlanFunction]:
    """Lets expressions call any Python function, at the price of the interpreter: a Python hop.

    The function gets one list for each argument, with one value for each row and None for null (a timestamp is an
    aware datetime), and returns a sequence of as many values: a list or a NumPy array. The same call is made in
    training and in serving, of up to 4,096 rows at a time, so each value must follow from its own row alone. An
    exception, a wrong length or a value of another type is the error `function_failed` of the whole request.

    The definitions must have the function at the top of a module. Its digest covers its source, and that of the
    functions and the constants of its module that it uses. Nothing can stop a function that does not end.

    Args:
        returns: the type of its value.

    Raises:
        DefinitionError: `invalid_definition`.
    """
    dtype = str(as_dtype(returns))

    def decorate(function: Callable[..., Any]) -> PlanFunction:
        name = _name_of(function)
        code = dict(_code_of(name, function))
        definition = {"kind": "python", "name": name, "returns": dtype}
        definition["digest"] = digest_json(_dumps({**definition, "code": code}))
        _defined[definition["digest"]] = function
        return PlanFunction(function, definition, None)

    return decorate


def bind_functions(plan: _native.Plan, project: Project) -> None:
    """Gives the functions of a plan their code. Numba and the definitions are loaded only if the plan needs them.

    Raises:
        ProcessError: `unavailable`, Numba is not installed.
        DefinitionError: `function_failed`, the definitions no longer have a function as it was applied.
    """
    wanted = set(plan.unbound_functions())
    if not wanted:
        return
    for definition in functions_of(plan):
        digest = definition["digest"]
        if digest not in wanted:
            continue
        wanted.discard(digest)
        if definition["kind"] == "compiled":
            code = CompiledSource.from_json(definition)
            if digest_json(_dumps({key: value for key, value in definition.items() if key != "digest"})) != digest:
                raise make_error(
                    "invalid_definition",
                    f"the plan's function '{code.name}' is not what its digest says",
                    "apply again",
                )
            compiled = compile_function(code)
            plan.bind_compiled(digest, compiled.address, compiled)
        else:
            plan.bind_python(digest, _python_function(definition, project))


def check_functions(plan: _native.Plan) -> None:
    """Compiles the plan's compiled functions, for the errors.

    Raises:
        DefinitionError: `invalid_definition`.
        ProcessError: `unavailable`, Numba is not installed.
    """
    for definition in functions_of(plan):
        if definition["kind"] == "compiled":
            compile_function(CompiledSource.from_json(definition))


def functions_of(plan: _native.Plan) -> list[dict[str, Any]]:
    """The definitions of the functions of a plan's on-demand views, each once."""
    found = {definition["digest"]: definition for _, _, definition in calls_of(plan)}
    return list(found.values())


def calls_of(plan: _native.Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(on-demand view, feature, function) for each function that a feature calls."""
    for view, document in json.loads(plan.json)["on_demand_views"].items():
        for field in document["fields"]:
            for definition in _called(field["expr"]):
                yield view, field["name"], definition


def _called(expr: Node) -> list[dict[str, Any]]:
    calls = (node["function"] for node in nodes_inside_out(expr) if node["op"] == "call")
    return list({definition["digest"]: definition for definition in calls}.values())


def _python_function(definition: dict[str, Any], project: Project) -> Callable[..., Any]:
    digest, name = definition["digest"], definition["name"]
    if digest not in _defined:
        project.definitions()  # decorates what the definitions have now
    if digest not in _defined:
        raise make_error(
            "function_failed",
            f"the definitions in {project.config.features} have no Python function '{name}' as it was applied",
            "run `headrace apply`, or bring the definitions of the applied plan back",
        )
    return _defined[digest]


def _name_of(function: Callable[..., Any]) -> str:
    """`module:name`; a file of the definitions is named without the project's place."""
    if not isinstance(function, types.FunctionType) or "<" in function.__qualname__:
        raise DefinitionError(
            "invalid_definition",
            f"{function!r} is not a function at the top of a module",
            "define it with def, outside of classes and functions",
        )
    module = function.__module__
    if module.startswith(PACKAGE_OF_DEFINITIONS):
        module = module.partition(".")[2]
    return f"{module}:{function.__qualname__}"


def _source_of(name: str, function: Callable[..., Any]) -> tuple[str, int]:
    """The source from `def` on, and the line of that."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise DefinitionError(
            "invalid_definition", f"the source of function '{name}' cannot be read", "write it in a file"
        ) from error
    start = next((at for at, line in enumerate(lines) if line.lstrip().startswith("def ")), 0)
    return textwrap.dedent("".join(lines[start:])), first + start


def _code_of(name: str, function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """The sources of a function and of the functions of its module that it uses, and the module's constants."""
    seen: set[str] = set()
    waiting: list[tuple[str, Callable[..., Any]]] = [(function.__name__, function)]
    while waiting:
        own_name, here = waiting.pop()
        yield own_name, _source_of(name, here)[0]
        for used in sorted(_global_names(here.__code__) - seen):
            seen.add(used)
            if used not in here.__globals__:
                continue
            value = here.__globals__[used]
            if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
                if value is not function:
                    waiting.append((used, value))
            elif isinstance(value, PlanFunction) and value.__name__ != function.__name__:
                yield used, value.definition["digest"]
            elif _is_constant(value):
                yield used, repr(value)


def _is_constant(value: object) -> bool:
    """Whether a value has the same text in every process."""
    if isinstance(value, tuple):
        return all(_is_constant(item) for item in value)
    return isinstance(value, bool | int | float | str | bytes | None)


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
