"""`headrace top`: its figures against numpy, and its tables and documents against a server with traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocol.conftest import NOW_US
from tests.protocol.watched import Watched, watched

from headrace.errors import HeadraceError
from headrace_control.top import SORTS, Histogram, Sample, ServerFigures, figures_between, parse
from headrace_control.top.prometheus import check_url
from headrace_control.top.view import duration, size

BOUNDS = [256e-9 * 2**octave for octave in range(1, 29)]


def counted(values: np.ndarray[Any, Any]) -> Histogram:
    """As the server counts: by powers of two, and everything under the infinite bound."""
    lines = [f'h_bucket{{le="{bound}"}} {int((values < bound).sum())}' for bound in BOUNDS]
    text = "\n".join([*lines, f'h_bucket{{le="+Inf"}} {len(values)}'])
    return Histogram.of(parse(text)["h_bucket"])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_quantiles_lie_in_the_bucket_of_the_exact_ones(seed: int, quantile: float) -> None:
    values = np.random.default_rng(seed).lognormal(-8, 1.5, size=5000)
    exact = float(np.quantile(values, quantile, method="inverted_cdf"))
    found = counted(values).quantile(quantile)
    bucket = int(np.searchsorted(BOUNDS, exact, side="right"))
    assert found is not None
    assert (BOUNDS[bucket - 1] if bucket else 0.0) <= found <= BOUNDS[bucket]


def test_values_that_lie_evenly_in_a_bucket_give_exact_quantiles() -> None:
    values = np.linspace(BOUNDS[10], BOUNDS[11], 1000, endpoint=False)
    for quantile in (0.1, 0.5, 0.9):
        assert counted(values).quantile(quantile) == pytest.approx(np.quantile(values, quantile), rel=2e-3)


def test_only_what_happened_since_counts() -> None:
    early, late = np.full(900, 1e-3), np.full(100, 1.0)
    both = counted(np.concatenate([early, late]))
    median = both.since(counted(early)).quantile(0.5)
    assert median is not None
    assert 0.5 < median < 2
    # A server that has begun again has fewer than before: all of it is new.
    assert counted(late).since(both) == counted(late)
    assert counted(np.array([])).quantile(0.5) is None
    assert counted(np.full(3, 1e9)).quantile(0.5) == BOUNDS[-1], "above the last bound, that is all one knows"


def test_the_text_format_is_read_and_what_is_none_left_out() -> None:
    text = (
        '# HELP a b\n# TYPE a counter\na 1\nb{x="q\\"\\\\\\n,}",y="2"} 2.5 1700000000\nc{ 3\nd{x="1"} much\n\nb{} NaN\n'
    )
    found = parse(text)
    assert found["a"] == [({}, 1.0)]
    assert found["b"][0] == ({"x": 'q"\\\n,}', "y": "2"}, 2.5)
    assert set(found) == {"a", "b"}


def test_rates_are_of_the_time_between_and_survive_a_restart() -> None:
    def sample(at: float, requests: int, calls: int, rows: int) -> Sample:
        model = '{model="m",version="1"'
        text = f"""
            headrace_model_ready{model}}} 1
            headrace_predict_requests_total{model},outcome="ok"}} {requests}
            headrace_predict_rows_total{model},outcome="ok"}} {rows}
            headrace_model_calls_total{model},from="queue"}} {calls}
            headrace_predict_cost_seconds_total{model}}} {requests * 0.002}
        """
        return Sample("h:1", at, parse("\n".join(line.strip() for line in text.splitlines())))

    (model,) = figures_between(sample(10, 100, 10, 100), sample(12, 300, 20, 500)).models
    assert (model.requests_per_second, model.batch_rows) == (100.0, 40.0)
    assert model.cpu_seconds_per_request == pytest.approx(0.002)
    (again,) = figures_between(sample(10, 100, 10, 100), sample(12, 50, 5, 50)).models
    assert again.requests_per_second == 25.0
    (idle,) = figures_between(sample(10, 5, 5, 5), sample(12, 5, 5, 5)).models
    assert (idle.batch_rows, idle.cpu_seconds_per_request, idle.quantiles["total"]["p99"]) == (None, None, None)
    assert figures_between(sample(1, 1, 1, 1), Sample("h:1", 2, error="gone")) == ServerFigures("h:1", "gone")


def test_numbers_are_told_with_units() -> None:
    assert [duration(value) for value in (None, 2.5, 0.0123, 4.2e-5, 3e-9)] == ["", "2.5 s", "12.3 ms", "42 us", "3 ns"]
    assert [size(value) for value in (12, 2048, 3 * 2**30)] == ["12 B", "2 KiB", "3 GiB"]


def test_addresses_are_host_and_port() -> None:
    assert check_url("http://[::1]:8002/metrics") == "[::1]:8002"
    assert check_url(":8002") == "127.0.0.1:8002"
    assert check_url("8002") == "127.0.0.1:8002"
    for wrong in ("", "host", "host:0", "host:99999", "host/path:1", "https://h:1"):
        with pytest.raises(HeadraceError):
            check_url(wrong)


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Watched]:
    with watched(project, NOW_US, log="json") as server:
        yield server


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace_control", "top", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_document_tells_what_a_server_does(server: Watched, rows: Any) -> None:
    command = [sys.executable, "-m", "headrace_control", "top", "--once", "--json", "--interval", "2", "--url"]
    with subprocess.Popen([*command, server.metrics], stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            server.ask("/v1/deployments/late/predict", rows)
            server.ask("/v1/deployments/late/predict", {"entities": {"wrong": [1]}})
        assert child.stdout is not None
        document = json.loads(child.stdout.read())
    (found,) = document["servers"]
    assert (found["url"], found["error"]) == (server.metrics, None)
    totals = found["totals"]
    for name in (
        "requests_per_second",
        "resident_memory_bytes",
        "threads",
        "open_files",
        "online_keys",
        "online_bytes",
    ):
        assert totals[name] > 0, name
    late = next(model for model in found["models"] if (model["model"], model["version"]) == ("late", "2"))
    assert late["ready"]
    assert late["requests_per_second"] > 0
    assert late["batch_rows"] == 3
    assert 0 < late["cpu_seconds_per_request"] < 60
    total = late["quantiles"]["total"]
    assert 0 < total["p50"] <= total["p90"] <= total["p99"]
    for phase in ("read", "decode", "lookup", "model", "encode"):
        assert late["quantiles"][phase]["p50"] is not None, phase
    other = next(model for model in found["models"] if model["model"] == "minutes")
    assert (other["requests_per_second"], other["quantiles"]["total"]["p99"]) == (0.0, None)


def test_a_table_is_printed_without_a_terminal(server: Watched) -> None:
    done = top("--once", "--interval", "0.1", "--url", server.metrics)
    assert done.returncode == 0, done.stderr
    for part in (server.metrics, "requests/s", "late 2", "minutes 1", "encode p99"):
        assert part in done.stdout
    nobody = top("--once", "--interval", "0.1", "--url", server.metrics, "--url", "127.0.0.1:1")
    assert (nobody.returncode, "127.0.0.1:1: cannot be asked" in nobody.stdout) == (0, True)
    alone = top("--once", "--interval", "0.1", "--json", "--url", "127.0.0.1:1")
    assert alone.returncode == 1
    assert "cannot be asked" in json.loads(alone.stdout)["servers"][0]["error"]
    assert top("--url", "nowhere").returncode != 0


def test_models_can_be_sorted_by_each_key(server: Watched) -> None:
    from headrace_control.top import render, scrape

    sample = scrape(server.metrics)
    figures = figures_between(sample, sample)
    for sort in SORTS:
        render([figures], sort, keys=True)
    assert [model.model for model in sorted(figures.models, key=SORTS["model"])] == ["late", "late", "minutes", "plain"]
