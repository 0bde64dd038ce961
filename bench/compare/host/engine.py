"""What an engine under measurement is to the worker that hosts it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from inputs import Array, Inputs

Call = Callable[[Array], object]


class Engine:
    """One engine, loaded with the area's data or model.

    Attributes:
        version: of the library that does the work.
        wants: which kind of input it is asked with, a key of `Inputs.kinds`.
        note: a choice that a reader of the figures should know.
    """

    version = ""
    wants = ""
    note = ""

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        """Builds the store or loads the model; not timed."""
        raise NotImplementedError

    def caller(self, rows: int) -> Call:
        """The function that one timed call runs, with its buffers already made."""
        raise NotImplementedError

    def answer(self, rows: int, asked: Array) -> Array:
        """The output of one call, copied: what the harness compares before it times anything."""
        return np.array(self.caller(rows)(asked))

    def close(self) -> None:
        """Frees what the process's end would not."""


def package(name: str) -> Any:
    """A peer's package. Imported late: a worker runs with any one of its engines, and the type checker with none."""
    return importlib.import_module(name)


def ours(name: str) -> Callable[[], Engine]:
    """One of our own engines, by its class. Imported only when it is asked for: peers are measured without it too."""

    def make() -> Engine:
        engine: Engine = getattr(package("headrace_engines"), name)()
        return engine

    return make
