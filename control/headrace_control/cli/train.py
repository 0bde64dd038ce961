"""`headrace train`: from the training tables of headrace.toml to registered model versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace_control.cli.join import scale_options
from headrace_control.cli.output import Output, epilog, json_option, project_option


@click.command("train", epilog=epilog("headrace train", "headrace train departure_risk_lightgbm --force"))
@click.argument("models", nargs=-1)
@project_option
@json_option
@scale_options
@click.option("--force", is_flag=True, help="Train even if the latest version was made of the same rows and settings.")
def command(
    models: tuple[str, ...], project: Path, as_json: bool, memory: str | None, on: str | None, force: bool
) -> None:
    """Train MODELS (by default all of headrace.toml) and register them.

    Each model's [[dataset]] is joined as of the time of each row, split by time, and kept with its digest. A version is
    registered only if the engine reproduces the library's own predictions on its golden rows.
    """
    from rich.table import Table

    from headrace_control.projects import differs, open_applied
    from headrace_control.training import dataset
    from headrace_control.training.config import load_training
    from headrace_control.training.run import chosen_models, train

    output = Output(as_json)
    with open_applied(project) as store:
        if difference := differs(store):
            output.warn(difference)
        config = load_training(project)
        chosen = chosen_models(config, models)
        built: dict[str, tuple[dataset.TrainingSet, dict[str, Any]]] = {}
        runs = []
        for model in chosen:
            if model.dataset not in built:
                with output.progress(f"join the rows of '{model.dataset}'"):
                    made = dataset.build(store, config.datasets[model.dataset], memory, on)
                    built[model.dataset] = (made, dataset.keep(made, store))
            rows, lineage = built[model.dataset]
            with output.progress(f"train {model.name}", model.rounds) as progress:
                runs.append(train(store, model, rows, lineage, progress, force))
    table = Table("model", "version", "", "validation", "test", "seconds", box=None, pad_edge=False)
    for run in runs:
        measure = "auc" if run.version.manifest["task"] == "classification" else "rmse"
        figures = [
            f"{measure} {run.metrics[part][measure]:.4f}" if part in run.metrics else ""
            for part in ("validate", "test")
        ]
        state = "new" if run.is_new else "unchanged"
        table.add_row(run.version.name, str(run.version.version), state, *figures, f"{run.seconds:.1f}")
    lines = [
        f"{name}: {made.joined_rows:,} rows joined in {made.join_seconds:.2f} s, {made.table.num_rows:,} labelled"
        for name, (made, _) in built.items()
    ]
    output.result(
        {
            "datasets": {name: lineage for name, (_, lineage) in built.items()},
            "models": [
                {
                    "name": run.version.name,
                    "version": run.version.version,
                    "digest": run.version.digest,
                    "new": run.is_new,
                    "metrics": {part: values for part, values in run.metrics.items() if part != "importance"},
                    "seconds": round(run.seconds, 3),
                }
                for run in runs
            ],
        },
        *lines,
        table,
    )
