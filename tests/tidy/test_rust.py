"""Rules of the Rust workspace that no lint checks: where dependencies point, and that tests run today's engine."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A crate may depend on crates of lower layers only; crates of one layer meet through traits in `headrace-types`.
LAYERS = {
    "headrace-types": 0,
    "headrace-cpu": 1,
    "headrace-onnx": 1,
    "headrace-workers": 1,
    "headrace-expr": 2,
    "headrace-stats": 2,
    "headrace-features": 3,
    "headrace-models": 3,
    "headrace-engine": 4,
    "headrace-protocol": 5,
    "headrace-server": 6,
    "headrace-python": 7,
    "headrace-micro": 7,
    "headrace-load": 0,  # a client and a peer: it knows nothing of the engine
    "headrace-attacks": 7,
}
# The engine is a Rust library: no Python, device or database type reaches a signature in core/.
FOREIGN = {"pyo3", "numpy", "pyo3-arrow", "cudarc", "rocksdb", "libc"}


def manifests() -> dict[str, tuple[Path, dict[str, Any]]]:
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    result = {}
    for member in workspace["members"]:
        manifest = tomllib.loads((ROOT / member / "Cargo.toml").read_text(encoding="utf-8"))
        result[manifest["package"]["name"]] = (Path(member), manifest)
    return result


def dependencies(manifest: dict[str, Any]) -> set[str]:
    tables = ("dependencies", "dev-dependencies", "build-dependencies")
    return {name for table in tables for name in manifest.get(table, {})}


def test_every_crate_has_a_layer() -> None:
    assert set(manifests()) == set(LAYERS)


def test_dependencies_point_down_only() -> None:
    upward = [
        f"{crate} -> {name}"
        for crate, (_, manifest) in manifests().items()
        for name in sorted(dependencies(manifest))
        if name in LAYERS and LAYERS[name] >= LAYERS[crate] and name != crate  # for its own tests, with a feature
    ]
    assert upward == []


def test_core_is_plain_rust() -> None:
    found = {
        crate: sorted(dependencies(manifest) & FOREIGN)
        for crate, (folder, manifest) in manifests().items()
        if folder.parts[0] == "core" and dependencies(manifest) & FOREIGN
    }
    assert found == {}


def test_unsafe_is_allowed_in_native_only() -> None:
    for crate, (folder, manifest) in manifests().items():
        lints = manifest["lints"]
        if folder.parts[0] == "native":
            assert lints["clippy"]["undocumented_unsafe_blocks"] == "warn", (
                f"{crate}: each unsafe block states why it is sound"
            )
            assert lints["rust"]["unsafe_op_in_unsafe_fn"] == "deny", crate
        else:
            assert lints == {"workspace": True}, f"{crate} must inherit unsafe_code = forbid"


def test_workspace_forbids_unsafe() -> None:
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    assert workspace["lints"]["rust"]["unsafe_code"] == "forbid"


def test_crate_roots_are_tables_of_contents() -> None:
    """A crate's lib.rs holds no logic: it says what the crate is for and lists what it offers."""
    missing = [
        str(folder)
        for folder, _ in manifests().values()
        if not (ROOT / folder / "src/lib.rs").read_text(encoding="utf-8").startswith("//!")
    ]
    assert missing == []


def digest_of_sources(root: Path) -> str:
    """The digest that native/python/build.rs describes, computed from the working tree."""
    files = [root / "Cargo.lock"]
    for folder in ("core", "native"):
        for path in (root / folder).rglob("*"):
            inner = path.relative_to(root).parts[1:-1]
            if any(part == "target" or part.startswith(".") for part in inner):
                continue
            if path.is_file() and (path.name == "Cargo.toml" or path.name.endswith((".rs", ".proto"))):
                files.append(path)
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix().encode(), path) for path in files):
        content = path.read_bytes()
        digest.update(name + b"\0" + len(content).to_bytes(8, "little") + content)
    return f"sha256:{digest.hexdigest()}"


def test_the_engine_under_test_is_built_from_this_tree() -> None:
    native = pytest.importorskip("headrace._native", reason="the core is not built: run `make setup`")
    assert native.source_digest() == digest_of_sources(ROOT), "run `make setup`: the Rust sources have changed since"
