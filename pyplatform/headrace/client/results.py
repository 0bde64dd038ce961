"""What a server has answered, typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each feature adds to a margin."""

    expected: float | None
    """The margin when no feature is known."""
    contributions: dict[str, float | None]
    others: float | None = None
    """What the features that are not told add."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer. What the task or the request does not have is None, and so is a number that is not finite."""

    label: str | None = None
    """Of a classification."""
    labels: tuple[str, ...] | None = None
    """Of a multi-label classification."""
    value: float | None = None
    """Of a regression or a ranking."""
    scores: dict[str, float | None] | None = None
    """By class."""
    margin: tuple[float | None, ...] | None = None
    explanation: tuple[Explanation, ...] | None = None
    """One for each margin."""
    error: HeadraceError | None = None
    """Why this row has no answer, while others have."""
    text: str | None = None
    """Of a model of sequences, as the three below."""
    tokens: tuple[int, ...] | None = None
    score: float | None = None
    """Of the whole sequence."""
    token_scores: tuple[float | None, ...] | None = None
    """`scores` of the answer: of each token."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The answer to `predict`, one prediction for each row."""

    id: str
    deployment: str
    model: str
    model_version: int
    task: str
    predictions: list[Prediction]
    timing_us: dict[str, float]
    """Phase -> microseconds."""

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    def __getitem__(self, row: int) -> Prediction:
        return self.predictions[row]


@dataclass(frozen=True, slots=True)
class Features:
    """The answer to `features`: join keys as given, then features. Times are RFC 3339 text, bytes base64."""

    values: dict[str, list[Any]]
    statuses: dict[str, list[str]]
    """PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or INVALID of each row."""


class Tensors(dict[str, "NDArray[Any]"]):
    """The answer to `infer`: output -> array. Texts are arrays of `bytes` objects; BF16 is widened to float32."""

    id: str = ""
    model: str = ""
    model_version: str = ""
    row_errors: dict[int, str]
    """Row -> why it has no answer, of a model of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.row_errors = {}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A column that a request may give."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is served under a name. The fields of requests are told by `deployment(name)` only."""

    name: str
    model: str
    model_version: int
    versions: tuple[int, ...]
    task: str
    feature_service: str | None
    ready: bool
    reason: str | None
    """Why it is not ready."""
    entities: tuple[FieldInfo, ...] = ()
    features: tuple[FieldInfo, ...] = ()
    request: tuple[FieldInfo, ...] = ()
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Of the Open Inference Protocol."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a model; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Of the Open Inference Protocol."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What became of the rows of a write."""

    rows: int = 0
    inserted: int = 0
    replaced: int = 0
    stale: int = 0
    """Rows that were older than what the table holds for their key."""
    deleted: int = 0
    skipped: int = 0
    """Rows of a view that is not online."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that were not written."""
