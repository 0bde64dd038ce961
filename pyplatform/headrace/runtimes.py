"""Where the runtimes of models are that headrace does not evaluate itself: ONNX Runtime's shared library, a Python for
the workers of model classes, and a compiler of functions.

Nothing is imported here: a wheel's library is found by its place, and Numba by the first function that needs it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from headrace.config import ModelsSection
from headrace.errors import DefinitionError, HeadraceError, make_error

ONNX_VARIABLE = "HEADRACE_ONNXRUNTIME"
WORKER_FILE = Path(__file__).with_name("model_worker.py")
PASSED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Runtimes(TypedDict):
    """As the engine takes them."""

    onnx_library: str | None
    onnx_threads: int
    python: str
    worker_file: str
    workers: int
    deadline_seconds: float
    start_seconds: float
    memory_bytes_max: int
    address_bytes_max: int
    batch_bytes_max: int
    environment: list[tuple[str, str]]
    compile_function: Callable[[str], tuple[int, object]]


def find_runtimes(settings: ModelsSection | None = None) -> Runtimes:
    """The runtimes as the settings say, and where those say nothing, as this Python has them.

    Args:
        settings: the section `models` of headrace.toml; by default without any.
    """
    chosen = ModelsSection() if settings is None else settings
    library = os.environ.get(ONNX_VARIABLE) or chosen.onnxruntime or onnx_library_of_wheel()
    return Runtimes(
        onnx_library=library,
        onnx_threads=chosen.onnx_threads,
        python=chosen.python or sys.executable,
        worker_file=str(WORKER_FILE),
        workers=chosen.workers,
        deadline_seconds=chosen.deadline_seconds,
        start_seconds=chosen.start_seconds,
        memory_bytes_max=chosen.memory_bytes_max,
        address_bytes_max=chosen.address_bytes_max,
        batch_bytes_max=chosen.batch_bytes_max,
        environment=worker_environment(chosen.environment),
        compile_function=compile_function,
    )


def compile_function(definition: str) -> tuple[int, object]:
    """Checks and compiles the function of a model's file, which anybody may have written.

    Args:
        definition: the file's JSON, whose form the engine has checked.

    Returns:
        The address of the native code, and what keeps it in memory.

    Raises:
        StoreError: `corrupt_model`, naming what cannot be compiled.
        ProcessError: `unavailable`, Numba is not installed.
    """
    from headrace import compiled_functions

    try:
        compiled = compiled_functions.compile_function(
            compiled_functions.CompiledSource.from_json(json.loads(definition))
        )
    except DefinitionError as error:
        raise make_error("corrupt_model", error.message, error.hint) from error
    except HeadraceError:
        raise
    except Exception as error:
        message = f"the function cannot be compiled: {type(error).__name__}: {error}"
        raise make_error("corrupt_model", message, "export it again; if it stays so, please report it") from error
    return compiled.address, compiled


def worker_environment(names: str = "") -> list[tuple[str, str]]:
    """The whole environment of a worker: a few variables of this process, and one thread for numeric libraries.

    Args:
        names: further variables that are passed on, separated by commas.
    """
    passed = [*PASSED_VARIABLES, *(name.strip() for name in names.split(",") if name.strip())]
    chosen = {**ONE_THREAD, **{name: os.environ[name] for name in passed if name in os.environ}}
    return sorted(chosen.items())


@functools.cache
def onnx_library_of_wheel() -> str | None:
    """The library in the wheel `onnxruntime` or `onnxruntime-gpu` of this Python, if one is installed."""
    found = importlib.util.find_spec("onnxruntime")
    for folder in (found.submodule_search_locations if found else None) or ():
        libraries = sorted(Path(folder, "capi").glob("libonnxruntime.so*"))
        if libraries:
            return str(libraries[-1])
    return None
