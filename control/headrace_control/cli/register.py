"""`headrace register`: a model file of a training library becomes a version of the project's model."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

EXAMPLES = epilog(
    "headrace join departure_risk data/flights.parquet rows.parquet --event-time read_at",
    "headrace register risk .headrace/models/departure_risk_xgboost/1/model.ubj --rows rows.parquet "
    "--service departure_risk",
    "headrace register risk .headrace/models/departure_risk_lightgbm/1/model.txt --rows rows.parquet "
    "--service departure_risk --labels on_time,late --json",
)
TASKS = ("classification", "regression", "multi_label", "ranking", "tensors", "seq2seq")


@click.command("register", epilog=EXAMPLES)
@click.argument("name")
@click.argument("model_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--rows",
    "rows",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parquet, CSV or JSON lines: rows of the training set, which the engine must answer as the library does. Of a "
    "model of tensors an .npz file with an array for each input.",
)
@click.option("--service", help="The feature service whose features the model takes; without it requests give them.")
@click.option("--features", help="The model's features in its order, where the file does not know their names.")
@click.option("--task", type=click.Choice(TASKS), help="What the model answers, where the file does not say.")
@click.option(
    "--batch-max", default=0, help="Rows of a batch, where a model of tensors has one in every first dimension."
)
@click.option("--labels", help="Names of the classes, in the order of the scores.")
@project_option
@json_option
def command(
    name: str,
    model_file: Path,
    rows: Path,
    service: str | None,
    features: str | None,
    task: str | None,
    labels: str | None,
    batch_max: int,
    project: Path,
    as_json: bool,
) -> None:
    """Make the next version of the model NAME of a file that its training library wrote.

    MODEL_FILE ends in .ubj or .json (XGBoost), .txt (LightGBM), .cbm (CatBoost) or .onnx. The library must be
    installed, for it answers the rows that the engine is checked with; serving does not need it. Models of
    scikit-learn and Python classes are registered from Python: headrace.export, FeatureStore.register_model.

    With --task tensors or seq2seq an ONNX file of any signature is taken: its inputs and outputs are those of the file.
    """
    from headrace_control.registering import register_file

    output = Output(as_json)
    found = register_file(
        project, name, model_file, rows, service, _split(features), task, _split(labels), batch_max=batch_max
    )
    values = {
        "model": found.name,
        "version": found.version,
        "folder": str(found.folder),
        "digest": found.digest,
        "service": service,
        "features": list(found.features),
        "golden_rows": found.golden_rows,
    }
    output.result(
        values,
        f"registered {found.name}/{found.version} ({found.digest[:19]}): {len(found.features)} "
        f"{'inputs' if task in TASKS[-2:] else 'features'}{f' of {service}' if service else ''}, "
        f"{found.golden_rows} rows as the library answers them",
    )


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())
