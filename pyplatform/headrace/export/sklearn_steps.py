"""What the transformers of a pipeline do, as operations on columns (core/models/README.md says what each means)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.errors import HeadraceError, make_error
from headrace.export.exported import library

Operation = str | dict[str, Any]


@dataclass
class Categories:
    """The categories of an input, if it is text; their places are their codes.

    Attributes:
        name: what messages call the input.
        is_text: whether golden rows or a transformer hold texts of it.
        is_number: whether golden rows hold numbers of it.
        words: the codes of the texts.
        known: of each transformer that raises an error for others, what it knows.
        refuses_missing: whether one of them knows no missing value either.
    """

    name: str
    is_text: bool = False
    is_number: bool = False
    words: dict[str, int] = field(default_factory=dict)
    known: list[frozenset[str]] = field(default_factory=list)
    refuses_missing: bool = False

    def code(self, word: str) -> float:
        self.is_text = True
        return float(self.words.setdefault(word, len(self.words)))

    def described(self) -> dict[str, Any]:
        if not self.is_text:
            return {}
        described: dict[str, Any] = {"categories": list(self.words)}
        if self.known:
            if any(known != self.words.keys() for known in self.known):
                message = f"transformers of {self.name} know different categories, and one of them raises for others"
                raise refuse(message, "set handle_unknown='ignore', or encode the column once")
            described["unknown"] = "error"
            if self.refuses_missing:
                described["missing"] = "error"
        return described


@dataclass(frozen=True)
class Column:
    """A column of the prepared rows: where it comes from and what is done to it.

    Attributes:
        source: the column of the stage before.
        operations: what is done to it.
        categories: of the input that it still is, codes in the place of texts; None once numbers were made of it.
        is_filled: whether no value of it is missing any more.
    """

    source: int
    operations: tuple[Operation, ...] = ()
    categories: Categories | None = field(default=None, compare=False)
    is_filled: bool = field(default=False, compare=False)

    def then(self, *operations: Operation) -> Column:
        """A column of numbers, made of numbers."""
        self.check_number()
        return Column(self.source, (*self.operations, *operations))

    def encoded(self, *operations: Operation) -> Column:
        """A column of numbers, made of categories."""
        return Column(self.source, (*self.operations, *operations))

    def filled(self, operation: Operation) -> Column:
        """The same values, and none is missing."""
        return Column(self.source, (*self.operations, operation), self.categories, is_filled=True)

    def check_number(self) -> None:
        if self.categories is not None and self.categories.is_text:
            message = f"{self.categories.name} is text, and reaches a step that takes numbers"
            raise refuse(message, "encode it by a OneHotEncoder, OrdinalEncoder or TargetEncoder")

    def code(self, category: Any, what: str) -> float | None:
        """A category as the engine is given it: a number, the code of a text, or None where it is missing.

        Raises:
            HeadraceError: `unsupported_model`, when it is none of these.
        """
        is_text = isinstance(category, str) and self.categories is not None and not self.categories.is_number
        if self.categories is None or not (self.categories.is_text or is_text):
            return number(category, what)
        if isinstance(category, str):
            return self.categories.code(str(category))
        if category is None or category != category:
            return None
        raise refuse(f"{what} is {category!r}, where others are texts", "make all categories of the column texts")

    def codes(self, categories: Any, what: str) -> list[float | None]:
        # Texts first: a missing value alone does not say that the column is text.
        ordered = sorted(range(len(categories)), key=lambda place: not isinstance(categories[place], str))
        found = {place: self.code(categories[place], what) for place in ordered}
        codes = [found[place] for place in range(len(categories))]
        if codes.count(None) > 1:
            raise refuse(f"{what} is both None and NaN", "use one of them for a missing value")
        return codes

    def refuse_others(self, categories: Any) -> None:
        """Notes that the library raises an error for any category but these, if they are texts."""
        if self.categories is None or not self.categories.is_text:
            return
        self.categories.known.append(frozenset(str(word) for word in categories if isinstance(word, str)))
        knows_missing = any(not isinstance(word, str) for word in categories)
        self.categories.refuses_missing |= not (knows_missing or self.is_filled)

    def described(self) -> dict[str, Any]:
        return {"from": self.source, "operations": list(self.operations)}


@dataclass
class Preparation:
    """Stages in the order of the pipeline; `columns` is the stage that is still being made."""

    columns: list[Column]
    stages: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[Categories] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        inputs_count: int,
        names: Sequence[str] | None = None,
        texts: Sequence[int] = (),
        numbers: Sequence[int] = (),
    ) -> Preparation:
        """Nothing is done yet; `texts` and `numbers` are the inputs that are known to be so."""
        called = [f"input {index}" if names is None else f"input '{names[index]}'" for index in range(inputs_count)]
        inputs = [Categories(name, index in texts, index in numbers) for index, name in enumerate(called)]
        return cls([Column(index, categories=inputs[index]) for index in range(inputs_count)], inputs=inputs)

    def end_stage(self) -> None:
        self.stages.append({"columns": [column.described() for column in self.columns]})
        kept = [(column.categories, column.is_filled) for column in self.columns]
        self.columns = [Column(index, (), *of) for index, of in enumerate(kept)]

    def check_numbers(self) -> None:
        for column in self.columns:
            column.check_number()

    def described(self, inputs_count: int) -> list[dict[str, Any]]:
        """All stages; none if the pipeline's inputs are the columns."""
        self.check_numbers()
        if self.columns == Preparation.of(inputs_count).columns and not self.stages:
            return []
        self.end_stage()
        return self.stages


def refuse(message: str, hint: str) -> HeadraceError:
    return make_error("unsupported_model", message, hint)


def is_of_library(step: Any) -> bool:
    """Whether the class is scikit-learn's own: what a class of somebody else's does is not known."""
    return type(step).__module__.startswith("sklearn.")


def kind_of(step: Any) -> str:
    """The class of an estimator of scikit-learn; of somebody else's, its full name, which is in no table."""
    kind = type(step)
    return kind.__name__ if is_of_library(step) else f"{kind.__module__}.{kind.__qualname__}"


def named(step: Any, rows: Any) -> Any:
    """Rows as the step was fitted on them: a frame, if it knows the names of its columns."""
    names = getattr(step, "feature_names_in_", None)
    return rows if hasattr(rows, "columns") or names is None else library("pandas").DataFrame(rows, columns=names)


def transform(preparation: Preparation, step: Any) -> None:
    """Adds a fitted transformer to the preparation.

    Raises:
        HeadraceError: `unsupported_model`, naming the transformer and what of it has no counterpart.
    """
    if step is None or isinstance(step, str):
        if step in (None, "passthrough"):
            return
        raise refuse(f"a step of the pipeline is {step!r}", "leave it out")
    kind = kind_of(step)
    if kind in DTYPE_OF_ANSWER and step.dtype is not None:
        _refuse_narrow(kind, np.dtype(step.dtype))
    if kind == "Pipeline":
        for _, inner in step.steps:
            transform(preparation, inner)
    elif kind == "Normalizer":
        preparation.check_numbers()
        preparation.end_stage()
        preparation.stages.append({"normalize": step.norm})
    elif kind == "PolynomialFeatures":
        _polynomial_features(preparation, step)
    elif kind == "FunctionTransformer" and _is_identity(step.func):
        return
    elif kind in STEPS:
        preparation.columns = STEPS[kind](step, preparation.columns)
    elif is_of_library(step) and hasattr(step, "get_support"):
        preparation.columns = [preparation.columns[index] for index in step.get_support(indices=True)]
    else:
        raise refuse(
            f"the pipeline has a {kind}",
            f"use some of Normalizer, PolynomialFeatures, {', '.join(sorted(STEPS))}, or prepare this feature",
        )


def transformed(step: Any, rows: Any) -> Any:
    """What a transformer makes of golden rows. The engine computes in float64, so every part of it has to as well.

    Raises:
        HeadraceError: `unsupported_model`, naming a transformer that answers in less.
    """
    kind = kind_of(step)
    for inner, given in _parts(kind, step, rows):
        if inner is not None and not isinstance(inner, str):
            transformed(inner, given)
    if kind == "Pipeline":
        for _, inner in step.steps:
            rows = rows if inner is None or isinstance(inner, str) else transformed(inner, rows)
        return rows
    made = step.transform(rows)
    for dtype in made.dtypes if hasattr(made, "dtypes") else [made.dtype]:
        _refuse_narrow(kind, dtype)
    return made


def _parts(kind: str, step: Any, rows: Any) -> Iterator[tuple[Any, Any]]:
    """Transformers that stand beside each other, and the columns that each is given."""
    if kind == "FeatureUnion":
        yield from ((inner, rows) for _, inner in step.transformer_list)
    elif kind == "ColumnTransformer":
        for name, inner, _ in step.transformers_:
            places = step._transformer_to_input_indices[name]
            if len(places):
                yield inner, rows.iloc[:, places] if hasattr(rows, "iloc") else rows[:, places]


def _refuse_narrow(kind: str, dtype: Any) -> None:
    if dtype in (np.float16, np.float32):
        raise refuse(f"the {kind} answers in {dtype}", "set dtype=float64, or train the pipeline on float64 rows")


def _is_identity(function: Any) -> bool:
    """Histogram gradient boosting checks its array by such a function, which leaves it as it is."""
    return function is None or getattr(getattr(function, "func", None), "__name__", "") == "check_array"


def _within(step: Any, columns: list[Column]) -> list[Column]:
    """What a transformer makes of some columns."""
    part = Preparation(columns)
    transform(part, step)
    if part.stages:
        message = "a Normalizer or PolynomialFeatures stands beside other transformers"
        raise refuse(message, "put it into the pipeline itself")
    return part.columns


def _scaled(
    columns: list[Column], *parameters: tuple[str, Any], clip: tuple[float, float] | None = None
) -> list[Column]:
    scaled = []
    for index, column in enumerate(columns):
        operations: list[Operation] = [{name: float(of[index])} for name, of in parameters if of is not None]
        if clip is not None:
            operations.append({"clip": [float(clip[0]), float(clip[1])]})
        scaled.append(column.then(*operations))
    return scaled


def _standard_scaler(step: Any, columns: list[Column]) -> list[Column]:
    mean, scale = step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None
    return _scaled(columns, ("subtract", mean), ("divide", scale))


def _min_max_scaler(step: Any, columns: list[Column]) -> list[Column]:
    clip = step.feature_range if step.clip else None
    return _scaled(columns, ("multiply", step.scale_), ("add", step.min_), clip=clip)


def _max_abs_scaler(step: Any, columns: list[Column]) -> list[Column]:
    clip = (-1.0, 1.0) if getattr(step, "clip", False) else None
    return _scaled(columns, ("divide", step.scale_), clip=clip)


def _robust_scaler(step: Any, columns: list[Column]) -> list[Column]:
    center, scale = step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None
    return _scaled(columns, ("subtract", center), ("divide", scale))


def number(value: Any, what: str) -> float | None:
    """A category as the engine is given it: a number, or None for NaN.

    Raises:
        HeadraceError: `unsupported_model`, when it is none.
    """
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        as_float = float(value)
        return None if as_float != as_float else as_float
    hint = "give the engine numbers, or texts in a column of which golden rows hold texts"
    raise refuse(f"{what} is {value!r}, which is not a number", hint)


def _marker(column: Column, missing_values: Any) -> float | None:
    return None if missing_values is None else column.code(missing_values, "a SimpleImputer's missing value")


def _simple_imputer(step: Any, columns: list[Column]) -> list[Column]:
    filled = []
    for column, value in zip(columns, step.statistics_, strict=True):
        by = column.code(value, "a SimpleImputer's fill value")
        if by is None:  # a feature that was never seen
            if not step.keep_empty_features:
                continue
            column.check_number()
            by = 0.0
        marker = _marker(column, step.missing_values)
        if marker is None:
            filled.append(column.filled({"fill": by}))
        else:
            filled.append(Column(column.source, (*column.operations, {"replace": [marker, by]}), column.categories))
    if step.indicator_ is not None:
        filled += _missing_indicator(step.indicator_, columns)
    return filled


def _missing_indicator(step: Any, columns: list[Column]) -> list[Column]:
    markers = {index: _marker(columns[index], step.missing_values) for index in step.features_}
    return [
        columns[index].encoded("is_missing" if marker is None else {"is_any_of": [marker]})
        for index, marker in markers.items()
    ]


def _one_hot_encoder(step: Any, columns: list[Column]) -> list[Column]:
    dropped = getattr(step, "_drop_idx_after_grouping", None)
    rare_lists = step.infrequent_categories_ if getattr(step, "_infrequent_enabled", False) else None
    flags = []
    for index, (column, categories) in enumerate(zip(columns, step.categories_, strict=True)):
        known = column.codes(categories, "a OneHotEncoder's category")
        if step.handle_unknown == "error":
            column.refuse_others(categories)
        rare_list = None if rare_lists is None else rare_lists[index]
        rare = [] if rare_list is None else column.codes(rare_list, "a OneHotEncoder's category")
        frequent = [category for category in known if category not in rare]
        questions: list[Operation] = [{"is_any_of": [category]} for category in frequent]
        if rare:
            takes_unknown = step.handle_unknown in ("infrequent_if_exist", "warn")
            questions.append({"is_none_of": frequent} if takes_unknown else {"is_any_of": rare})
        if dropped is not None and dropped[index] is not None:
            questions.pop(dropped[index])
        flags += [column.encoded(question) for question in questions]
    return flags


def _codes(categories: Sequence[float | None], codes: Sequence[float | None], unknown: float | None) -> Operation:
    pairs = sorted((known, code) for known, code in zip(categories, codes, strict=True) if known is not None)
    missing = [code for known, code in zip(categories, codes, strict=True) if known is None]
    return {
        "code": {
            "values": [known for known, _ in pairs],
            "codes": [code for _, code in pairs],
            "missing": missing[0] if missing else unknown,
            "unknown": unknown,
        }
    }


def _finite(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _ordinal_encoder(step: Any, columns: list[Column]) -> list[Column]:
    unknown = _finite(step.unknown_value) if step.handle_unknown == "use_encoded_value" else None
    groups = step._default_to_infrequent_mappings if getattr(step, "_infrequent_enabled", False) else None
    encoded = []
    for index, (column, categories) in enumerate(zip(columns, step.categories_, strict=True)):
        known = column.codes(categories, "an OrdinalEncoder's category")
        if step.handle_unknown == "error":
            column.refuse_others(categories)
        group = None if groups is None else groups[index]
        at_missing = _finite(step.encoded_missing_value)
        codes = [
            at_missing if category != category else float(place if group is None else group[place])
            for place, category in enumerate(categories)  # None has a place as texts have, NaN has not
        ]
        encoded.append(column.encoded(_codes(known, codes, unknown)))
    return encoded


def _target_encoder(step: Any, columns: list[Column]) -> list[Column]:
    means = np.atleast_1d(step.target_mean_)
    encoded = []
    for index, (column, categories) in enumerate(zip(columns, step.categories_, strict=True)):
        known = column.codes(categories, "a TargetEncoder's category")
        for output, mean in enumerate(means):
            codes = [float(code) for code in step.encodings_[index * len(means) + output]]
            encoded.append(column.encoded(_codes(known, codes, float(mean))))
    return encoded


def _k_bins_discretizer(step: Any, columns: list[Column]) -> list[Column]:
    binned = []
    for column, edges, count in zip(columns, step.bin_edges_, step.n_bins_, strict=True):
        place = column.then({"bin": [float(edge) for edge in edges[1:-1]]})
        if step.encode == "ordinal":
            binned.append(place)
        else:
            binned += [place.then({"is_any_of": [float(number)]}) for number in range(count)]
    return binned


def _power_transformer(step: Any, columns: list[Column]) -> list[Column]:
    name = step.method.replace("-", "_")
    made = [column.then({name: float(power)}) for column, power in zip(columns, step.lambdas_, strict=True)]
    return _standard_scaler(step._scaler, made) if step.standardize else made


def _polynomial_features(preparation: Preparation, step: Any) -> None:
    """Products of columns, multiplied from the last to the first, as the library does."""
    preparation.check_numbers()
    preparation.end_stage()
    products = []
    for powers in step.powers_:
        factors = [int(index) for index in np.repeat(np.arange(len(powers)), powers)][::-1]
        if factors:
            products.append(Column(factors[0]).then(*[{"times": index} for index in factors[1:]]))
        else:
            products.append(Column(0, ({"fill": 0.0}, {"clip": [0.0, 0.0]}, {"add": 1.0})))
    preparation.columns = products


def _column_transformer(step: Any, columns: list[Column]) -> list[Column]:
    given = []
    places = step._transformer_to_input_indices
    for name, inner, _ in step.transformers_:
        chosen = [columns[index] for index in places[name]]
        if chosen and not (isinstance(inner, str) and inner == "drop"):
            given += _weighted(_within(inner, chosen), step.transformer_weights, name)
    return given


def _feature_union(step: Any, columns: list[Column]) -> list[Column]:
    given = []
    for name, inner in step.transformer_list:
        if not (isinstance(inner, str) and inner == "drop"):
            given += _weighted(_within(inner, columns), step.transformer_weights, name)
    return given


def _weighted(columns: list[Column], weights: dict[str, float] | None, name: str) -> list[Column]:
    if weights is None or name not in weights:
        return columns
    return [column.then({"multiply": float(weights[name])}) for column in columns]


DTYPE_OF_ANSWER = ("KBinsDiscretizer", "OneHotEncoder", "OrdinalEncoder")
STEPS: dict[str, Callable[[Any, list[Column]], list[Column]]] = {
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "KBinsDiscretizer": _k_bins_discretizer,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MissingIndicator": _missing_indicator,
    "OneHotEncoder": _one_hot_encoder,
    "OrdinalEncoder": _ordinal_encoder,
    "PowerTransformer": _power_transformer,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": _simple_imputer,
    "StandardScaler": _standard_scaler,
    "TargetEncoder": _target_encoder,
}
