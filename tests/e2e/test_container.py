"""The image of control/container is built over a Debian made here, run as in production, asked, and stopped."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONTAINER = Path(__file__).resolve().parents[2] / "control" / "container"
BASE = "localhost/headrace-test-base"
IMAGE = "localhost/headrace-test"
USER = 10001
SECONDS_MAX = 280
STOP_SECONDS = 20
HARDENED = ["--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--no-healthcheck"]

SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

DEFINITIONS = """
from headrace import Entity, FeatureService, FeatureView, Field, Float64, Int64, PushSource

customer = Entity("customer", join_keys=[Field("customer_id", Int64)])
orders = FeatureView("orders", [customer], [Field("spent", Float64)], PushSource(event_ts="at"))
buyer = FeatureService("buyer", [orders])
"""

PREPARE = """
import datetime as dt
import sys

import numpy as np
from sklearn.linear_model import LinearRegression

from headrace import FeatureStore
from headrace.export import export_sklearn

rows = np.linspace(0, 10, 40).reshape(-1, 1)
with FeatureStore(sys.argv[1]) as store:
    store.apply()
    store.push("orders", {"customer_id": [7], "at": [dt.datetime.now(dt.UTC)], "spent": [4.0]})
    exported = export_sklearn(LinearRegression().fit(rows, 2 * rows[:, 0]), sys.argv[2], golden=rows)
    store.register_model("doubled", exported, service="buyer")
"""

# Runs in the container, where the policy lets this key predict and nothing else.
ASK = """
import sys, urllib.request as web
body = b'{"entities": {"customer_id": [7]}}'
asked = web.Request("http://127.0.0.1:8000/v1/deployments/doubled/predict", body, {"X-API-Key": sys.argv[1]})
print(web.urlopen(asked, timeout=10).read().decode())
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.needs_server("buildah", "podman", "runc", "mmdebstrap"),
]


def done(*command: object, **options: object) -> str:
    """What a command printed; an assertion with its errors when it failed."""
    ended = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
        **options,  # type: ignore[call-overload]
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
    return str(ended.stdout)


class Engine:
    """Buildah and podman over one storage, which ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "containers.conf"
        self.settings.write_text(SETTINGS)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(self.settings)}
        self.storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]

    def buildah(self, *args: object) -> str:
        return done("buildah", *self.storage, *args, env=self.environment)

    def podman(self, *args: object) -> str:
        return done(*self.podman_command(*args), env=self.environment)

    def podman_command(self, *args: object) -> list[str]:
        return [str(part) for part in ("podman", *self.storage, "--tmpdir", self.folder / "tmp", *args)]

    def try_podman(self, *args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.podman_command(*args),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=SECONDS_MAX,
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian with Python from where this machine's apt takes its packages; made once a machine."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "container"
    kept = cache / f"base-{codename}-{platform.machine()}-1.tar"
    if not kept.exists():
        work = tmp_path_factory.mktemp("base")
        (work / "apt.conf").write_text(done("apt-config", "dump", "Acquire"))
        form = "deb $(SITE) $(RELEASE) $(COMPONENT)"
        sources = done(
            "apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian", "Component: main"
        )
        assert sources, "apt knows no source of Debian: apt-get update"
        options = ["--variant=essential", "--include=python3-venv,libstdc++6", f"--aptopt={work / 'apt.conf'}"]
        done("mmdebstrap", *options, codename, work / "base.tar", "-", input=sources)
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(work / "base.tar", cache / f"{kept.name}.{os.getpid()}")
        (cache / f"{kept.name}.{os.getpid()}").rename(kept)
    return kept


@pytest.fixture(scope="module")
def engine(base: Path) -> Iterator[Engine]:
    """With the image in its storage."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-"))  # podman takes no run folder of more than 50 characters
    engine = Engine(folder)
    try:
        (folder / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        shutil.copy(base, folder / "base.tar")
        engine.buildah("bud", "--quiet", "--isolation=chroot", "-t", BASE, "-f", folder / "Containerfile", folder)
        asked = ["run", "--rm", "--network=none", BASE, "python3", "-c"]
        version = engine.podman(*asked, "import sys; print('{}.{}'.format(*sys.version_info))").strip()
        context = folder / "context"
        done(CONTAINER / "wheels", context, version)
        build = ["bud", "--quiet", "--isolation=chroot", "--format=docker", f"--build-arg=BASE={BASE}"]
        engine.buildah(*build, "-t", IMAGE, "-f", CONTAINER / "Containerfile", context)
        yield engine
    finally:
        engine.try_podman("rm", "--all", "--force", "--time=0")
        engine.try_podman("rmi", "--all", "--force")
        subprocess.run(["umount", folder / "root" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def served_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with a model and a policy, which belongs to the image's user; and the key."""
    folder = tmp_path_factory.mktemp("mounted") / "project"
    (folder / "features").mkdir(parents=True)
    (folder / "headrace.toml").write_text("")
    (folder / "features" / "customers.py").write_text(DEFINITIONS)
    done(sys.executable, "-c", PREPARE, folder, folder.parent / "model")
    create = ["keys", "create", "test", "--scopes", "predict:doubled", "--write", folder / "access.toml", "--json"]
    key = json.loads(done(sys.executable, "-m", "headrace_control", *create))["key"]
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, USER, USER)
    return folder, key


def test_without_a_policy_it_does_not_start(engine: Engine, served_project: tuple[Path, str]) -> None:
    ended = engine.try_podman("run", "--rm", *HARDENED, f"--volume={served_project[0]}:/project", IMAGE)
    assert ended.returncode == 1
    assert "nothing says who may do what" in ended.stderr


def test_it_answers_hardened_and_ends_with_the_signal(engine: Engine, served_project: tuple[Path, str]) -> None:
    folder, key = served_project
    mounted = [f"--volume={folder}:/project", "--env=HEADRACE_SERVER_ACCESS=access.toml"]
    name = engine.podman("run", "--detach", *HARDENED, *mounted, IMAGE).strip()
    try:
        health = json.loads(engine.podman("image", "inspect", IMAGE))[0]["Healthcheck"]["Test"][1:]
        deadline = time.monotonic() + 60
        while (probe := engine.try_podman("exec", name, *health)).returncode != 0:
            told = engine.try_podman("logs", name)
            assert time.monotonic() < deadline, told.stdout + told.stderr + probe.stderr
            time.sleep(0.2)
        answer = json.loads(engine.podman("exec", name, "python", "-c", ASK, key))
        assert answer["predictions"][0]["value"] == pytest.approx(8.0)
        refused = engine.try_podman("exec", name, "python", "-c", ASK, "hr_wrong")
        assert "401" in refused.stderr

        status = dict(
            line.split(":\t", 1) for line in engine.podman("exec", name, "cat", "/proc/1/status").splitlines()
        )
        assert status["Uid"].split() == [str(USER)] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert "Read-only file system" in engine.try_podman("exec", name, "touch", "/opt/headrace/new").stderr

        engine.podman("stop", f"--time={STOP_SECONDS}", name)
        state = json.loads(engine.podman("inspect", name))[0]["State"]
        assert state["ExitCode"] == 0, "137 is the end of a server that the signal did not stop in time"
    finally:
        engine.try_podman("rm", "--force", "--time=0", name)
