"""The peers' Python environments: made at first use from their locks, kept in the cache."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from headrace_control.bench.places import content_key, uv_command
from headrace_control.errors import ControlError

LOCK_NAME = "requirements.txt"


def environment_python(compare: Path, name: str, cache: Path) -> Path:
    """The interpreter of an environment, which is made if its lock or this Python is new.

    Raises:
        ControlError: `environment_failed`, with the last lines that uv printed.
    """
    lock = compare / name / LOCK_NAME
    folder = (
        cache
        / "environments"
        / f"{name}-{content_key(lock.read_text(), platform.python_version(), platform.machine())}"
    )
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        finished = folder / ".finished"
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = uv_command()
            _run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], name, cache)
            install = ["pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
            _run([*uv, *install, "--requirements", str(lock)], name, cache)
            finished.touch()
    return python


def _run(command: list[str], name: str, folder: Path) -> None:
    # From the cache folder: the settings that uv finds in a checkout are not for these environments.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        tail = " ".join(done.stderr.strip().splitlines()[-3:])
        raise ControlError(
            "environment_failed",
            f"the environment '{name}' of the bench could not be made: {tail}",
            f"check that bench/compare/{name}/{LOCK_NAME} can be installed on Python {platform.python_version()}",
        )
