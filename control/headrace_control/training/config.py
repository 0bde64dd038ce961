"""The `[[dataset]]` and `[[model]]` tables of headrace.toml, checked once, so that the rest can rely on them."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace_control.errors import ControlError

LIBRARIES = ("lightgbm", "xgboost")
TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Split:
    """Rows by time: before `validate_from` train, before `test_from` validate, the rest test."""

    column: str
    validate_from: datetime.datetime
    test_from: datetime.datetime


@dataclass(frozen=True)
class DatasetConfig:
    """A training set: which rows, which features, as of when, and what is to be foretold.

    Attributes:
        entities: Parquet file of one row an example: join keys, request fields, the event time and the label's column.
        event_time: the column of the time at which the features are read.
        as_known_at: features come only from rows that were known by the event time.
        label_above: the label is 1 where the label's column is greater; without it the column is the label.
        baseline: column whose groups' mean label is the baseline to beat.
    """

    name: str
    service: str
    entities: Path
    event_time: str
    as_known_at: bool
    label_column: str
    label_above: float | None
    split: Split
    baseline: str | None


@dataclass(frozen=True)
class ModelConfig:
    """A model to train on a dataset."""

    name: str
    dataset: str
    library: str
    task: str
    labels: tuple[str, ...]
    rounds: int
    seed: int
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    datasets: Mapping[str, DatasetConfig]
    models: Mapping[str, ModelConfig]


def load_training(project: Path) -> TrainingConfig:
    """Reads the training tables of the project's headrace.toml.

    Raises:
        ControlError: `not_a_project`, or `invalid_definition` naming the table and the key.
    """
    path = project / "headrace.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ControlError(
            "not_a_project",
            f"there is no headrace.toml in {project.resolve()}",
            "go to a project's folder, name it with --project, or make one with: headrace init NAME",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ControlError("invalid_definition", f"{path} is not valid TOML: {error}", "correct that line") from None
    datasets = [dataset(Section(table, f"[[dataset]] {number}"), project) for number, table in each(tables, "dataset")]
    models = [model(Section(table, f"[[model]] {number}")) for number, table in each(tables, "model")]
    config = TrainingConfig({one.name: one for one in datasets}, {one.name: one for one in models})
    for one in models:
        if one.dataset not in config.datasets:
            raise ControlError(
                "invalid_definition",
                f"[[model]] '{one.name}' wants the dataset '{one.dataset}', which headrace.toml does not have",
                f"add a [[dataset]] of that name, or use one of: {', '.join(config.datasets) or 'none yet'}",
            )
    return config


def each(tables: Mapping[str, Any], kind: str) -> list[tuple[int, dict[str, Any]]]:
    entries = tables.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ControlError(
            "invalid_definition", f"'{kind}' in headrace.toml is not a list of tables", f"write [[{kind}]]"
        )
    names = [entry.get("name") for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise ControlError("name_clash", f"two [[{kind}]] tables are named '{name}'", "rename one of them")
    return list(enumerate(entries, start=1))


class Section:
    """One table of headrace.toml, read key by key; what is wrong with a key is said with its table's name."""

    def __init__(self, table: Mapping[str, Any], title: str) -> None:
        self.table = dict(table)
        self.title = f"{title} ('{table['name']}')" if isinstance(table.get("name"), str) else title

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        value = self.table.pop(key, default)
        if value is ...:
            raise self.wrong(f"has no '{key}'", f"add {key} = ...")
        if value is not default and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.wrong(f"has {key} = {value!r}, which is of the wrong type", f"see the example project's '{key}'")
        return value

    def one_of(self, key: str, known: tuple[str, ...], default: Any = ...) -> str:
        value = str(self.take(key, str, default))
        if value not in known:
            raise self.wrong(f"has {key} = '{value}'", f"use one of: {', '.join(known)}")
        return value

    def section(self, key: str) -> Section:
        return Section(self.take(key, dict), f"{self.title}.{key}")

    def end(self) -> None:
        if self.table:
            raise self.wrong(f"has the unknown key '{next(iter(self.table))}'", "remove it, or correct its name")

    def wrong(self, what: str, hint: str) -> ControlError:
        return ControlError("invalid_definition", f"{self.title} {what}", hint)


def dataset(section: Section, project: Path) -> DatasetConfig:
    label = section.section("label")
    split = section.section("split")
    above = label.take("above", (int, float), None)
    config = DatasetConfig(
        name=section.take("name", str),
        service=section.take("service", str),
        entities=project / section.take("entities", str),
        event_time=section.take("event_time", str),
        as_known_at=section.take("as_known_at", bool, True),
        label_column=label.take("column", str),
        label_above=None if above is None else float(above),
        split=Split(split.take("column", str), utc(split, "validate_from"), utc(split, "test_from")),
        baseline=section.take("baseline", str, None),
    )
    for part in (label, split, section):
        part.end()
    if config.split.test_from < config.split.validate_from:
        raise split.wrong("has test_from before validate_from", "train comes first, then validate, then test")
    return config


def utc(section: Section, key: str) -> datetime.datetime:
    value: datetime.datetime = section.take(key, datetime.datetime)
    return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


def model(section: Section) -> ModelConfig:
    config = ModelConfig(
        name=section.take("name", str),
        dataset=section.take("dataset", str),
        library=section.one_of("library", LIBRARIES),
        task=section.one_of("task", TASKS, "classification"),
        labels=tuple(section.take("labels", list, [])),
        rounds=section.take("rounds", int, 300),
        seed=section.take("seed", int, 0),
        params=section.take("params", dict, {}),
    )
    section.end()
    wanted = 2 if config.task == "classification" else 0
    if len(config.labels) != wanted or not all(isinstance(label, str) for label in config.labels):
        raise section.wrong(
            f"has {len(config.labels)} labels for the task {config.task}",
            'name the two classes, the negative one first: labels = ["on_time", "late"]' if wanted else "remove labels",
        )
    if config.rounds < 1:
        raise section.wrong(f"has rounds = {config.rounds}", "train at least one tree")
    return config
