"""From an exported model to a version of the project's model: its signature, and the folder that the engine makes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace import _native
from headrace.config import ModelsSection
from headrace.errors import make_error
from headrace.export.exported import ExportedModel, are_made_up
from headrace.runtimes import find_runtimes

Signature = dict[str, Any]


def create_version(
    models: Path,
    name: str,
    exported: ExportedModel,
    signature: Signature,
    runtimes: ModelsSection | None = None,
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
    created_at: str | None = None,
) -> _native.Model:
    """The next version of a model, after the engine has reproduced its golden rows.

    Args:
        models: the project's folder of models.
        name: the model's; a plain name.
        exported: from an exporter.
        signature: service, plan digest, features, join keys and request fields.
        runtimes: the settings of ONNX Runtime and of worker processes; by default without any.
        task: by default what the exporter found.
        labels: names of the classes in the order of the scores; by default what the exporter found.
        metrics: measures, in any form that JSON has.
        lineage: where the model came from, likewise.
        created_at: RFC 3339; by default now.

    Raises:
        HeadraceError: `golden_row_mismatch`, `unsupported_model`, `invalid_argument`; no version is made then.
    """
    labels = exported.labels if labels is None else labels
    draft = {
        "task": task or exported.task,
        "labels": list(labels or ()) or None,
        "format": exported.format,
        "settings": exported.settings,
        "golden": exported.golden,
        "golden_tensors": None if exported.tensors is None else {"calls": exported.tensors["calls"]},
        "signature": signature,
        "metrics": dict(metrics or {}),
        "lineage": dict(lineage or {}),
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": created_at or dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    data, files = exported.file.read_bytes(), list(exported.files)
    return _native.Model.create(models, name, json.dumps(draft), data, files, find_runtimes(runtimes))


def signature_of(
    exported: ExportedModel,
    service: Mapping[str, Any] | None,
    plan_digest: str | None,
    features: Sequence[str] | Mapping[str, str] | None,
) -> Signature:
    """What a model takes: its features in its order, and where a service finds them, the keys and request fields.

    Args:
        exported: the model; its features' names count where `features` gives none.
        service: the compiled service of the applied plan; None for a model that is given its features.
        plan_digest: of that plan.
        features: names in the model's order; a mapping gives their types too, which a service knows by itself.

    Raises:
        HeadraceError: `length_mismatch`, `unknown_feature`.
    """
    if exported.tensors is not None:
        if service is not None or features:
            message = "a model of tensors takes tensors, not features"
            raise make_error("invalid_argument", message, "leave service and features out")
        return {"features": [], "tensors": exported.tensors["signature"]}
    golden: list[list[Any]] = list(exported.golden["features"])
    count = len(golden[0])
    names = list(features or exported.features or ())
    if service is None:
        names = names or [f"f{number}" for number in range(count)]
        _check_count(names, count)
        if isinstance(features, Mapping):
            return {"features": [{"name": name, "dtype": dtype} for name, dtype in features.items()]}
        is_text = [any(isinstance(row[number], str) for row in golden) for number in range(count)]
        dtypes = ["string" if text else "float64" for text in is_text]
        return {"features": [{"name": name, "dtype": dtype} for name, dtype in zip(names, dtypes, strict=True)]}
    known = [field["name"] for field in service["features"]]
    if features is None and are_made_up(names):
        names = []
    names = names or known
    _check_count(names, count)
    for name in names:
        if name not in known:
            message = f"the feature service '{service['name']}' has no feature '{name}', which the model takes"
            hint = f"it has: {', '.join(known)}; give features=[..] where the model has other names for them"
            raise make_error("unknown_feature", message, hint)
    return service_signature(service, plan_digest, names)


def service_signature(
    service: Mapping[str, Any], plan_digest: str | None, names: Sequence[str] | None = None
) -> Signature:
    """What a model of a service's features takes: the keys that find them, and what a request must bring.

    Args:
        service: the compiled service.
        plan_digest: of its plan.
        names: features of the service, in the model's order; by default all of them, in the service's.
    """
    known = {field["name"]: field["dtype"] for field in service["features"]}
    return {
        "service": service["name"],
        "plan_digest": plan_digest,
        "features": [{"name": name, "dtype": known[name]} for name in (known if names is None else names)],
        "join_keys": service["join_keys"],
        "request_fields": service["request_fields"],
    }


def _check_count(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        message = f"{len(names)} features are named ({', '.join(names[:5])}..), the model takes {count}"
        raise make_error("length_mismatch", message, "give features=[..], one name for each, in the model's order")
