"""Training sets: reads the sources of a service's views and hands them to the engine's point-in-time join."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import _native
from headrace.dtypes import DType
from headrace.errors import make_error
from headrace.frames import cast_column, take_columns, to_table
from headrace.history import read_history
from headrace.sources import AsOf, ViewRows, leave_out, read_rows


def historical_features(
    plan: _native.Plan,
    document: dict[str, Any],
    service: str,
    entity_df: Any,
    *,
    event_ts_column: str,
    as_known_at: bool | str | None,
    statuses: bool,
    threads: int | None,
    sources_root: Path,
    history_root: Path,
    now_us: int,
    as_of: AsOf | Mapping[str, AsOf] = None,
) -> pa.Table:
    """See `FeatureStore.get_historical_features`."""
    shape = json.loads(plan.service(service))
    if as_known_at is not None and not isinstance(as_known_at, bool | str):
        raise make_error("type_mismatch", f"as_known_at is {as_known_at!r}", "give True, the name of a column, or None")
    cutoff = as_known_at or None
    entities = _entities(to_table(entity_df, "the entity frame"), shape, event_ts_column, cutoff)
    sources = {}
    for name in shape["views"]:
        view = ViewRows(document, name)
        moment = as_of.get(name) if isinstance(as_of, Mapping) else as_of
        if view.is_pushed:
            rows = read_history(view, history_root / name, moment)
        elif moment is not None and view.source["format"] != "delta":
            raise make_error(
                "invalid_argument",
                f"the files of view '{name}' keep no past to read as of {moment}",
                "keep them as a Delta table, or name the views in as_of that have one: {view: version or time}",
            )
        else:
            rows = read_rows(view, sources_root, now_us, leave_out, moment)
        sources[name] = pa.Table.from_batches(rows, schema=view.schema())
    joined = _native.point_in_time_join(
        plan, service, entities, sources, event_ts_column, as_known_at=cutoff, threads=threads, statuses=statuses
    )
    counts = json.dumps(joined.counts, sort_keys=True).encode()
    table = pa.table(joined)
    return table.replace_schema_metadata({**(entities.schema.metadata or {}), b"headrace.counts": counts})


def _entities(table: pa.Table, shape: dict[str, Any], event_ts_column: str, cutoff: bool | str | None) -> pa.Table:
    """The entity frame with the columns that the join reads cast to their types; the others as they are."""
    wanted = {field["name"]: DType(field["dtype"]) for field in (*shape["join_keys"], *shape["request_fields"])}
    times = [event_ts_column] + ([cutoff] if isinstance(cutoff, str) else [])
    place = "the entity frame"
    take_columns(table, list(dict.fromkeys([*wanted, *times])), place)
    for feature in shape["features"]:
        if feature["name"] in table.column_names:
            raise make_error(
                "invalid_argument",
                f"{place} has a column '{feature['name']}', which the service '{shape['name']}' adds",
                "drop or rename the column, or set full_feature_names on the service",
            )
    for name in times:
        if wanted.get(name, "timestamp") != "timestamp":
            raise make_error(
                "invalid_argument",
                f"column '{name}' is a {wanted[name]} of service '{shape['name']}'",
                "name a column of times",
            )
        wanted[name] = DType("timestamp")
    for name, dtype in wanted.items():
        position = table.column_names.index(name)
        column = cast_column(table.column(position), dtype, f"{place}, column '{name}'")
        table = table.set_column(position, name, column)
    return table
