"""What was applied and what was registered, as files in `.headrace/`: plans by digest, and which models use what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import _native
from headrace.errors import make_error
from headrace.files import write_atomic


@dataclass(frozen=True)
class PlanFolder:
    """`plans/sha256-<hex>.json`, one for each plan applied, and `plans/HEAD`: the digest of the one in force."""

    folder: Path

    def head(self) -> str | None:
        """The digest of the plan in force; None before the first `apply`."""
        try:
            return (self.folder / "HEAD").read_text("utf-8").strip()
        except FileNotFoundError:
            return None

    def head_mark(self) -> tuple[int, ...] | None:
        """Changes whenever another plan is put in force; cheaper to ask for than the plan."""
        try:
            status = (self.folder / "HEAD").stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def path(self, digest: str) -> Path:
        return self.folder / f"{digest.replace(':', '-')}.json"

    def load(self, digest: str) -> str:
        """The plan's JSON text.

        Raises:
            UnknownNameError: `not_found`, there is no such plan.
            StoreError: `corrupt_store`, the file is not what its name says.
        """
        path = self.path(digest)
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            raise make_error(
                "not_found", f"there is no plan {digest} in {self.folder}", "run `headrace apply`"
            ) from None
        except UnicodeDecodeError:
            text = ""
        if not text or _native.digest_bytes(text.encode()) != digest:
            raise make_error(
                "corrupt_store", f"the plan file {path} does not have the digest {digest}", "restore the file"
            )
        return text

    def load_head(self) -> str:
        """The plan in force.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
        """
        digest = self.head()
        if digest is None:
            raise make_error("not_found", f"no plan has been applied in {self.folder.parent}", "run `headrace apply`")
        return self.load(digest)

    def put(self, plan: _native.Plan) -> None:
        """Keeps the plan and puts it in force, atomically."""
        path = self.path(plan.digest)
        if not path.exists():
            write_atomic(path, plan.json.encode())
        write_atomic(self.folder / "HEAD", f"{plan.digest}\n".encode())


@dataclass(frozen=True)
class ModelUse:
    """What a registered model version takes its inputs from."""

    name: str
    version: str
    service: str | None
    features: dict[str, str]
    """Feature name -> dtype, in the model's order."""
    path: Path

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def registered_models(folder: Path) -> list[ModelUse]:
    """All model versions in `models/NAME/VERSION/`, in the order of their names and versions.

    Raises:
        StoreError: `corrupt_model`, a manifest is not JSON with a signature.
    """
    found = []
    for manifest in model_manifests(folder):
        try:
            document: dict[str, Any] = json.loads(manifest.read_text("utf-8"))
            signature = document["signature"]
            features = {feature["name"]: feature["dtype"] for feature in signature["features"]}
            service = signature["service"]
        except (ValueError, KeyError, TypeError) as error:
            raise make_error(
                "corrupt_model", f"{manifest} cannot be read: {error!r}", "restore the model's folder, or remove it"
            ) from error
        found.append(ModelUse(manifest.parts[-3], manifest.parts[-2], service, features, manifest.parent))
    return found


def model_manifests(folder: Path) -> list[Path]:
    """The manifests in `NAME/VERSION/`, lowest version first, without those that are still being written."""
    found = [path for path in folder.glob("*/*/model.json") if _is_number(path.parts[-2]) and path.parts[-3][0] != "."]
    return sorted(found, key=lambda path: (path.parts[-3], int(path.parts[-2])))


def version_numbers(folder: Path) -> list[int]:
    """The versions in a model's folder, oldest first. `007` is none: version 7 lies in `7`."""
    names = [path.name for path in folder.glob("*")]
    return sorted(int(name) for name in names if _is_number(name) and not name.startswith("0"))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
