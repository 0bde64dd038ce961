"""Looks at the files that a plan's views read before rows are: are they there, with the columns that are named?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace import FeatureStore
from headrace.errors import nearest_hint


def check_sources(store: FeatureStore, plan: str) -> list[str]:
    """What is wrong with the views' files. Not a refusal: a file may come later than its definition.

    Args:
        store: of the project.
        plan: the plan's JSON text.
    """
    document = json.loads(plan)
    return [
        f"view '{name}': {fault}"
        for name, view in document["views"].items()
        if view["source"]["kind"] == "file"
        for fault in _faults(document, name, store.config.sources_root)
    ]


def _faults(document: dict[str, Any], name: str, root: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from headrace.sources import CREATED_TS, EVENT_TS, ViewRows

    view = ViewRows(document, name)
    source = view.source
    given = root / source["path"]
    paths = [str(given)] if given.exists() else sorted(str(path) for path in root.glob(source["path"]))
    if not paths:
        yield f"its source {given} does not exist"
        return
    kind = "json" if source["format"] == "jsonl" else source["format"]
    try:
        found = ds.dataset(paths[0] if len(paths) == 1 else paths, format=kind).schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield f"its source {given} cannot be read: {str(error).splitlines()[0]}"
        return
    words = {EVENT_TS: "event_ts", CREATED_TS: "created_ts"}
    for column, old in view.columns(True).items():
        if old not in found:
            wanted = words.get(column, "key" if column in view.keys else "field")
            wanted = f"rename of '{column}'" if column not in words and old != column else wanted
            yield f"{given} has no column '{old}' ({wanted}); {nearest_hint(old, found, 'columns')}"
    for old, new in source["rename"].items():
        if new not in view.keys and new not in view.fields:
            columns = nearest_hint(new, [*view.keys, *view.fields], "columns of the view")
            yield f"its rename gives '{old}' the name '{new}', which the view does not have; {columns}"
