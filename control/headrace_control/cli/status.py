"""`headrace status`: what is applied, materialized and registered."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import UTC_TIME
from headrace_control.errors import describe

if TYPE_CHECKING:
    from headrace import FeatureStore


@click.command("status", epilog=epilog("headrace status", "headrace status --json --project my_project"))
@project_option
@json_option
@click.option("--clock", type=UTC_TIME, help="Reckon ages from this time; the default is now.")
def command(project: Path, as_json: bool, clock: datetime.datetime | None) -> None:
    """Show the plan in force, the rows and intervals of the online table, and the registered models.

    An interval says which event times were loaded; its newest row may be older than its end. Reading needs no lock: a
    server may run.
    """
    from rich.table import Table

    from headrace_control.projects import open_store

    with open_store(project, clock) as store:
        values = examine(store)
    views = Table("view", "key", "materialized", "interval ended", box=None, pad_edge=False)
    for name, view in values["views"].items():
        spans = "; ".join(f"{start or 'the beginning'} to {end}" for start, end in view["intervals"])
        views.add_row(name, ", ".join(view["keys"]), spans or "not yet", age(view["age_seconds"]))
    tables = Table("online table", "keys", "bytes", box=None, pad_edge=False)
    for name, table in values["tables"].items():
        tables.add_row(name or "(no key)", f"{table['keys']:,}", f"{table['used_bytes']:,}")
    models = Table("model", "version", "service", "measure on test", box=None, pad_edge=False)
    for model in values["models"]:
        models.add_row(model["name"], str(model["version"]), model["service"] or "", model["measure"])
    state = "in force" if values["applied"] else "nothing applied yet: headrace apply"
    if values["changes"]:
        state += "; the definitions differ from it: headrace plan"
    if values["definitions_error"]:
        state += f"; the definitions are wrong: {values['definitions_error']}"
    lines = [f"project {values['project']}", f"plan {values['plan_digest'] or 'none'} ({state})", ""]
    Output(as_json).result(values, *lines, views, "", tables, "", models)


def examine(store: FeatureStore) -> dict[str, Any]:
    """The state of a project."""
    digest = store.plans.head()
    changes, problem = False, None
    try:
        changes = bool(store.plan())
    except Exception as error:
        known = describe(error)
        if known is None:
            raise
        problem = known[1]
    values: dict[str, Any] = {
        "project": str(store.config.root),
        "plan_digest": digest,
        "applied": digest is not None,
        "changes": changes,
        "definitions_error": problem,
        "views": {},
        "tables": {},
        "rows_written": 0,
        "models": models(store),
    }
    if digest is not None:
        online = store.open_online()
        values["views"] = views(store)
        values["tables"] = online.local.stats()
        values["rows_written"] = online.next_sequence
    return values


def views(store: FeatureStore) -> dict[str, Any]:
    from headrace_control.projects import from_us

    plan = json.loads(store.applied.json)
    online = store.open_online()
    found = {}
    for name, view in plan["views"].items():
        spans = online.intervals(name)
        keys = [key["name"] for entity in view["entities"] for key in plan["entities"][entity]["join_keys"]]
        newest = max((end for _, end in spans), default=None)
        found[name] = {
            "keys": keys,
            "online": view["online"],
            "intervals": [
                [None if start is None else from_us(start).isoformat(), from_us(end).isoformat()]
                for start, end in spans
            ],
            "age_seconds": None if newest is None else (store.now_us() - newest) / 1e6,
        }
    return found


def models(store: FeatureStore) -> list[dict[str, Any]]:
    from headrace.registry import registered_models

    found = []
    for use in registered_models(store.config.state / "models"):
        manifest = json.loads((use.path / "model.json").read_text("utf-8"))
        test = manifest.get("metrics", {}).get("test", {})
        measure = next((f"{name} {test[name]:.4f}" for name in ("auc", "rmse") if name in test), "")
        found.append(
            {
                "name": use.name,
                "version": int(use.version),
                "service": use.service,
                "task": manifest["task"],
                "digest": (use.path / "digest").read_text("utf-8").strip(),
                "measure": measure,
                "path": str(use.path),
            }
        )
    return found


def age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{datetime.timedelta(seconds=round(abs(seconds)))} {'ago' if seconds >= 0 else 'ahead'}"
