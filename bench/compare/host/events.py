"""Events of entities in three views, in no order, and rows that ask for the newest before their time.

In memory for the join beside peers; as Parquet files, made in pieces, for joins that are larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VIEWS = 3
FEATURES = 2
"""Features of each view."""

SPAN_MS = 90 * 86_400_000
"""Events and questions lie within 90 days."""

LEVELS = 256
"""Values of a feature: few, so that 200 million events make a file of about 1.5 GB."""

PIECE_ROWS = 1 << 20


def view_name(view: int) -> str:
    return f"view{view}"


def feature_name(view: int, feature: int) -> str:
    return f"f{view}{feature}"


def feature_names() -> list[str]:
    return [feature_name(view, feature) for view in range(VIEWS) for feature in range(FEATURES)]


@dataclass
class EventInputs:
    """`events` events in all views together, of `keys` entities; a call asks with consecutive rows of a pool.

    Attributes:
        keys: entities; their keys are sparse, as identifiers of users are.
        events: in memory; 0 when they are in files.
        pool_rows: rows that ask.
    """

    keys: int
    events: int
    pool_rows: int
    seed: int
    kinds: dict[str, Any] = field(init=False)
    views: list[dict[str, Array]] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 3])
        ids = identifiers(self.keys, self.seed)
        self.asked_keys = ids[rng.integers(0, self.keys, self.pool_rows)]
        self.asked_ms = rng.integers(0, SPAN_MS, self.pool_rows)
        self.kinds = {"rows": range(self.pool_rows)}
        self.views = []
        for view in range(VIEWS if self.events else 0):
            pieces = [piece for _, piece in pieces_of(view, self.events, self.keys, self.seed)]
            self.views.append({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]})


def identifiers(keys: int, seed: int) -> NDArray[np.int64]:
    """Distinct keys of 31 bits, in no order."""
    rng = np.random.default_rng([seed, 4])
    drawn = np.unique(rng.integers(0, 2**31, keys + keys // 64 + 64, dtype=np.int64))
    return rng.permutation(drawn)[:keys]


def pieces_of(view: int, events: int, keys: int, seed: int) -> Any:
    """The events of a view in pieces: number, and columns `key`, `ms` and the features."""
    ids = identifiers(keys, seed)
    rows = events // VIEWS
    for number, start in enumerate(range(0, rows, PIECE_ROWS)):
        count = min(PIECE_ROWS, rows - start)
        rng = np.random.default_rng([seed, 5, view, number])
        piece: dict[str, Array] = {
            "key": ids[rng.integers(0, keys, count)],
            "ms": rng.integers(0, SPAN_MS, count),
        }
        for feature in range(FEATURES):
            piece[feature_name(view, feature)] = rng.integers(0, LEVELS, count).astype(np.float32)
        yield number, piece


def write_events(options: dict[str, Any]) -> dict[str, Any]:
    """A job of the harness: the views' events as Parquet files in `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(options["folder"])
    sizes = {}
    for view in range(VIEWS):
        features = [feature_name(view, feature) for feature in range(FEATURES)]
        schema = pa.schema(
            [("key", pa.int64()), ("at", pa.timestamp("ms", "UTC")), *((name, pa.float32()) for name in features)]
        )
        path = folder / f"{view_name(view)}.parquet"
        with pq.ParquetWriter(
            path,
            schema,
            compression="none",
            use_dictionary=["key", *features],
            column_encoding={"at": "DELTA_BINARY_PACKED"},
            write_statistics=False,
        ) as writer:
            for _, piece in pieces_of(view, options["events"], options["keys"], options["seed"]):
                columns = [piece["key"], piece["ms"], *(piece[name] for name in features)]
                arrays = [pa.array(column) for column in columns]
                arrays[1] = arrays[1].cast(schema.field("at").type)
                writer.write_table(pa.table(arrays, schema=schema))
        sizes[path.name] = path.stat().st_size
    return {"bytes": sizes}
