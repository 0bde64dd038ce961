"""The repository tests itself: its folders, its versions, and what must never be committed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"core", "native", "pyplatform", "control", "bench", "tests"}
HIDDEN_FOLDERS = {".ci"}
FILE_BYTES_MAX = 1024 * 1024

# Paths of one machine and addresses of package registries have no place in a tree that others check out.
MACHINE_PATH = re.compile(rb"(?<![\w.~$}/-])/(work|root|home)/\w")
REGISTRY_HOST = re.compile(rb"pypi\.org|pythonhosted|(index|static)\.crates\.io|registry\.npmjs|deb\.debian\.org")


def tracked() -> list[Path]:
    """The files that git tracks and that are still there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def toml(path: str) -> dict[str, object]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def test_top_level_folders_are_the_agreed_ones() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert found <= FOLDERS | HIDDEN_FOLDERS


def test_top_level_folders_are_source_roots_not_packages() -> None:
    packages = [folder for folder in FOLDERS if (ROOT / folder / "__init__.py").exists()]
    assert packages == [], "an __init__.py here would hide another distribution of the same name"
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_large_file() -> None:
    large = {
        str(path.relative_to(ROOT)): path.stat().st_size for path in tracked() if path.stat().st_size > FILE_BYTES_MAX
    }
    assert large == {}


def test_no_machine_path_and_no_registry_host() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__) or path.name == "Cargo.lock":  # Cargo.lock names its index by Cargo's own rule
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if MACHINE_PATH.search(line) or REGISTRY_HOST.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line[:160]!r}")
    assert found == []


def test_versions_agree() -> None:
    workspace = toml("Cargo.toml")["workspace"]
    control = toml("control/pyproject.toml")["project"]
    assert isinstance(workspace, dict)
    assert isinstance(control, dict)
    version = workspace["package"]["version"]
    assert control["version"] == version
    assert f"headrace=={version}" in control["dependencies"]


def test_python_floor_agrees() -> None:
    floors = {path: toml(path)["project"]["requires-python"] for path in ("pyproject.toml", "control/pyproject.toml")}  # type: ignore[index]
    assert set(floors.values()) == {">=3.11"}
    assert "abi3-py311" in (ROOT / "Cargo.toml").read_text(encoding="utf-8")


def test_extras_are_declared() -> None:
    project = toml("pyproject.toml")["project"]
    assert isinstance(project, dict)
    assert {"gpu", "numba", "ray"} <= set(project["optional-dependencies"])


def test_constraints_pin_by_hash_and_name_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    pins = re.split(r"\n(?=\S)", text.strip())
    unpinned = [pin.split()[0] for pin in pins if "==" not in pin.split()[0] or "--hash=sha256:" not in pin]
    assert unpinned == []


def test_readme_maps_every_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [folder for folder in sorted(FOLDERS) if f"{folder}/" not in readme] == []


def test_crate_map_names_every_crate() -> None:
    crate_map = (ROOT / "core/README.md").read_text(encoding="utf-8")
    crates = [path.parent.relative_to(ROOT) for path in tracked() if path.name == "Cargo.toml" and path.parent != ROOT]
    assert [str(crate) for crate in crates if f"`{crate}`" not in crate_map and "fuzz" not in crate.parts] == []


@pytest.mark.parametrize(
    "document",
    sorted(path for path in ROOT.glob("**/*.md") if ".venv" not in path.parts),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert broken == []
