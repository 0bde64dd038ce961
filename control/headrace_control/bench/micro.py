"""Programs of the checkout's crates `bench/micro` and `bench/load`, which measure without Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from headrace_control.errors import ControlError

BUILD_TIMEOUT_S = 600


def cargo_program(root: Path, package: str, name: str) -> Path:
    """Builds a program with cargo, in the target folder that the checkout uses, and returns its path.

    Raises:
        ControlError: `missing_program` without cargo, `build_failed` otherwise.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise ControlError("missing_program", "cargo is not installed; the bench builds with it", "install Rust")
    command = [cargo, "build", "--release", "-p", package, "--bin", name, "--message-format", "json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S)
    built = [line for line in done.stdout.splitlines() if f'"name":"{name}"' in line and '"executable":"' in line]
    if done.returncode != 0 or not built:
        raise ControlError("build_failed", f"{name} does not build: {done.stderr[-500:]}", "see the message of cargo")
    return Path(json.loads(built[-1])["executable"])
