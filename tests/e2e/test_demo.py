"""`headrace demo` on the real flights, with small forests: every step, then the same again from what is there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from headrace_control.cli.init import make_project
from headrace_control.demo import load

Command = Callable[..., Any]
pytestmark = pytest.mark.slow
FEW = ("--flights", "1500", "--calls", "300")


@pytest.fixture(scope="module")
def demo(headrace: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo") / "flights"
    make_project(folder)
    settings = folder / "headrace.toml"
    settings.write_text(settings.read_text("utf-8").replace("rounds = 300", "rounds = 30"), "utf-8")
    done = headrace("demo", "--dir", folder, *FEW, "--json")
    assert done.status == 0, done.stdout + done.stderr
    return folder, done.json


def test_it_reads_all_of_the_package(demo: tuple[Path, dict[str, Any]]) -> None:
    rows = demo[1]["data"]["rows"]
    assert rows == {
        "flights": 336_776,
        "departed": 328_521,
        "finished": 327_346,
        "weather": 26_115,
        "planes": 3_322,
    }
    training_set = demo[1]["training_set"]
    assert training_set["joined_rows"] == 336_776
    assert training_set["rows"] == 336_776 - 9_430
    assert training_set["views"] == 7


def test_the_models_beat_the_baselines_on_later_months(demo: tuple[Path, dict[str, Any]]) -> None:
    baselines = demo[1]["baselines"]
    assert baselines["no features"] == 0.5
    for model in demo[1]["models"]:
        assert model["auc"] > baselines["carrier mean"] + 0.1


def test_everything_is_proved(demo: tuple[Path, dict[str, Any]]) -> None:
    proof = demo[1]["proof"]
    assert proof["holds"]
    assert (proof["differing_values"], proof["differing_statuses"]) == (0, 0)
    assert proof["values"] == 1500 * demo[1]["training_set"]["features"]
    assert proof["events"] > 600_000
    assert demo[1]["materialized"]["keys"] == demo[1]["materialized"]["reopened_keys"]
    assert demo[1]["served"]["same_answers"] > 0


class References(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]


def test_the_report_is_one_file_that_needs_no_other(demo: tuple[Path, dict[str, Any]]) -> None:
    path = Path(demo[1]["report"])
    text = path.read_text("utf-8")
    page = References()
    page.feed(text)
    assert [reference for reference in page.found if not reference.startswith("#")] == []
    assert page.tags.count("svg") == 4
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)


def test_a_second_run_reuses_data_and_models_and_proves_again(
    headrace: Command, demo: tuple[Path, dict[str, Any]]
) -> None:
    folder, first = demo
    done = headrace("demo", "--dir", folder, *FEW)
    assert done.status == 0, done.stderr
    assert "models unchanged" in done.stderr
    assert done.stdout.rstrip().splitlines()[-1] == f"report: {first['report']}"
    shutil.rmtree(folder, ignore_errors=True)


def test_a_folder_of_something_else_is_refused(headrace: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    done = headrace("demo", "--dir", tmp_path, "--json")
    assert done.status == 2
    assert done.error["code"] == "invalid_argument"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_answer_is_whole_when_its_length_has_come() -> None:
    reply = load.Reply()
    for part in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nab", b"cd"):
        reply.received += part
        assert not reply.is_whole()
    reply.received += b"e"
    assert reply.is_whole()
    assert (reply.status, reply.body) == (200, b"abcde")
