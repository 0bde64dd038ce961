"""`headrace profile`: how long a model takes at each batch size, and which one to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import LATENCY
from headrace_control.errors import FAILED, OK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from headrace import Model
    from headrace_control.named_models import NamedModel
    from headrace_control.profiling.recommend import Point

INPUT_ROWS_MAX = 100_000
INPUT_VALUES_MAX = 1 << 26
DEVICES = ("cpu",)
EXAMPLES = epilog(
    "headrace profile departure_risk_xgboost --slo 5ms",
    "headrace profile departure_risk_xgboost/1 --slo 5ms --rows-max 4096 --threads 2 --price 0.12",
    "headrace profile .headrace/models/departure_risk_lightgbm/1 --slo 0.01s --plot profile.png --json",
)


@click.command("profile", epilog=EXAMPLES)
@click.argument("model")
@click.option("--slo", type=LATENCY, required=True, help="What 99 of 100 calls must end within: 5ms, 500us, 0.01s.")
@click.option("--rows-max", type=click.IntRange(1, 1 << 20), default=1024, show_default=True, help="The largest batch.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Measure 1, 2, ... so many.")
@click.option("--price", type=click.FloatRange(0), help="What the machine costs an hour, in any currency.")
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows to predict (Parquet, CSV or JSON lines); the default is the model's golden rows, drawn again and again, "
    "and any of the texts that it knows.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Choice(DEVICES),
    default=("cpu",),
    show_default=True,
    help="Where to run; may be given several times.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.001, 60), default=0.3, show_default=True, help="Time for each point."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw time and throughput (PNG).")
@project_option
@json_option
def command(
    model: str,
    slo: float,
    rows_max: int,
    threads: int,
    price: float | None,
    source: Path | None,
    devices: tuple[str, ...],
    seconds: float,
    plot: Path | None,
    project: Path,
    as_json: bool,
) -> int:
    """Measure MODEL at batches of 1, 2, 4, ... rows and recommend one that meets an objective.

    MODEL is NAME or NAME/VERSION of the project, a version's folder, or a model file. Each call has other rows. Times
    are those of the engine's model in this process, without network and without feature lookup. Ends with 1 when no
    batch size meets the objective.
    """
    from headrace_control.errors import require
    from headrace_control.named_models import open_model
    from headrace_control.profiling.measure import Device, batch_sizes, largest_batch, measure, row_pool
    from headrace_control.profiling.plot import draw
    from headrace_control.profiling.recommend import as_json as told
    from headrace_control.profiling.recommend import recommend

    if plot is not None:
        require("matplotlib", "matplotlib", "--plot")
    output = Output(as_json)
    named = open_model(project, model)
    asked_rows_max = rows_max
    rows_max = min(rows_max, largest_batch(named.model.features_count, named.model.outputs_count))
    if rows_max < asked_rows_max:
        output.warn(
            f"batches of up to {rows_max:,} rows are measured, not {asked_rows_max:,}: more rows of "
            f"{named.model.features_count:,} features and {named.model.outputs_count:,} outputs take too much memory"
        )
    pool = row_pool(rows_to_predict(named, source), rows_max)
    if source is None:
        draw_texts(named.model, pool)
    places = {"cpu": lambda rows, count: named.model.margins(rows, threads=count)}
    batches, counts = batch_sizes(rows_max), range(1, threads + 1)
    points: list[Point] = []
    for name in dict.fromkeys(devices):
        with output.progress(f"profile {named.name}", len(batches) * threads) as progress:
            points += measure(Device(name, places[name]), pool, batches, counts, seconds, progress)
    found = recommend(points, slo)
    cores = core_count()
    values = {
        "model": named.name,
        "features": named.model.features_count,
        "outputs": named.model.outputs_count,
        "memory_bytes": named.model.bytes,
        "rows_max": rows_max,
        "rows_from": "golden rows" if source is None else str(source),
        "cores": cores,
        "price_per_hour": price,
        **told(points, slo, price, cores, found),
    }
    if plot is not None:
        draw(points, slo, found, f"{named.name}: a call at each batch size", plot)
        values["plot"] = str(plot)
    heads = [
        f"{named.name}: {values['features']} features, {values['outputs']} outputs, "
        f"{values['memory_bytes'] / 1e6:.3g} MB, rows from {values['rows_from']}"
    ]
    output.result(values, *heads, table_of(values), *line_texts(values), *found.text)
    return OK if found.point is not None else FAILED


def core_count() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def rows_to_predict(named: NamedModel, source: Path | None) -> NDArray[np.float64]:
    """Rows of the file, or the golden ones.

    Raises:
        ControlError: `missing_data` for a model file without rows; what is wrong with the file.
    """
    import numpy as np

    from headrace_control.errors import ControlError
    from headrace_control.row_files import RowFile

    if source is None:
        golden = named.golden_rows()
        if golden is None:
            raise ControlError(
                "missing_data", f"{named.name} is a file and has no golden rows", "give rows to predict: --input FILE"
            )
        return golden
    count_max = max(min(INPUT_ROWS_MAX, INPUT_VALUES_MAX // named.model.features_count), 1)
    parts, count = [], 0
    for part in RowFile(source, named.features, named.model).matrices(count_max):
        parts.append(part)
        count += len(part)
        if count >= count_max:
            break
    if not count:
        raise ControlError("missing_data", f"{source} has no rows", "give a file with rows")
    rows: NDArray[np.float64] = np.concatenate(parts)[:count_max]
    return rows


def draw_texts(model: Model, rows: NDArray[np.float64], seed: int = 2) -> None:
    """Puts the code of any text that the model knows in the place of those that golden rows happen to hold."""
    import numpy as np

    random = np.random.default_rng(seed)
    for feature in model.text_features:
        codes = model.codes(feature)
        if codes:
            rows[:, feature] = random.choice(codes, len(rows))


def table_of(values: dict[str, Any]) -> Table:
    from rich.table import Table

    from headrace_control.profiling.recommend import time_text

    has_price = values["price_per_hour"] is not None
    heads = ["rows", "threads", "device", "p50", "p99", "rows/s", *(["cost/million"] if has_price else []), ""]
    table = Table(*heads, box=None, pad_edge=False)
    for one in values["results"]:
        mark = "meets the objective, largest" if one["is_largest_within_slo"] else ""
        cost = [f"{one['cost_per_million']:.3g}"] if has_price else []
        times = [time_text(one["p50_us"]), time_text(one["p99_us"]), f"{one['rows_per_s']:,.0f}"]
        mark = mark or ("" if one["meets_slo"] else "too slow")
        table.add_row(f"{one['rows']:,}", str(one["threads"]), one["device"], *times, *cost, mark)
    return table


def line_texts(values: dict[str, Any]) -> Sequence[str]:
    from headrace_control.profiling.recommend import time_text

    return [
        f"{one['device']}, {one['threads']} threads: a call of n rows takes {time_text(one['fixed_us'])} + "
        f"{time_text(one['row_us'])} x n (within {100 * one['error']:.0f} %)"
        for one in values["lines"]
    ]
