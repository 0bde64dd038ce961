"""The `headrace` command as a child process: what a user would start in another terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace_control.errors import ControlError

STOP_SECONDS = 15.0


def arguments(*args: str) -> list[str]:
    return [sys.executable, "-m", "headrace_control", *args]


def run_command(*args: str) -> dict[str, Any]:
    """Runs a command with `--json` to its end and gives its result.

    Raises:
        ControlError: what the command refused.
    """
    done = subprocess.run(arguments(*args), capture_output=True, text=True, check=False)
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        result = {"error": {"code": "internal", "message": done.stderr.strip()[-600:], "hint": "report this"}}
    if "error" in result:
        raise ControlError(**result["error"])
    return result


class Server:
    """`headrace serve` on free ports, with a clock that stands still; it ends with the block."""

    def __init__(self, folder: Path, now: datetime) -> None:
        options = ["--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--clock", now.isoformat(), "--json"]
        # A pipe that nobody reads would stop the server once it is full.
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self.process = subprocess.Popen(
            arguments("serve", "--project", str(folder), *options), stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            ready: dict[str, Any] = json.loads(line)
        except ValueError:
            _, said = self.process.communicate(timeout=STOP_SECONDS)
            raise ControlError(
                "unavailable", f"the server did not start: {said.strip()[-600:]}", "report this"
            ) from None
        if "error" in ready:
            self.process.wait(STOP_SECONDS)
            raise ControlError(**ready["error"])
        self.address: tuple[str, int] = (str(ready["host"]), int(ready["http_port"]))
        return self

    @property
    def said(self) -> str:
        """The end of what the server wrote to its log."""
        self.log.seek(0)
        return self.log.read().strip()[-600:]

    def stop(self) -> None:
        """Asks the server to end, and insists after a while."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.log.close()
