"""Amounts of memory as people write them, and what this machine has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from headrace.errors import make_error

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_bytes(given: Any, what: str) -> int:
    """Bytes from a number or from text such as "2GB" or "512 MiB".

    Raises:
        InputError: `invalid_argument`, naming `what`.
    """
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", given.strip()) if isinstance(given, str) else None
    size = round(float(found[1]) * _UNITS[found[2].upper()]) if found and found[2].upper() in _UNITS else 0
    if size <= 0:
        raise make_error(
            "invalid_argument", f"{what} is {given!r}", 'give an amount of memory such as "2GB" or "512MiB"'
        )
    return size


def machine_memory_bytes() -> int:
    """What this process may use: the memory of the machine, or the limit of its control group."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
