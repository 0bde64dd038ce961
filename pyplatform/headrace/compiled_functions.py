"""From the source of a scalar function to native code: what it may say, and its compilation by Numba.

The source comes from a plan, so it is checked before anything of it runs: it can compute with numbers and end, and
nothing else. Python's meaning is kept where a machine's is another (division, overflow, the int of a float); what has
no value there raises, and what raises is null.
"""

from __future__ import annotations

import ast
import builtins
import math
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.errors import DefinitionError, make_error

SOURCE_BYTES_MAX = 16_384
DEPTH_MAX = 100
LOOP_STEPS_MAX = 65_536
"""Steps of all loops of a function together, each multiplied with those of the loops around it."""

OPERATIONS_MAX = 64 * LOOP_STEPS_MAX
"""Statements and parts of expressions that a call may come to, so that it ends within tenths of a second."""

BRANCHES_MAX = 128
"""Loops and decisions of a function: the time of its compilation grows faster than their number."""

DTYPES: dict[str, str] = {"int": "int64", "float": "float64", "bool": "bool"}
_BUILTINS = ("abs", "bool", "float", "int", "max", "min", "round")
_ERRORS = ("ArithmeticError", "OverflowError", "ValueError", "ZeroDivisionError")
MATH_INTS = ("ceil", "floor", "trunc")
MATH_FLOATS = tuple(
    "acos acosh asin asinh atan atan2 atanh copysign cos cosh degrees erf erfc exp expm1 fabs fmod gamma hypot "  # noqa: SIM905
    "isfinite isinf isnan lgamma log log10 log1p log2 pow radians sin sinh sqrt tan tanh".split()
)
_MATH_CONSTANTS = ("e", "inf", "nan", "pi", "tau")

Constant = bool | int | float


@dataclass(frozen=True)
class Parameter:
    """A parameter of a compiled function."""

    name: str
    dtype: str
    """int64, float64 or bool"""
    takes_null: bool


@dataclass(frozen=True)
class CompiledSource:
    """A checked function, as a plan keeps it."""

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    returns: str
    constants: dict[str, Constant]
    """Variables of its module."""

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "parameters": [
                {"name": parameter.name, "dtype": parameter.dtype, "takes_null": parameter.takes_null}
                for parameter in self.parameters
            ],
            "returns": self.returns,
            "constants": self.constants,
        }

    @classmethod
    def from_json(cls, definition: dict[str, Any]) -> CompiledSource:
        """The function of a plan, which may have been written by anybody.

        Raises:
            DefinitionError: `invalid_definition`.
        """
        name, constants = str(definition["name"]), dict(definition.get("constants", {}))
        for value in constants.values():
            if not isinstance(value, bool | int | float):
                raise _refused(name, None, f"has the constant {value!r}", "use numbers")
        code = _read(name, str(definition["source"]), None, constants.get)
        if code.to_json()["parameters"] != definition["parameters"] or code.returns != definition["returns"]:
            raise _refused(name, None, "has other annotations than the plan says", "apply again")
        return code


def read_function(name: str, function: Callable[..., Any], source: str, line: int) -> CompiledSource:
    """Checks what a function says.

    Args:
        name: module and name, for messages.
        function: gives the variables of its module.
        source: from `def` on.
        line: of the `def` in its file.

    Raises:
        DefinitionError: `invalid_definition`.
    """
    return _read(name, source, line, function.__globals__.get)


def _refused(name: str, line: int | None, what: str, hint: str) -> DefinitionError:
    at = "" if line is None else f", line {line},"
    return DefinitionError("invalid_definition", f"compiled function '{name}'{at} {what}", hint)


def _read(name: str, source: str, line: int | None, variable: Callable[[str], Any]) -> CompiledSource:
    if len(source.encode()) > SOURCE_BYTES_MAX:
        raise _refused(name, None, f"has over {SOURCE_BYTES_MAX} bytes", "divide it")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(name, None, f"cannot be read: {error}", "write it with def") from error
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise _refused(name, None, "is not one def", "write it with def, not as a lambda or async")
    if _depth(tree) > DEPTH_MAX:
        raise _refused(name, None, f"is nested deeper than {DEPTH_MAX} levels", "use local variables for its parts")
    return _Reader(name, tree.body[0], line, variable).read(source)


def _depth(tree: ast.AST) -> int:
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return deepest


class _Reader:
    """Walks a function once, and refuses the first thing that is not allowed."""

    def __init__(
        self,
        name: str,
        function: ast.FunctionDef,
        line: int | None,
        variable: Callable[[str], Any],
    ) -> None:
        self.name = name
        self.function = function
        self.line = line
        self.variable = variable
        self.constants: dict[str, Constant] = {}
        self.locals: set[str] = set()
        self.assigned: set[str] = set()
        """The locals that surely have a value: Numba gives the others any."""
        self.null_tests: set[str] = set()
        self.around = 1
        """Steps of the loops around what is read, multiplied."""
        self.steps = 0
        """Of the loops so far. Of a loop with loops in it, the larger of its own and theirs together."""
        self.operations = 0
        self.branches_count = 0

    def refuse(self, node: ast.AST, what: str, hint: str) -> DefinitionError:
        below = getattr(node, "lineno", self.function.lineno) - self.function.lineno
        return _refused(self.name, None if self.line is None else self.line + below, what, hint)

    def read(self, source: str) -> CompiledSource:
        if self.function.decorator_list or getattr(self.function, "type_params", None):
            # They would be evaluated, whatever they say.
            raise self.refuse(self.function, "has a decorator or type parameters", "begin its source with def")
        arguments = self.function.args
        if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or arguments.defaults:
            raise self.refuse(self.function, "has other parameters than plain ones", "write def f(x: float, y: int)")
        if not arguments.args:
            raise self.refuse(self.function, "has no parameters", "write a constant in its place")
        parameters = tuple(self.parameter(argument) for argument in arguments.args)
        returns, _ = self.annotation(self.function, "its result", self.function.returns)
        self.locals = {parameter.name for parameter in parameters}
        self.assigned = set(self.locals)
        self.null_tests = {parameter.name for parameter in parameters if parameter.takes_null}
        self.locals |= {
            node.id
            for node in ast.walk(self.function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        body = self.function.body
        if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]  # the docstring
        self.statements(body)
        return CompiledSource(self.name, source, parameters, returns, self.constants)

    def parameter(self, argument: ast.arg) -> Parameter:
        dtype, takes_null = self.annotation(argument, f"its parameter '{argument.arg}'", argument.annotation)
        if argument.arg.startswith("_"):
            raise self.refuse(argument, f"has the parameter '{argument.arg}'", "begin it with a letter")
        return Parameter(argument.arg, dtype, takes_null)

    def annotation(self, node: ast.AST, what: str, annotation: ast.expr | None) -> tuple[str, bool]:
        text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
        parts = [part.strip() for part in text.split("|")]
        kinds = [part for part in parts if part != "None"]
        if len(kinds) != 1 or kinds[0] not in DTYPES:
            said = f"is annotated '{text}'" if text else "has no annotation"
            raise self.refuse(node, f"cannot be compiled: {what} {said}", "annotate it as int, float or bool")
        return DTYPES[kinds[0]], "None" in parts

    def count(self, node: ast.AST, branches: int = 0) -> None:
        self.operations += self.around
        if self.operations > OPERATIONS_MAX:
            what = f"computes over {OPERATIONS_MAX} values in a call, up to here"
            raise self.refuse(node, what, "use shorter loops, or do less in each step")
        self.branches_count += branches
        if self.branches_count > BRANCHES_MAX:
            what = f"has over {BRANCHES_MAX} loops and decisions, up to here"
            raise self.refuse(node, what, "divide it, or make it a python_function")

    def statements(self, body: list[ast.stmt]) -> bool:
        """Checks statements, and says whether they never go on to the next."""
        ends = False
        for statement in body:
            ends = self.statement(statement) or ends
        return ends

    def statement(self, node: ast.stmt) -> bool:
        self.count(node, branches=isinstance(node, ast.If | ast.For))
        match node:
            case ast.Return(value=value):
                if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
                    self.expression(value)
                return True
            case ast.Assign(targets=[ast.Name() as target], value=value):
                self.expression(value)
                self.target(target)
            case ast.AnnAssign(target=ast.Name() as target, value=value) if value is not None:
                self.expression(value)
                self.target(target)
            case ast.AugAssign(target=ast.Name() as target, op=operator, value=value):
                self.global_name(target, target.id)
                self.operator(node, operator)
                self.expression(value)
                self.target(target)
            case ast.If():
                return self.branches(node)
            case ast.For(target=ast.Name() as target, iter=over, orelse=[]):
                self.loop(node, target, self.loop_steps(node, over))
            case ast.Break() | ast.Continue():
                return True
            case ast.Raise():
                self.raised(node)
                return True
            case ast.Pass():
                pass
            case ast.While():
                raise self.refuse(node, "has a while loop, which may never end", "use for over range(100), with break")
            case _:
                raise self.refuse(
                    node,
                    f"has a statement that cannot be compiled: {ast.unparse(node).splitlines()[0]}",
                    "use assignments, if, for over range, return and raise; or make it a python_function",
                )
        return False

    def branches(self, node: ast.If) -> bool:
        self.expression(node.test)
        before = set(self.assigned)
        body_ends = self.statements(node.body)
        after_body, self.assigned = self.assigned, before
        else_ends = self.statements(node.orelse)
        if else_ends:
            self.assigned = after_body
        elif not body_ends:
            self.assigned &= after_body
        return body_ends and else_ends

    def loop(self, node: ast.For, target: ast.Name, steps: int) -> None:
        before, around, steps_before = set(self.assigned), self.around, self.steps
        self.around *= steps
        if steps_before + self.around > LOOP_STEPS_MAX:
            what = f"loops {self.around} times" + (f", after {steps_before} before it" if steps_before else "")
            raise self.refuse(node, what, f"at most {LOOP_STEPS_MAX} steps of all loops together are allowed")
        self.target(target)
        self.statements(node.body)
        self.steps = max(self.steps, steps_before + self.around)
        self.around = around
        self.assigned = before  # a range may be empty, and a loop left early

    def raised(self, node: ast.Raise) -> None:
        match node:
            case ast.Raise(exc=ast.Name(id=error), cause=None) if error in _ERRORS:
                return
            case ast.Raise(exc=ast.Call(func=ast.Name(id=error), args=args, keywords=[]), cause=None) if (
                error in _ERRORS and all(isinstance(arg, ast.Constant) for arg in args)
            ):
                return
        raise self.refuse(node, f"raises {ast.unparse(node)[6:]}", f"raise one of {', '.join(_ERRORS)}")

    def target(self, target: ast.Name) -> None:
        if target.id.startswith("_") or target.id in self.null_tests or target.id in (*_BUILTINS, "math", "range"):
            raise self.refuse(target, f"assigns to '{target.id}'", "use another name")
        self.assigned.add(target.id)

    def loop_steps(self, node: ast.For, over: ast.expr) -> int:
        is_range = isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range"
        args = over.args if isinstance(over, ast.Call) and is_range and not over.keywords else []
        numbers = [value for arg in args if (value := self.whole_number(arg)) is not None]
        if len(numbers) != len(args) or not 1 <= len(args) <= 3:
            raise self.refuse(
                node, "has a for loop whose length is not a constant", "write for i in range(100), and break out of it"
            )
        if len(numbers) == 3 and numbers[2] == 0:
            raise self.refuse(node, "has a for loop of step 0", "use another step")
        return max(len(range(*numbers)), 1)

    def whole_number(self, node: ast.expr) -> int | None:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -1, node.operand
        if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 2**62:
            return sign * node.value
        if isinstance(node, ast.Name) and node.id not in self.locals:
            value = self.variable(node.id)
            if type(value) is int and abs(value) < 2**62:
                self.constants[node.id] = value
                return sign * value
        return None

    def operator(self, node: ast.AST, operator: ast.operator) -> None:
        if isinstance(operator, ast.LShift | ast.RShift | ast.MatMult):
            raise self.refuse(node, "shifts bits", "multiply by a power of two")

    def expression(self, node: ast.expr) -> None:
        self.count(node, _decisions(node))
        match node:
            case ast.BinOp(left=left, op=operator, right=right):
                self.operator(node, operator)
                self.expression(left)
                self.expression(right)
            case ast.UnaryOp(operand=operand):
                self.expression(operand)
            case ast.BoolOp(values=values):
                for value in values:
                    self.expression(value)
            case ast.Compare():
                self.comparison(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                for value in (test, body, orelse):
                    self.expression(value)
            case ast.Call(func=func, args=args, keywords=[]):
                self.callee(node, func, len(args))
                for value in args:
                    self.expression(value)
            case ast.Constant(value=value):
                self.constant(node, value)
            case ast.Attribute(value=ast.Name(id="math"), attr=attr) if attr in _MATH_CONSTANTS:
                self.math_module(node)
            case ast.Name(id=name):
                self.global_name(node, name)
            case _:
                raise self.refuse(
                    node,
                    f"has what cannot be compiled: {ast.unparse(node)}",
                    "use numbers, or make it a python_function",
                )

    def comparison(self, node: ast.Compare) -> None:
        if not any(isinstance(operator, ast.Is | ast.IsNot | ast.In | ast.NotIn) for operator in node.ops):
            for value in (node.left, *node.comparators):
                self.expression(value)
            return
        match node:
            case ast.Compare(
                left=ast.Name(id=name), ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]
            ) if name in self.null_tests:
                pass
            case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot()]):
                what = f"asks whether '{ast.unparse(left)}' is None"
                raise self.refuse(node, what, "annotate a parameter as `float | None`, and ask for that one")
            case _:
                raise self.refuse(node, "uses in", "compare with ==, or use is_in of an expression")

    def constant(self, node: ast.AST, value: Any) -> None:
        is_number = isinstance(value, bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
        if not is_number:
            raise self.refuse(node, f"has the constant {value!r}", "use numbers of 64 bits")

    def global_name(self, node: ast.AST, name: str) -> None:
        if name in self.locals:
            if name not in self.assigned:
                raise self.refuse(node, f"may use '{name}' before it has a value", "give it one first, on every way")
            return
        value = self.variable(name)
        if not isinstance(value, bool | int | float):
            raise self.refuse(node, f"uses '{name}', which is no number", "give it as an argument, or as a number")
        self.constant(node, value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refuse(node, f"uses '{name}', which is {value}", "write math.inf or math.nan in the function")
        self.constants[name] = value

    def callee(self, node: ast.AST, func: ast.expr, args_count: int) -> None:
        match func:
            case ast.Name(id=name) if name in _BUILTINS and name not in self.locals:
                bounds = {"max": (2, 64), "min": (2, 64)}.get(name, (1, 1))
                if not bounds[0] <= args_count <= bounds[1]:
                    raise self.refuse(node, f"calls {name} with {args_count} arguments", f"give it {bounds[0]}")
            case ast.Attribute(value=ast.Name(id="math"), attr=attr) if attr in MATH_INTS or attr in MATH_FLOATS:
                self.math_module(node)
            case ast.Name(id=name) if name == self.function.name:
                raise self.refuse(node, "calls itself", "use for over range(100)")
            case _:
                raise self.refuse(
                    node,
                    f"calls {ast.unparse(func)}",
                    f"it may call functions of math, and {', '.join(_BUILTINS)}; or make it a python_function",
                )

    def math_module(self, node: ast.AST) -> None:
        if "math" in self.locals or (self.line is not None and self.variable("math") is not math):
            raise self.refuse(node, "uses 'math', which is not the module", "write import math")


def _decisions(node: ast.expr) -> int:
    match node:
        case ast.IfExp():
            return 1
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.Compare(ops=operators):
            return len(operators) - 1
        case _:
            return 0


class CompiledFunction:
    """Native code, which lives as long as this object."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.address: int = native.address


_compiled: weakref.WeakValueDictionary[str, CompiledFunction] = weakref.WeakValueDictionary()
"""By source and types."""

_recent: deque[CompiledFunction] = deque(maxlen=64)
"""Kept beyond their plans: a plan that is checked, applied and loaded in one process is compiled once."""


def compile_function(code: CompiledSource) -> CompiledFunction:
    """The native code of a function.

    Raises:
        DefinitionError: `invalid_definition`, its types do not fit.
        ProcessError: `unavailable`, Numba is not installed.
    """
    key = repr(code)
    known = _compiled.get(key)
    if known is None:
        known = _compiled[key] = CompiledFunction(_compile(code))
        _recent.append(known)
    return known


def _compile(code: CompiledSource) -> Any:
    try:
        from headrace import numba_backend
    except ImportError as error:
        raise make_error(
            "unavailable",
            f"function '{code.name}' is compiled by Numba, which cannot be imported: {error}",
            "install the extra: pip install 'headrace[numba]'",
        ) from error
    tree = ast.parse(code.source)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    rewritten = _Rewriter({parameter.name for parameter in code.parameters if parameter.takes_null}).visit(function)
    rewritten.name = "function"
    rewritten.returns = None
    rewritten.args.args = [ast.arg(name) for parameter in code.parameters for name in _native_names(parameter)]
    rewritten.body.append(_raise_null())  # the end without a return is None
    module = ast.fix_missing_locations(ast.Module([rewritten], []))
    scope: dict[str, Any] = {**numba_backend.HELPERS, **code.constants, "__builtins__": _SAFE_BUILTINS}
    try:
        exec(compile(module, f"<{code.name}>", "exec"), scope)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise _refused(code.name, None, f"cannot be compiled: {error}", "nest its loops less deeply") from error
    try:
        return numba_backend.native_function(scope["function"], code.parameters, code.returns)
    except numba_backend.NotCompiledError as error:
        raise _refused(
            code.name, None, f"cannot be compiled: {error}", "check the types of what it computes"
        ) from error


_SAFE_BUILTINS = {
    name: getattr(builtins, name) for name in ("bool", "float", "max", "min", "range", "ValueError", *_ERRORS)
}


def _native_names(parameter: Parameter) -> list[str]:
    return [parameter.name, _known(parameter.name)] if parameter.takes_null else [parameter.name]


def _known(name: str) -> str:
    return f"_known_{name}"


def _raise_null() -> ast.stmt:
    return ast.Raise(exc=ast.Name("ValueError", ast.Load()), cause=None)


class _Rewriter(ast.NodeTransformer):
    """Puts helpers in the place of what machines do otherwise than Python, and turns None into what raises."""

    def __init__(self, null_tests: set[str]) -> None:
        self.null_tests = null_tests

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            return _raise_null()
        return ast.Return(self.visit(node.value))

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return _raise_null()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        assert node.value is not None
        return ast.Assign([node.target], self.visit(node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        assert isinstance(node.target, ast.Name)
        left = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], self.visit(ast.BinOp(left, node.op, node.value)))

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        helper = _HELPER_OF_OPERATOR.get(type(node.op))
        left, right = self.visit(node.left), self.visit(node.right)
        return ast.BinOp(left, node.op, right) if helper is None else _call(helper, left, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        is_constant = isinstance(operand, ast.Constant)
        if isinstance(node.op, ast.USub) and not is_constant:
            return _call("_negative", operand)
        return ast.UnaryOp(node.op, operand)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        if isinstance(node.ops[0], ast.Is | ast.IsNot):
            assert isinstance(node.left, ast.Name)
            known: ast.expr = ast.Name(_known(node.left.id), ast.Load())
            return ast.UnaryOp(ast.Not(), known) if isinstance(node.ops[0], ast.Is) else known
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        args = [self.visit(arg) for arg in node.args]
        if isinstance(node.func, ast.Attribute):
            return _call(f"_math_{node.func.attr}", *args)
        assert isinstance(node.func, ast.Name)
        helper = {"abs": "_absolute", "int": "_whole", "round": "_rounded"}.get(node.func.id, node.func.id)
        return _call(helper, *args)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Constant(getattr(math, node.attr))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.null_tests and isinstance(node.ctx, ast.Load):
            return _call("_value", node, ast.Name(_known(node.id), ast.Load()))
        return node


_HELPER_OF_OPERATOR: dict[type[ast.operator], str] = {
    ast.Add: "_add",
    ast.Sub: "_subtract",
    ast.Mult: "_multiply",
    ast.Div: "_divide",
    ast.FloorDiv: "_floor_divide",
    ast.Mod: "_modulo",
    ast.Pow: "_power",
}


def _call(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])
