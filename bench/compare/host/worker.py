"""The process that hosts the engines of one environment, driven by the harness over pipes.

One JSON object a line in, one out. It loads engines, answers sample inputs for comparison, and runs timed blocks; it
decides nothing. Run by the harness as `python bench/compare/host/worker.py ENVIRONMENT`.
"""

from __future__ import annotations

import base64
import gc
import importlib
import importlib.util
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from engine import Engine
from inputs import Inputs, make_inputs, windows

COMPARE = Path(__file__).parent.parent

CALLS_PREPARED_MAX = 4096
"""Inputs made ready at a time, outside the timed calls."""

MEMORY_LINES = {"Rss": "resident", "AnonHugePages": "huge_pages"}


class Host:
    """The engines of one environment and the inputs that they are asked with."""

    def __init__(self, environment: str) -> None:
        source = COMPARE / environment / "engines.py"
        spec = importlib.util.spec_from_file_location(f"engines_{environment}", source)
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.engines: dict[str, Engine] = {}
        self.inputs: dict[str, Inputs] = {}
        self.asked: dict[str, Inputs] = {}
        self.next_call: dict[tuple[str, int], int] = {}

    def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """The reply to one message of the harness.

        Raises:
            Exception: whatever the engine raises; the loop turns it into an `error` reply.
        """
        operation = getattr(self, f"on_{message.pop('op')}")
        reply = operation(**message)
        assert isinstance(reply, dict)
        return reply

    def on_hello(self) -> dict[str, Any]:
        try:
            headrace = importlib.import_module("headrace._native").__version__
        except ImportError as error:
            headrace = f"not importable: {error}"
        return {"python": platform.python_version(), "numpy": np.__version__, "headrace": headrace}

    def on_job(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """Runs a function of the environment that is no engine, such as training a model."""
        result = self.module.JOBS[name](options)
        assert isinstance(result, dict)
        return result

    def on_load(self, engine: str, key: str, data: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Makes an engine and keeps it under `key`."""
        spec = json.dumps(data, sort_keys=True)
        if spec not in self.inputs:
            self.inputs[spec] = make_inputs(data)
        start = time.perf_counter()
        loaded: Engine = self.module.ENGINES[engine]()
        loaded.load(self.inputs[spec], options)
        self.engines[key] = loaded
        self.asked[key] = self.inputs[spec]
        return {"version": loaded.version, "note": loaded.note, "load_s": time.perf_counter() - start}

    def on_pin(self, core: int) -> dict[str, Any]:
        os.sched_setaffinity(0, {core})
        return {}

    def on_answers(self, key: str, rows: int, calls: int, path: str) -> dict[str, Any]:
        """Writes the outputs of the first calls to a file."""
        engine = self.engines[key]
        asked = windows(self.asked[key].kinds[engine.wants], rows, 0, calls)
        np.save(path, np.concatenate([engine.answer(rows, one) for one in asked]))
        return {}

    def on_block(self, key: str, rows: int, block_ns: int) -> dict[str, Any]:
        """Calls one engine for at least `block_ns`; a slow one at least once. Replies with nanoseconds a call."""
        engine = self.engines[key]
        pool = self.asked[key].kinds[engine.wants]
        call = engine.caller(rows)
        first = self.next_call.get((key, rows), 0)
        clock = time.perf_counter_ns
        took: list[int] = []
        elapsed = 0
        gc.collect()
        gc.disable()
        try:
            while elapsed < block_ns:
                each = elapsed / len(took) if took else block_ns
                count = min(max(int((block_ns - elapsed) / max(each, 1)), 1), CALLS_PREPARED_MAX)
                prepared = windows(pool, rows, first, count)
                first += count
                before = len(took)
                for asked in prepared:
                    start = clock()
                    call(asked)
                    took.append(clock() - start)
                elapsed += sum(took[before:])
        finally:
            gc.enable()
        self.next_call[key, rows] = first
        return {"ns": base64.b64encode(np.array(took, dtype="<u8").tobytes()).decode()}

    def on_close(self, key: str) -> dict[str, Any]:
        self.engines.pop(key).close()
        del self.asked[key]
        return {}

    def on_memory(self) -> dict[str, Any]:
        """Resident memory in MiB, and how much of it the kernel keeps in huge pages: random reads depend on that."""
        kib = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in MEMORY_LINES:
                kib[MEMORY_LINES[name]] = int(rest.split()[0])
        return {name: value // 1024 for name, value in kib.items()}


def main() -> None:
    """Answers until the harness closes the pipe."""
    # Libraries print to stdout as they please; the protocol keeps the real one for itself.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    host = Host(sys.argv[1])
    for line in sys.stdin:
        try:
            reply = host.handle(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
