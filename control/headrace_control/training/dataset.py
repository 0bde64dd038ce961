"""The training set: features as they were known at each example's time, labels, and which rows are for what."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace import FeatureStore
from headrace.datasets import TimeSplit
from headrace.digests import digest_file
from headrace_control.errors import ControlError
from headrace_control.training.config import DatasetConfig
from headrace_control.training.fit import Examples, Matrix

PARTS = ("train", "validate", "test")


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows with their features.

    Attributes:
        table: the entity columns, then the features, of the rows that have a label.
        names: the features, in the service's order, which is the models' order.
        labels: 0 or 1 for two classes, else the value to foretell; one a row.
        part: 0 train, 1 validate, 2 test; one a row.
        joined_rows: rows that were joined, those without a label too.
        join_seconds: how long the point-in-time join took, reading the sources included.
    """

    config: DatasetConfig
    table: pa.Table
    names: list[str]
    labels: NDArray[np.float64]
    part: NDArray[np.int8]
    joined_rows: int
    join_seconds: float
    plan_digest: str

    @cached_property
    def features(self) -> Matrix:
        """Rows x features; null is NaN."""
        matrix = np.empty((self.table.num_rows, len(self.names)))
        for number, name in enumerate(self.names):
            matrix[:, number] = numbers(self.table[name])
        return matrix

    def rows(self, part: str) -> NDArray[np.bool_]:
        """Which rows are in a part."""
        chosen: NDArray[np.bool_] = self.part == PARTS.index(part)
        return chosen

    def examples(self, part: str) -> Examples:
        rows = self.rows(part)
        return Examples(self.features[rows], self.labels[rows])

    @property
    def part_rows(self) -> dict[str, int]:
        return {part: int(self.rows(part).sum()) for part in PARTS}

    @property
    def groups(self) -> NDArray[Any] | None:
        """The baseline's group of each row, as text; `None` when the dataset names no baseline."""
        if self.config.baseline is None:
            return None
        groups: NDArray[Any] = self.table[self.config.baseline].cast(pa.string()).fill_null("").to_numpy().astype(str)
        return groups


def build(store: FeatureStore, config: DatasetConfig, memory: str | None = None, on: str | None = None) -> TrainingSet:
    """Joins every row of the dataset's entities, then keeps those with a label.

    Args:
        store: whose features.
        config: the dataset.
        memory: what the join may hold, as `FeatureStore.get_historical_features` takes it.
        on: "ray", or None for this machine.

    Raises:
        ControlError: `missing_data`, the entities are not there; `missing_column`; `invalid_definition`, a part of the
            split would be empty or a label is neither 0 nor 1.
        headrace.HeadraceError: what the join refuses.
    """
    entities = read_entities(config)
    start = time.perf_counter()
    joined = store.get_historical_features(
        config.service,
        entities,
        event_ts_column=config.event_time,
        as_known_at=config.as_known_at or None,
        memory=memory,
        on=on,
    )
    seconds = time.perf_counter() - start
    names = joined.column_names[entities.num_columns :]
    label = joined[config.label_column]
    labelled = joined.filter(pc.is_valid(label))
    labels = numbers(labelled[config.label_column])
    if config.label_above is not None:
        labels = (labels > config.label_above).astype(np.float64)
    return TrainingSet(
        config=config,
        table=labelled,
        names=names,
        labels=labels,
        part=split(labelled, config),
        joined_rows=joined.num_rows,
        join_seconds=seconds,
        plan_digest=store.applied.digest,
    )


def read_entities(config: DatasetConfig) -> pa.Table:
    """The dataset's rows, with the columns that it names checked."""
    if not config.entities.exists():
        raise ControlError(
            "missing_data",
            f"dataset '{config.name}' reads {config.entities}, which does not exist",
            "make it (python prepare.py in the example project), or correct `entities` in headrace.toml",
        )
    try:
        table = pq.read_table(config.entities)
    except (pa.ArrowException, OSError) as error:
        raise ControlError(
            "io", f"dataset '{config.name}': {config.entities} cannot be read: {error}", "make that file again"
        ) from error
    wanted = [config.event_time, config.label_column, config.split.column]
    for name in [*wanted, *([config.baseline] if config.baseline else [])]:
        if name not in table.column_names:
            raise ControlError(
                "missing_column",
                f"dataset '{config.name}': {config.entities} has no column '{name}'",
                f"it has: {', '.join(table.column_names)}",
            )
    return table


def split(table: pa.Table, config: DatasetConfig) -> NDArray[np.int8]:
    """The part of each row, by time."""
    column = table[config.split.column]
    if not pa.types.is_timestamp(column.type):
        raise ControlError(
            "type_mismatch",
            f"dataset '{config.name}': the split's column '{config.split.column}' holds {column.type}, not timestamps",
            "split by a column of times",
        )
    if column.type.tz is None:
        column = pc.assume_timezone(column, "UTC")
    later = [
        pc.greater_equal(column, at).fill_null(True) for at in (config.split.validate_from, config.split.test_from)
    ]
    part: NDArray[np.int8] = sum(flags.to_numpy().astype(np.int8) for flags in later)
    for number, name in enumerate(PARTS):
        if name != "validate" and not (part == number).any():
            raise ControlError(
                "invalid_definition",
                f"dataset '{config.name}' has no labelled rows to {name} with: its split leaves that part empty",
                f"the times in '{config.split.column}' run from {extreme(column, 'min')} to {extreme(column, 'max')}",
            )
    return part


def extreme(column: pa.ChunkedArray, which: str) -> datetime.datetime | None:
    found: datetime.datetime | None = pc.min_max(column)[which].as_py()
    return found


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A numeric or bool column as float64, null as NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def keep(training_set: TrainingSet, store: FeatureStore) -> dict[str, Any]:
    """Keeps the training set as a version of the project's dataset of its name, and returns its lineage.

    The same rows of the same query are the same version.
    """
    config = training_set.config
    query = {
        "service": config.service,
        "entities": {"path": config.entities.name, "digest": digest_file(config.entities)},
        "event_ts_column": config.event_time,
        "as_known_at": config.as_known_at,
        "label": {"column": config.label_column, "above": config.label_above},
        "joined_rows": training_set.joined_rows,
    }
    starts = {"validate": config.split.validate_from, "test": config.split.test_from}
    made_of, _ = store.dataset_lineage(config.service, training_set.table, config.event_time)
    kept = store.datasets.put(
        config.name, training_set.table, TimeSplit(config.split.column, starts), query, made_of, store.now_us()
    )
    return {
        "dataset": config.name,
        "version": kept.version,
        "digest": kept.digest,
        "rows": training_set.table.num_rows,
        "joined_rows": training_set.joined_rows,
        "parts": training_set.part_rows,
        "plan_digest": training_set.plan_digest,
        "query": {**query, "split": kept.manifest["split"]},
        "lineage_digest": kept.manifest["content_digest"],
    }
