"""Contributions of a whole file of rows: written as Parquet, summed up by feature, drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace_control.errors import ControlError
from headrace_control.named_models import NamedModel
from headrace_control.progress import Progress, silent
from headrace_control.row_files import RowFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]

EXPECTED, MARGIN, ROW, OUTPUT = "__expected", "__margin", "__row", "__output"
"""Columns beside the features'."""

CHUNK_VALUES_MAX = 4_000_000
"""Contributions that are in memory at a time (32 MB)."""

DRAWN_ROWS = 2_000
DRAWN_FEATURES = 20
DRAWN_NAME = 32
"""Characters of a name in the plot."""


@dataclass
class Summary:
    """What was written.

    Attributes:
        expected: the margin when no feature is known, by output.
        mean_magnitude: the mean magnitude of each feature's contribution, by output and feature.
        drawn_rows: some rows of the file, for the plot, with `drawn` their contributions.
    """

    rows: int
    outputs: tuple[str, ...]
    features: tuple[str, ...]
    expected: Values
    mean_magnitude: Values
    drawn_rows: list[Values] = field(default_factory=list)
    drawn: list[Values] = field(default_factory=list)

    def ranking(self) -> list[tuple[str, float]]:
        """Features by their mean magnitude, summed over the outputs, the largest first."""
        total = self.mean_magnitude.sum(axis=0)
        order = np.argsort(-total, kind="stable")
        return [(self.features[index], float(total[index])) for index in order]


def explain_file(
    named: NamedModel, source: Path, target: Path | None, threads: int | None = None, progress: Progress = silent
) -> Summary:
    """Computes the contributions of all rows of a file.

    Args:
        named: the model.
        source: a file with a column for each feature: numbers, and texts where the model takes them.
        target: the Parquet file to write: a column for each feature with its contribution (float64), `__expected`, and
            `__margin`, which is their sum; for a model of several outputs a row for each output, with `__row` and
            `__output`. Written aside and renamed at the end. `None` writes nothing.
        threads: at most so many; by default one for each core.
        progress: is told the rows that are done.

    Raises:
        ControlError: `invalid_argument`, `missing_column`, `type_mismatch`, `io`.
        headrace.HeadraceError: `unsupported_model` when the model cannot be explained; told before any row is read.
    """
    named.model.check_explainable()
    if target is not None and target.suffix != ".parquet":
        raise ControlError(
            "invalid_argument", f"{target} does not end in .parquet", "contributions are written as Parquet"
        )
    rows = RowFile(source, named.features, named.model)
    outputs, features = named.outputs, named.features
    total = np.zeros((len(outputs), len(features)))
    summary = Summary(0, outputs, features, np.zeros(len(outputs)), total)
    every = max(rows.rows() // DRAWN_ROWS, 1)
    chunk = max(CHUNK_VALUES_MAX // (len(outputs) * (len(features) + 1)), 1)
    aside = None if target is None else target.with_name(f".{target.name}.unfinished")
    writer: pq.ParquetWriter | None = None
    try:
        for matrix in rows.matrices(chunk):
            values = named.model.contributions(matrix, threads=threads).reshape(len(matrix), len(outputs), -1)
            summary.expected = values[0, :, -1]
            total += np.abs(values[:, :, :-1]).sum(axis=0)
            drawn = slice(-summary.rows % every, None, every)
            summary.drawn_rows.append(matrix[drawn])
            summary.drawn.append(values[drawn])
            if aside is not None:
                table = _table(named, values, summary.rows)
                writer = writer or pq.ParquetWriter(aside, table.schema)
                writer.write_table(table)
            summary.rows += len(matrix)
            progress(summary.rows, None)
        if writer is not None and aside is not None and target is not None:
            writer.close()
            aside.replace(target)
    except OSError as error:
        raise ControlError("io", f"{target} cannot be written: {error}", "check the folder and its space") from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    if not summary.rows:
        raise ControlError("invalid_argument", f"{source} has no rows", "give a file with rows")
    total /= summary.rows
    return summary


def _table(named: NamedModel, values: Values, first_row: int) -> pa.Table:
    """`values` is [rows, outputs, features + 1]."""
    rows, outputs, width = values.shape
    flat = values.reshape(rows * outputs, width)
    columns: dict[str, Any] = {}
    if outputs > 1:
        columns[ROW] = np.repeat(np.arange(first_row, first_row + rows), outputs)
        columns[OUTPUT] = pa.array(list(named.outputs) * rows)
    columns |= {name: np.ascontiguousarray(flat[:, at]) for at, name in enumerate(named.features)}
    columns |= {EXPECTED: np.ascontiguousarray(flat[:, -1]), MARGIN: flat.sum(axis=1)}
    return pa.table(columns)


def draw(summary: Summary, title: str, path: Path) -> None:
    """Writes a PNG: mean magnitudes, and beside them a point for each of some rows, coloured by the feature's value."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranking = summary.ranking()[:DRAWN_FEATURES]
    names = [name for name, _ in ranking]
    figure = Figure(figsize=(12, 1.8 + 0.32 * len(names)))
    FigureCanvasAgg(figure)
    bars, points = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    places = np.arange(len(names))
    left = np.zeros(len(names))
    columns = [summary.features.index(name) for name in names]
    for number, output in enumerate(summary.outputs[:10]):
        width = summary.mean_magnitude[number, columns]
        bars.barh(places, width, left=left, height=0.6, color=f"C{number}", label=_shortened(output))
        left += width
    # A name is no formula, whatever dollar signs it has.
    bars.set_yticks(places, [_shortened(name) for name in names], parse_math=False)
    bars.invert_yaxis()
    bars.set_xlabel("mean magnitude of the contribution")
    if len(summary.outputs) > 1:
        for text in bars.legend(fontsize=8).get_texts():
            text.set_parse_math(False)
    _draw_points(points, summary, columns)
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold", parse_math=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130, format="png")


def _draw_points(axes: Axes, summary: Summary, columns: list[int]) -> None:
    """The last output's contributions: the only one, or the last class."""
    rows, values = np.concatenate(summary.drawn_rows), np.concatenate(summary.drawn)[:, -1]
    for place, column in enumerate(columns):
        feature = rows[:, column]
        known = np.isfinite(feature)
        rank = np.zeros(len(feature))
        rank[known] = np.argsort(np.argsort(feature[known])) / max(int(known.sum()) - 1, 1)
        across = place + _swarm(values[:, column])
        axes.scatter(values[~known, column], across[~known], s=4, color="#9ca3af", linewidths=0)
        axes.scatter(values[known, column], across[known], s=4, c=rank[known], cmap="coolwarm", linewidths=0)
    axes.axvline(0, color="#111827", linewidth=0.8)
    of = f" to {_shortened(summary.outputs[-1])}" if len(summary.outputs) > 1 else ""
    axes.set_xlabel(f"contribution{of} (blue: low value of the feature, red: high, grey: missing)", parse_math=False)


def _shortened(name: str) -> str:
    return name if len(name) <= DRAWN_NAME else f"{name[: DRAWN_NAME - 1]}…"


def _swarm(values: Values) -> Values:
    """Heights from -0.4 to 0.4 that keep near points apart: the more there are of a value, the thicker the swarm."""
    span = max(float(np.ptp(values)), np.finfo(np.float64).tiny)
    near = np.round(100 * (values - values.min()) / span)
    order = np.argsort(near, kind="stable")
    first = np.r_[True, np.diff(near[order]) > 0]
    begins = np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    turn = np.arange(len(values)) - begins
    heights = np.empty(len(values))
    heights[order] = (turn + 1) // 2 * np.where(turn % 2 == 0, 1, -1)
    return 0.4 * heights / max(float(np.abs(heights).max()), 6.0)
