"""Networks of dense layers, one thread: the native kernels beside ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from headrace_control.bench.measure import Point, measure
from headrace_control.bench.places import content_key
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Session

TITLE = "Networks from Python, one thread: float32 rows in, margins out"
ROWS = (1, 16, 1024)
ENVIRONMENT = "networks"
PEERS = ("onnxruntime",)
ENGINES = (OURS, *PEERS)

TOLERANCE = 1e-5
"""Both sum in float32, each in an order of its own."""


@dataclass(frozen=True)
class Network:
    """What is trained; everything in it is part of the cache's key."""

    case: str
    features: int
    layers: tuple[int, ...]
    activation: str = "relu"


NETWORKS = (
    Network("50-256-256-1", 50, (256, 256)),
    Network("20-32-1", 20, (32,)),
    Network("300-512-512-512-1", 300, (512, 512, 512)),
    Network("50-256-256-1-tanh", 50, (256, 256), "tanh"),
    Network("50-256-256-1-logistic", 50, (256, 256), "logistic"),
)
QUICK_NETWORKS = NETWORKS[:1]
POINTS = [(network.case, count) for network in NETWORKS for count in ROWS]


def _bars() -> tuple[BarRule, ...]:
    def rule(case: str, rows: int, target: float) -> BarRule:
        plural = "row" if rows == 1 else "rows"
        name = f"mlp_{case.replace('-', '_')}_{rows}_{plural}_onnxruntime_over_headrace"
        return BarRule(name, target, ">=", case, rows, "onnxruntime", OURS)

    named, *others = NETWORKS
    bars = [rule(named.case, rows, 2.0 if rows == 1 else 1.0) for rows in ROWS]
    return (*bars, *(rule(network.case, rows, 1.0) for network in others for rows in ROWS))


BARS = _bars()


def run(session: Session, networks: tuple[Network, ...] | None = None) -> Report:
    """Trains or finds the networks, loads them into both engines, and predicts."""
    settings = session.settings
    networks = networks or (QUICK_NETWORKS if settings.quick else NETWORKS)
    points = []
    for network in networks:
        rows = [count for count in ROWS if settings.takes_point(network.case, count)]
        if not rows:
            continue
        folder = trained_network(session, network)
        data = {"area": "trees", "features": network.features, "seed": settings.seed}
        options = {"folder": str(folder)}
        # The peer is the reference of the comparison, so it is always there.
        loaded = [session.load(one, ENVIRONMENT, f"{one} {network.case}", data, options) for one in ENGINES]
        engines = [one for one in loaded if one is not None]
        points += [Point(network.case, count, engines, "onnxruntime", {OURS: TOLERANCE}) for count in rows]
    session.pin_workers()
    judged = [rule for rule in BARS if any(rule.case == network.case for network in networks)]
    return session.report("mlp", measure(session, points), judged)


def trained_network(session: Session, network: Network) -> Path:
    """The folder with the network's files in the cache, trained at first use.

    Raises:
        ControlError: the environment cannot be made or training fails.
    """
    versions = session.worker(ENVIRONMENT).ask("job", JOB_TIMEOUT_S, name="versions", options={})
    recipe = {
        "features": network.features,
        "layers": network.layers,
        "activation": network.activation,
        "seed": session.settings.seed,
    }
    folder = session.cache / "networks" / f"{network.case}-{content_key(recipe, versions)}"
    about = folder / "about.json"
    if not about.exists():
        session.note(f"train {network.case}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # A process of its own: training may use every core, and its memory goes with it.
        with session.start_worker(ENVIRONMENT, {}) as trainer:
            made = trainer.ask("job", JOB_TIMEOUT_S, name="train", options={**recipe, "path": str(folder)})
        about.write_text(json.dumps({"recipe": recipe, "versions": versions, **made}))
    # The engine registers a version at each run; those of former runs are not needed.
    shutil.rmtree(folder / "models", ignore_errors=True)
    return folder
