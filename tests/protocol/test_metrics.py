"""The list of metrics in the documentation, against what a server exports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton
from tests.protocol.conftest import NOW_US
from tests.protocol.test_access import create_key, guarded, status
from tests.protocol.watched import collector, watched

DOCUMENT = Path(__file__).resolve().parents[2] / "core/server/observability.md"
ROW = re.compile(r"\| `((?:headrace|nv|process)_\w+)` \| (\w+) \|([\w, ]*)\|")
# Of what this server has not: a payload log, a verification, an access policy.
ELSEWHERE = re.compile(r"headrace_(payload|consistency|access|audit|tls)_")
OF_ACCESS = re.compile(r"headrace_(access|audit|tls)_")
PHASES = {"read", "decode", "lookup", "transform", "queue", "model", "encode", "total"}


def test_the_list_of_metrics_is_what_a_server_exports(project: Path, rows: Any) -> None:
    documented = {
        name: (kind, set(labels.replace(",", " ").split())) for name, kind, labels in ROW.findall(DOCUMENT.read_text())
    }
    with collector() as taken:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{taken.address}"}
        with watched(project, NOW_US, environment, log="json") as server:
            server.ask("/v1/deployments/late/predict", rows)
            page = server.metrics_page()
    exported = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    assert {name: kind for name, (kind, _) in documented.items() if not ELSEWHERE.match(name)} == exported
    for name, labels in re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} \S+$", page, re.MULTILINE):
        known = documented.get(name) or documented[f"{name}_count"]
        assert set(re.findall(r'(\w+)="', labels)) - {"le"} == known[1], name
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        value = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        assert value is not None
        assert float(value[1]) > 0


def test_the_metrics_of_an_access_policy_are_in_the_list_too(project: Path, tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    create_key(access, "plain", "predict:plain")
    with guarded(project, access) as server:
        status(f"http://{server.http}/v2/models/plain/infer", {})
        page = httpx.get(f"http://{server.metrics}/metrics").text
    documented = {name: kind for name, kind, _ in ROW.findall(DOCUMENT.read_text()) if OF_ACCESS.match(name)}
    exported = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    assert {name: kind for name, kind in exported.items() if OF_ACCESS.match(name)} == documented
    assert "headrace_access_unauthenticated_total 1" in page


def test_every_phase_is_measured_over_http_and_grpc(project: Path, rows: Any) -> None:
    with watched(project, NOW_US, log="text") as server:
        for _ in range(3):
            server.ask("/v1/deployments/late/predict", rows)
        tensor = triton.InferInput("features", [1, 2], "FP64")
        tensor.set_data_from_numpy(np.array([[1.0, 2.0]]))
        with triton.InferenceServerClient(server.grpc) as client:
            client.infer("plain", [tensor])
        page = server.metrics_page()
    for model, version, count in (("late", "2", 3), ("plain", "1", 1)):
        name = "headrace_predict_phase_seconds_count"
        found = re.findall(rf'^{name}{{model="{model}",version="{version}",phase="(\w+)"}} (\d+)$', page, re.MULTILINE)
        assert dict(found) == {phase: str(count) for phase in PHASES}, model
