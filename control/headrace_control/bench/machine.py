"""What the figures were measured on, and the costs of this machine that no engine can avoid."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from headrace_control.bench.places import content_key
from headrace_control.errors import ControlError

CALIBRATION_TIMEOUT_S = 60


def describe_machine() -> dict[str, Any]:
    """Hardware and system, without names of hosts or users."""
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "caches": _caches(),
        "transparent_huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _first_value(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
            found[f"L{level} {kind}"] = (index / "size").read_text().strip()
        except OSError:
            continue
    return found


def _chosen(path: str) -> str | None:
    """The bracketed word of a kernel setting."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    return text[text.find("[") + 1 : text.find("]")] if "[" in text else text.strip()


def calibrate(root: Path, cache: Path, core: int | None) -> dict[str, Any]:
    """Pointer chase, system call and loopback round trip: free to use every core, and on the one core of the workers.

    Raises:
        ControlError: `missing_program` without rustc, `calibration_failed` otherwise.
    """
    program = _calibration_program(root, cache)
    figures = {"any_core": _run(program, None)}
    if core is not None:
        figures["one_core"] = _run(program, core)
    return figures


def _calibration_program(root: Path, cache: Path) -> Path:
    source = root / "bench" / "micro" / "src" / "bin" / "calibrate.rs"
    program = cache / f"calibrate-{content_key(source.read_text(), platform.machine())}"
    if program.exists():
        return program
    compiler = shutil.which("rustc")
    if compiler is None:
        raise ControlError(
            "missing_program", "rustc is not installed; the bench calibrates with it", "install Rust 1.90 or newer"
        )
    unfinished = program.with_suffix(".partial")
    command = [compiler, "--edition", "2024", "-O", "-o", str(unfinished), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ControlError(
            "calibration_failed", f"{source} does not compile: {done.stderr}", "see the message of rustc"
        )
    unfinished.replace(program)
    return program


def _run(program: Path, core: int | None) -> dict[str, float]:
    # A child inherits the cores that its parent may use at the moment it starts.
    before = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=CALIBRATION_TIMEOUT_S)
    finally:
        os.sched_setaffinity(0, before)
    if done.returncode != 0:
        raise ControlError("calibration_failed", f"the calibration ended with {done.stderr}", "run it again")
    figures = json.loads(done.stdout)
    return {str(name): float(value) for name, value in figures.items()}
