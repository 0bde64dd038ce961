"""Where the runtimes of models are that headrace does not evaluate itself: ONNX Runtime's shared library.

Nothing is imported here: a wheel's library is found by its place.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import TypedDict

from headrace.config import ModelsSection

ONNX_VARIABLE = "HEADRACE_ONNXRUNTIME"


class Runtimes(TypedDict):
    """As the engine takes them."""

    onnx_library: str | None
    onnx_threads: int


def find_runtimes(settings: ModelsSection | None = None) -> Runtimes:
    """The runtimes as the settings say, and where those say nothing, as this Python has them.

    Args:
        settings: the section `models` of headrace.toml; by default without any.
    """
    chosen = ModelsSection() if settings is None else settings
    library = os.environ.get(ONNX_VARIABLE) or chosen.onnxruntime or onnx_library_of_wheel()
    return Runtimes(onnx_library=library, onnx_threads=chosen.onnx_threads)


@functools.cache
def onnx_library_of_wheel() -> str | None:
    """The library in the wheel `onnxruntime` or `onnxruntime-gpu` of this Python, if one is installed."""
    found = importlib.util.find_spec("onnxruntime")
    for folder in (found.submodule_search_locations if found else None) or ():
        libraries = sorted(Path(folder, "capi").glob("libonnxruntime.so*"))
        if libraries:
            return str(libraries[-1])
    return None
