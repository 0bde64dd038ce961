"""Runs the process that drives a Ray cluster. This side never imports Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from headrace.errors import make_error

PARTITIONS_MIN = 16
"""So many at least, so that several machines have some each."""

RAY_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0"}
"""Nothing is reported to anyone outside."""


def check_installed() -> None:
    """Raises ProcessError, `unavailable`, where there is no Ray."""
    if importlib.util.find_spec("ray") is None:
        raise make_error("unavailable", "Ray is not installed", "pip install 'headrace[ray]'")


def drive(kind: str, folder: Path) -> dict[str, Any]:
    """Runs the driver on the cluster of RAY_ADDRESS, or the one of this machine; without any, Ray is started for it.

    Args:
        kind: "join" or "backfill".
        folder: holds `job.json`.

    Returns:
        What it tells.

    Raises:
        ProcessError: `unavailable`, the cluster failed.
        InputError, StoreError: what a task has met.
    """
    done = subprocess.run(
        [sys.executable, "-m", "headrace.ray_driver", kind, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **RAY_VARIABLES},
        stdin=subprocess.DEVNULL,
    )
    result = folder / "result.json"
    if not result.exists():
        last = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit status {done.returncode}"
        raise make_error(
            "unavailable", f"the {kind} on Ray failed: {last}", f"see the logs of the cluster, or {kind} without Ray"
        )
    told: dict[str, Any] = json.loads(result.read_text())
    if "error" in told:
        raise make_error(**told["error"])
    return told
