"""The `headrace` command: one module a subcommand, each loaded when it is called."""

from __future__ import annotations

import click

from headrace_control.cli.lazy import LazyGroup

COMMANDS = {
    "init": ("headrace_control.cli.init", "Make a new project: the flights of New York City."),
    "plan": ("headrace_control.cli.plan", "Print what apply would change."),
    "apply": ("headrace_control.cli.apply", "Compile the definitions and make them current."),
    "join": ("headrace_control.cli.join", "Write a training set of a file of rows."),
    "train": ("headrace_control.cli.train", "Train the project's models and register them."),
    "register": ("headrace_control.cli.register", "Make a version of a model file that a library has written."),
    "materialize": ("headrace_control.cli.materialize", "Load the sources into the online table."),
    "push": ("headrace_control.cli.push", "Write the rows of a file to a view."),
    "compact": ("headrace_control.cli.compact", "Join small files of the history and remove what is too old."),
    "history": ("headrace_control.cli.history", "Show the pushed rows that are kept, and export them to Delta Lake."),
    "dataset": ("headrace_control.cli.dataset", "Keep training sets by name and version, and look at them."),
    "erase": ("headrace_control.cli.erase", "Remove all that is kept about some keys, with a receipt."),
    "backup": ("headrace_control.cli.backup", "Write all that headrace keeps to a folder."),
    "restore": ("headrace_control.cli.restore", "Put a backup in place."),
    "teardown": ("headrace_control.cli.teardown", "Remove all that headrace keeps of a project."),
    "serve": ("headrace_control.cli.serve", "Serve features and models over HTTP."),
    "top": ("headrace_control.cli.top", "Show what running servers are doing, live."),
    "keys": ("headrace_control.cli.keys", "Make API keys for a server's access policy."),
    "audit": ("headrace_control.cli.audit", "Check the audit of a server for gaps."),
    "predict": ("headrace_control.cli.predict", "Ask a model for one prediction."),
    "explain": ("headrace_control.cli.explain", "Write what each feature adds to the margins of a file of rows."),
    "profile": ("headrace_control.cli.profile", "Measure a model at each batch size and recommend one."),
    "bench": ("headrace_control.cli.bench", "Measure the engine beside its peers."),
    "demo": ("headrace_control.cli.demo", "Run the main job on real data, from raw flights to a served prediction."),
    "status": ("headrace_control.cli.status", "Show what is applied, materialized and registered."),
    "search": ("headrace_control.cli.search", "Find entities, views, features, services and models."),
    "features": ("headrace_control.cli.features", "List the features, their owners and their users."),
    "lineage": ("headrace_control.cli.lineage", "Show or draw what features are made of and who uses them."),
    "describe": ("headrace_control.cli.describe", "Show statistics of a view, a service or a file."),
    "verify": ("headrace_control.cli.verify", "Prove that what was served is what training sees."),
    "doctor": ("headrace_control.cli.doctor", "Check this machine and this installation."),
    "version": ("headrace_control.cli.version", "Print the versions of headrace and of its engine."),
}


START_HERE = """\b
Start here:
  headrace demo              run the whole job once, on real data
  headrace init my_project   make a project of your own

\b
Exit codes:
  0 done   1 failed   2 called wrongly   3 refused: a definition is wrong, or
  would break what is in use   4 something is missing first   130 interrupted
"""


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=START_HERE, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """headrace: a feature store and a model server in one process."""
