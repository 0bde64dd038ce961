"""Where the harness finds things: the checkout's `bench/`, the cache folder, uv, and the engine to put beside peers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from headrace_control.errors import ControlError


def checkout() -> Path:
    """The root of the source tree that this package runs from.

    Raises:
        ControlError: `missing_data`, when it runs from a wheel: the peers' code is not in it.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "bench" / "compare" / "host" / "worker.py").is_file():
        raise ControlError(
            "missing_data",
            f"there is no folder bench/ in {root}: the bench runs from a checkout, not from a wheel",
            "clone the repository, run `make setup` in it, then .venv/bin/headrace bench",
        )
    return root


def cache_folder() -> Path:
    """Environments, trained models and calibration: `HEADRACE_BENCH_CACHE`, or `headrace/bench` in the user's cache."""
    named = os.environ.get("HEADRACE_BENCH_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else base / "headrace" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def uv_command() -> list[str]:
    """How to run uv: of this environment, or of the PATH.

    Raises:
        ControlError: `missing_package`.
    """
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    if found is None:
        raise ControlError(
            "missing_package", "uv is not installed; the bench makes the peers' environments with it", "pip install uv"
        )
    return [found]


def content_key(*parts: Any) -> str:
    """A short name for a cached thing, made of everything that it depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def engine_overlay(cache: Path) -> Path | None:
    """A folder that holds nothing but a link to the `headrace` of this process, for the workers' PYTHONPATH.

    The wheel's own folder would do, but beside it lie the packages of this environment, which a peer's environment must
    not see. `None` when headrace is not installed.
    """
    spec = importlib.util.find_spec("headrace")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).resolve().parent
    overlay = cache / "engine" / content_key(str(package))
    overlay.mkdir(parents=True, exist_ok=True)
    link = overlay / "headrace"
    if not link.is_symlink():
        link.symlink_to(package)
    return overlay
