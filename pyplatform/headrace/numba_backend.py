"""Numba's part: what compiled functions call, and the native function that the engine calls. It imports Numba.

The helpers are single LLVM instructions with a test, written into the function that uses them: they raise where Python
does, and whoever calls the native function reads null. (Left to itself, Numba takes it that an int never overflows.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from headrace.compiled_functions import MATH_FLOATS, MATH_INTS, Parameter

HELPERS: dict[str, Any] = {}
"""What the names in a rewritten function stand for."""

_INT = ir.IntType(64)
_FLOAT = ir.DoubleType()
_INT_MIN = ir.Constant(_INT, -(2**63))


class NotCompiledError(Exception):
    """Why Numba cannot compile a function."""


class _Code:
    """Writes the instructions of one helper."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context = context
        self.builder = builder

    def refuse_if(self, condition: Any) -> None:
        with cgutils.if_unlikely(self.builder, condition):
            self.context.call_conv.return_user_exc(self.builder, ValueError, ())

    def either(self, *conditions: Any) -> Any:
        found = conditions[0]
        for condition in conditions[1:]:
            found = self.builder.or_(found, condition)
        return found

    def both(self, a: Any, b: Any) -> Any:
        return self.builder.and_(a, b)

    def is_int(self, x: Any, value: int) -> Any:
        return self.builder.icmp_signed("==", x, ir.Constant(_INT, value))

    def is_zero(self, x: Any) -> Any:
        return self.builder.fcmp_ordered("==", x, ir.Constant(_FLOAT, 0.0))

    def is_nan(self, x: Any) -> Any:
        return self.builder.fcmp_unordered("uno", x, x)

    def is_infinite(self, x: Any) -> Any:
        return self.builder.fcmp_ordered("==", self.call("fabs", x), ir.Constant(_FLOAT, math.inf))

    def call(self, name: str, *args: Any) -> Any:
        """A function of the C library."""
        kind = ir.FunctionType(_FLOAT, [_FLOAT] * len(args))
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), args)

    def checked(self, result: Any, *args: Any) -> Any:
        """Refuses NaN of what is none, and infinity of what is finite, as CPython does."""
        nan, infinite = self.is_nan(result), self.is_infinite(result)
        for arg in args:
            nan = self.both(nan, self.builder.not_(self.is_nan(arg)))
            odd = self.either(self.is_nan(arg), self.is_infinite(arg))
            infinite = self.both(infinite, self.builder.not_(odd))
        self.refuse_if(self.either(nan, infinite))
        return result


def _helper(name: str, signature: Callable[..., Any], write: Callable[..., Any]) -> None:
    """`signature` gives the types for those of the arguments; `write` the result for a `_Code` and the values."""
    count = signature.__code__.co_argcount

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return write(_Code(context, builder), *args)

    if count == 1:
        HELPERS[name] = intrinsic(lambda typing, x: (signature(x), codegen))
    else:
        HELPERS[name] = intrinsic(lambda typing, x, y: (signature(x, y), codegen))


def _are_ints(*kinds: Any) -> bool:
    return all(isinstance(kind, types.Integer | types.Boolean) for kind in kinds)


def _pair(name: str, of_ints: Callable[..., Any], of_floats: Callable[..., Any]) -> None:
    """A helper of two ints (a bool is one), or of two numbers of which one is a float."""

    def codegen_ints(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return of_ints(_Code(context, builder), *args)

    def codegen_floats(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return of_floats(_Code(context, builder), *args)

    def typed(typing: Any, x: Any, y: Any) -> Any:
        if _are_ints(x, y):
            return types.int64(types.int64, types.int64), codegen_ints
        return types.float64(types.float64, types.float64), codegen_floats

    HELPERS[name] = intrinsic(typed)


def _single(name: str, of_int: Callable[..., Any], of_float: Callable[..., Any], result: Any = None) -> None:
    """A helper of one number."""

    def codegen_int(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return of_int(_Code(context, builder), *args)

    def codegen_float(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return of_float(_Code(context, builder), *args)

    def typed(typing: Any, x: Any) -> Any:
        if _are_ints(x):
            return types.int64(types.int64), codegen_int
        return (result or types.float64)(types.float64), codegen_float

    HELPERS[name] = intrinsic(typed)


def _overflowing(instruction: str) -> Callable[..., Any]:
    def write(code: _Code, x: Any, y: Any) -> Any:
        both = getattr(code.builder, instruction)(x, y)
        code.refuse_if(code.builder.extract_value(both, 1))
        return code.builder.extract_value(both, 0)

    return write


def _floor_divide_ints(code: _Code, x: Any, y: Any) -> Any:
    builder = code.builder
    overflows = code.both(code.is_int(y, -1), builder.icmp_signed("==", x, _INT_MIN))
    code.refuse_if(code.either(code.is_int(y, 0), overflows))
    quotient, remainder = builder.sdiv(x, y), builder.srem(x, y)
    return builder.select(_leans(code, remainder, y), builder.sub(quotient, ir.Constant(_INT, 1)), quotient)


def _modulo_ints(code: _Code, x: Any, y: Any) -> Any:
    builder = code.builder
    code.refuse_if(code.is_int(y, 0))
    divisor = builder.select(code.is_int(y, -1), ir.Constant(_INT, 1), y)  # the machine traps on INT_MIN % -1
    remainder = builder.srem(x, divisor)
    return builder.select(_leans(code, remainder, y), builder.add(remainder, y), remainder)


def _leans(code: _Code, remainder: Any, y: Any) -> Any:
    """Whether a remainder has the other sign than its divisor."""
    signs = code.builder.icmp_signed("<", code.builder.xor(remainder, y), ir.Constant(_INT, 0))
    return code.both(code.builder.not_(code.is_int(remainder, 0)), signs)


def _modulo(code: _Code, x: Any, y: Any) -> Any:
    """CPython's `float_rem`."""
    builder, zero = code.builder, ir.Constant(_FLOAT, 0.0)
    code.refuse_if(code.is_zero(y))
    remainder = code.call("fmod", x, y)
    signs = builder.xor(builder.fcmp_ordered("<", y, zero), builder.fcmp_ordered("<", remainder, zero))
    moved = builder.select(signs, builder.fadd(remainder, y), remainder)
    return builder.select(code.is_zero(remainder), code.call("copysign", zero, y), moved)


def _floor_divide(code: _Code, x: Any, y: Any) -> Any:
    """CPython's `float_floor_div`."""
    builder, zero, one = code.builder, ir.Constant(_FLOAT, 0.0), ir.Constant(_FLOAT, 1.0)
    code.refuse_if(code.is_zero(y))
    remainder = code.call("fmod", x, y)
    quotient = builder.fdiv(builder.fsub(x, remainder), y)
    signs = builder.xor(builder.fcmp_ordered("<", y, zero), builder.fcmp_ordered("<", remainder, zero))
    leans = code.both(builder.not_(code.is_zero(remainder)), signs)
    quotient = builder.select(leans, builder.fsub(quotient, one), quotient)
    floor = code.call("floor", quotient)
    is_above = builder.fcmp_ordered(">", builder.fsub(quotient, floor), ir.Constant(_FLOAT, 0.5))
    floor = builder.select(is_above, builder.fadd(floor, one), floor)
    return builder.select(code.is_zero(quotient), code.call("copysign", zero, builder.fdiv(x, y)), floor)


def _divide(code: _Code, x: Any, y: Any) -> Any:
    code.refuse_if(code.is_zero(y))
    return code.builder.fdiv(x, y)


def _power(code: _Code, x: Any, y: Any) -> Any:
    # Python refuses zero to a negative power. To a fraction of a negative number it gives a complex one: NaN here.
    return code.checked(code.call("pow", x, y), x, y)


_pair("_add", _overflowing("sadd_with_overflow"), lambda code, x, y: code.builder.fadd(x, y))
_pair("_subtract", _overflowing("ssub_with_overflow"), lambda code, x, y: code.builder.fsub(x, y))
_pair("_multiply", _overflowing("smul_with_overflow"), lambda code, x, y: code.builder.fmul(x, y))
_pair("_floor_divide", _floor_divide_ints, _floor_divide)
_pair("_modulo", _modulo_ints, _modulo)
for _name, _write in (("_divide", _divide), ("_power", _power), ("_math_pow", _power)):
    _helper(_name, lambda x, y: types.float64(types.float64, types.float64), _write)


def _whole(function: str) -> Callable[..., Any]:
    def write(code: _Code, x: Any) -> Any:
        whole = code.call(function, x)
        # 2^63 is a float, and the first one that is too large; NaN fails both comparisons.
        low = code.builder.fcmp_ordered(">=", whole, ir.Constant(_FLOAT, -(2.0**63)))
        high = code.builder.fcmp_ordered("<", whole, ir.Constant(_FLOAT, 2.0**63))
        code.refuse_if(code.builder.not_(code.both(low, high)))
        return code.builder.fptosi(whole, _INT)

    return write


def _negative_int(code: _Code, x: Any) -> Any:
    code.refuse_if(code.builder.icmp_signed("==", x, _INT_MIN))
    return code.builder.neg(x)


def _absolute_int(code: _Code, x: Any) -> Any:
    code.refuse_if(code.builder.icmp_signed("==", x, _INT_MIN))
    is_negative = code.builder.icmp_signed("<", x, ir.Constant(_INT, 0))
    return code.builder.select(is_negative, code.builder.neg(x), x)


def _same(code: _Code, x: Any) -> Any:
    return x


for _name, _function in {"_whole": "trunc", "_rounded": "rint", **{f"_math_{n}": n for n in MATH_INTS}}.items():
    _single(_name, _same, _whole(_function), types.int64)
_single("_negative", _negative_int, lambda code, x: code.builder.fneg(x))
_single("_absolute", _absolute_int, lambda code, x: code.call("fabs", x))


def _value(code: _Code, x: Any, known: Any) -> Any:
    code.refuse_if(code.builder.not_(known))
    return x


_helper("_value", lambda x, known: x(x, types.boolean), _value)


def _math(name: str) -> None:
    one = types.float64(types.float64)
    match name:
        case "isnan" | "isinf" | "isfinite":
            tests: dict[str, Callable[..., Any]] = {
                "isnan": lambda code, x: code.is_nan(x),
                "isinf": lambda code, x: code.is_infinite(x),
                "isfinite": lambda code, x: code.builder.not_(code.either(code.is_nan(x), code.is_infinite(x))),
            }
            _helper(f"_math_{name}", lambda x: types.boolean(types.float64), tests[name])
        case "degrees" | "radians":
            factor = 180.0 / math.pi if name == "degrees" else math.pi / 180.0
            _helper(f"_math_{name}", lambda x: one, lambda code, x: code.builder.fmul(x, ir.Constant(_FLOAT, factor)))
        case "atan2" | "copysign" | "fmod" | "hypot":
            two = types.float64(types.float64, types.float64)
            _helper(f"_math_{name}", lambda x, y: two, lambda code, x, y: code.checked(code.call(name, x, y), x, y))
        case _:
            function = "tgamma" if name == "gamma" else name
            _helper(f"_math_{name}", lambda x: one, lambda code, x: code.checked(code.call(function, x), x))


for _name in MATH_FLOATS:
    if _name != "pow":
        _math(_name)

_KINDS = {"int64": types.int64, "float64": types.float64, "bool": types.boolean}
_SIGNATURE = types.int32(
    types.CPointer(types.int64),
    types.CPointer(types.float64),
    types.CPointer(types.uint8),
    types.CPointer(types.int64),
    types.CPointer(types.float64),
)


def native_function(function: Callable[..., Any], parameters: Sequence[Parameter], returns: str) -> Any:
    """A C function of the arguments' words (as ints and again as floats), of which have a value, and of the result's
    place (again twice), that returns 0 when it has written a value there.

    Raises:
        NotCompiledError: with Numba's reason.
    """
    kinds, arguments = [], []
    for at, parameter in enumerate(parameters):
        kinds.append(_KINDS[parameter.dtype])
        arguments.append(
            {"int64": f"ints[{at}]", "float64": f"floats[{at}]", "bool": f"ints[{at}] != 0"}[parameter.dtype]
        )
        if parameter.takes_null:
            kinds.append(types.boolean)
            arguments.append(f"valid[{at}] != 0")
    compiled = njit(error_model="python")(function)
    try:
        compiled.compile(tuple(kinds))
        result = compiled.overloads[tuple(kinds)].signature.return_type
        _check_result(result, returns)
        return cfunc(_SIGNATURE, nopython=True)(_entry(compiled, arguments, returns))
    except errors.NumbaError as error:
        raise NotCompiledError(_reason(error)) from error


def _check_result(found: Any, returns: str) -> None:
    fits = {
        "float64": isinstance(found, types.Float | types.Integer | types.Boolean),
        "int64": isinstance(found, types.Integer | types.Boolean),
        "bool": isinstance(found, types.Boolean),
    }
    if not fits[returns]:
        raise NotCompiledError(f"it is annotated to return {returns}, and returns {found}")


def _entry(function: Any, arguments: Sequence[str], returns: str) -> Callable[..., Any]:
    place, cast = ("out_float", "float") if returns == "float64" else ("out_int", "int")
    source = (
        "def entry(ints, floats, valid, out_int, out_float):\n"
        "    try:\n"
        f"        result = function({', '.join(arguments)})\n"
        "    except Exception:\n"
        "        return 1\n"
        f"    {place}[0] = {cast}(result)\n"
        "    return 0\n"
    )
    scope: dict[str, Any] = {"function": function}
    exec(source, scope)
    entry: Callable[..., Any] = scope["entry"]
    return entry


def _reason(error: Exception) -> str:
    """The lines of a long message that say something about the function."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [
        line for line in lines if line.startswith(("Cannot unify", "Invalid use", "No implementation", "Unknown"))
    ]
    return (telling or [line for line in lines if line] or ["Numba gives no reason"])[0]
