"""`headrace bench`: exit codes and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace_control.bench import Bar, Report, Result
from headrace_control.bench import run as bench_run
from headrace_control.bench.areas import serve
from headrace_control.cli import main


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """Stands in for the measuring; a test puts bars into the list."""
    bars: list[Bar] = []
    machine: dict[str, Any] = {
        "settings": {"quick": False, "seed": 1},
        "not_measured": {},
        "absolute_bars_in_calibrations": {"lookup_1_key_us": {"pointer chase": 12.5}},
    }
    results = [Result("headrace", "1", "case", 1, 2.0, 3.0, 5e5)]
    monkeypatch.setattr(bench_run, "run_area", lambda area, options, note: Report(area, machine, results, bars))
    return bars


def test_check_ends_with_1_when_a_bar_does_not_hold(measured: list[Bar], capsys: pytest.CaptureFixture[str]) -> None:
    measured += [Bar("good", 1.0, 2.0, "<="), Bar("bad", 3.0, 2.0, "<=")]
    assert call("lookup", "--check") == 1
    assert "NO" in capsys.readouterr().out
    assert call("lookup") == 0


def test_check_ends_with_0_when_all_bars_hold(measured: list[Bar]) -> None:
    measured += [Bar("good", 1.0, 2.0, "<=")]
    assert call("lookup", "--check") == 0


def test_check_ends_with_1_when_a_bar_was_not_measured(measured: list[Bar]) -> None:
    measured += [Bar("unknown", None, 2.0, "<=")]
    assert call("lookup", "--check") == 1


def test_json_goes_to_a_file_or_to_stdout(
    measured: list[Bar], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured += [Bar("good", 1.0, 2.0, "<=")]
    assert call("lookup", "--json", str(tmp_path / "r.json")) == 0
    capsys.readouterr()
    assert call("lookup", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "r.json").read_text())


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("lookup", "--peers", "memcached") == 2
    said = capsys.readouterr().err
    assert "memcached" in said
    assert "lmdb" in said


def test_a_case_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("trees", "--only", "no-such-case") == 2
    said = capsys.readouterr().err
    assert "no-such-case" in said
    assert "xgboost-500x8/1024" in said


@pytest.mark.parametrize("value", [1.5, None])
def test_bars_alone_are_a_run_unless_none_was_measured(
    value: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = [Bar("overload", value, 2.0, "<=")]
    monkeypatch.setattr(serve, "run", lambda session: session.report("serve", [], [], bars))
    plot = tmp_path / "bars.png"
    code = call("serve", "--quick", "--only", "overload-10-x-peak", "--plot", str(plot), "--json", "-")
    told = capsys.readouterr()
    if value is None:
        assert (code, plot.exists()) == (1, False)
        assert "nothing_measured" in told.err + told.out
    else:
        assert (code, plot.read_bytes()[:4]) == (0, b"\x89PNG")
        assert json.loads(told.out)["bars"][0]["value"] == value
