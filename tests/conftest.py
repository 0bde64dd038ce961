"""Rules for every Python test: hypothesis profiles, servers that may be missing, and no silent skips in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() == "true"

# Program -> the Debian package that brings it. `.ci/run` installs all of these.
SERVER_PACKAGES = {name: name for name in ("buildah", "mmdebstrap", "podman", "redis-server", "runc")}

# Times are not asserted anywhere, so hypothesis has no deadline either. `slow` is for a deliberate long search.
settings.register_profile("fast", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("slow", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HEADRACE_HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The folder that holds Cargo.toml."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file share fixtures and stay in one process; those of e2e share a trained project."""
    for item in items:
        file = item.path.relative_to(ROOT)
        group = "e2e" if "e2e" in file.parts else str(file)
        item.add_marker(pytest.mark.xdist_group(name=group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not Path("/dev/nvidiactl").exists():
        pytest.skip("no NVIDIA GPU on this machine")
    for marker in item.iter_markers("needs_server"):
        for program in marker.args:
            if shutil.which(program) is None:
                package = SERVER_PACKAGES.get(program, program)
                pytest.skip(f"{program} not found; sudo apt-get install {package}")


def _as_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a missing server or package is a broken environment, not a reason to pass."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped in CI, where nothing may skip but GPU tests: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    allowed = item.get_closest_marker("gpu") is not None or hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not allowed:
        _as_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        _as_failure(report)
    return report
