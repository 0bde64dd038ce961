"""The plot of `headrace explain`, of made-up contributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace_control.explanations import Summary, _swarm, draw


@pytest.mark.parametrize("outputs", [("margin",), ("a $x$ \\foo$", "_b", "c" * 500)])
def test_names_are_drawn_as_they_are_whatever_they_hold(outputs: tuple[str, ...], tmp_path: Path) -> None:
    rows = np.array([[1.0, np.nan, 0.0, 5.0], [np.nan, np.nan, 0.0, -5.0]])
    values = np.repeat(np.nan_to_num(np.c_[rows, [0.5, 0.5]])[:, None], len(outputs), 1)
    names = ("$one$ \\foo$", "$", "_", "x" * 500)
    magnitude = np.abs(values[:, :, :-1]).mean(axis=0)
    plot = tmp_path / "plot.png"
    draw(Summary(2, outputs, names, values[0, :, -1], magnitude, [rows], [values]), "$ \\bad$", plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_swarm_is_as_thick_as_values_are_many() -> None:
    values = np.r_[np.zeros(99), np.linspace(1, 2, 10)]
    heights = _swarm(values)
    assert np.abs(heights).max() == pytest.approx(0.4)
    assert len(set(heights[:99])) == 99
    assert not heights[99:].any()
    assert np.array_equal(_swarm(np.full(3, 7.0)), 0.4 * np.array([0, -1, 1]) / 6)
