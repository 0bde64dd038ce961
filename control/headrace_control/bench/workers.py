"""A worker process of one environment, spoken to in JSON lines over pipes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headrace_control.errors import ControlError

CLOSE_TIMEOUT_S = 30.0
STDERR_LINES_SHOWN = 5


class WorkerError(ControlError):
    """A worker could not do what it was asked; the run goes on without that engine."""

    def __init__(self, environment: str, message: str) -> None:
        super().__init__(
            "worker_failed",
            f"the bench worker '{environment}': {message}",
            f"see bench/compare/{environment}/engines.py",
        )


class Worker:
    """One process that runs `bench/compare/host/worker.py` with the engines of one environment."""

    def __init__(self, environment: str, python: Path, compare: Path, variables: dict[str, str]) -> None:
        self.environment = environment
        self.stderr = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), str(compare / "host" / "worker.py"), environment],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env={**os.environ, **variables},
        )
        self.replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put("")

    def ask(self, op: str, timeout_s: float, **values: Any) -> dict[str, Any]:
        """Sends one message and waits for its reply.

        Raises:
            WorkerError: the engine raised, the process died, or no reply came within `timeout_s`.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"op": op, **values}) + "\n")
            self.process.stdin.flush()
            line = self.replies.get(timeout=max(timeout_s, 0.1))
        except queue.Empty:
            self.process.kill()
            raise WorkerError(self.environment, f"no reply to '{op}' within {timeout_s:.0f} s") from None
        except OSError:
            line = ""
        if not line:
            raise WorkerError(self.environment, f"it ended in '{op}': {self._last_words()}")
        reply = json.loads(line)
        assert isinstance(reply, dict)
        if "error" in reply:
            raise WorkerError(self.environment, reply["error"])
        return reply

    def block_ns(self, key: str, rows: int, block_ns: int, timeout_s: float) -> NDArray[np.uint64]:
        """Nanoseconds of each call of one timed block."""
        reply = self.ask("block", timeout_s, key=key, rows=rows, block_ns=block_ns)
        return np.frombuffer(base64.b64decode(reply["ns"]), dtype="<u8")

    def _last_words(self) -> str:
        self.process.wait(CLOSE_TIMEOUT_S)
        self.stderr.seek(0)
        lines = [line.strip() for line in self.stderr.readlines() if line.strip()]
        return " / ".join(lines[-STDERR_LINES_SHOWN:]) or f"exit status {self.process.returncode}"

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
