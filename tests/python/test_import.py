from __future__ import annotations

import subprocess
import sys

import pytest

import headrace


def test_the_version_is_told_by_the_module() -> None:
    done = subprocess.run([sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"headrace {headrace.__version__}\n"


@pytest.mark.parametrize("name", headrace.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(headrace, name) is not None


def test_a_server_imports_no_frame_library() -> None:
    program = (
        "import sys, headrace.serving; print([n for n in ('numpy', 'pyarrow', 'pandas', 'numba') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
