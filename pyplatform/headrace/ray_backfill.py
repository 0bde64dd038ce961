"""A backfill of the online table on a Ray cluster: tasks read, cut and reduce (`headrace.backfill`), this process, the
store's only writer, writes what they leave.

    BACKFILL FOLDER/job.json           what is loaded
    BACKFILL FOLDER/NUMBER.rows        what the table would keep of each partition
    BACKFILL FOLDER/profile.stats      the statistics of all rows

Nothing is written before all parts have been read, and a load that is interrupted then begins anew. Until it has ended
the log says that it is under way, so that no event is added to a half of itself.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace import _native
from headrace.backfill import Backfill
from headrace.loads import Load
from headrace.partitions import PARTITIONS_MAX, open_rows, spill_folder, told_of_full_disks
from headrace.ray_process import PARTITIONS_MIN, check_installed, drive
from headrace.sources import BATCH_ROWS_MAX, count_rows, fingerprint

PARTITION_ROWS = 4_000_000
"""About so many rows of a source make a partition: what one task holds."""

PROGRESS: dict[str, Any] = {"of": "ray", "spans": []}
"""What the log says of a load that is under way: nothing that another one could go on with."""


def load_on_ray(load: Load) -> None:
    """Loads the rows of a view's source; rows that others of the load supersede count as stale.

    Raises:
        ProcessError: `unavailable`, Ray is not installed, or the cluster failed.
        InputError, UnknownNameError, StoreError: as a load on this machine.
    """
    check_installed()
    store, view, intake = load.store, load.view, load.intake
    with spill_folder(load.config.spill) as folder, told_of_full_disks(folder):
        job = _backfill(load)
        (folder / "job.json").write_text(job.to_json())
        found = drive("backfill", folder)
        intake.add_told(found["refused"], found["letters"])
        written = 0
        noted = PROGRESS if view.is_windowed else None
        for number in range(job.partitions):
            with open_rows(folder / f"{number}.rows") as reader:
                for table in reader:
                    for batch in pa.Table.from_batches([table]).to_batches(max_chunksize=BATCH_ROWS_MAX):
                        intake.write(store, batch, load.now_us, progress=noted, resets=load.resets, described=False)
                        load.resets = False
                        written += batch.num_rows
                        load.told()
            (folder / f"{number}.rows").unlink()
        intake.add_superseded(found["accepted"] - written)
        described = folder / "profile.stats"
        if described.exists():
            store.describe(view.name, _native.Profile.from_bytes(described.read_bytes()))


def _backfill(load: Load) -> Backfill:
    view, config, root = load.view, load.config, load.config.sources_root
    # Of a Delta table all tasks read the same version.
    as_of: Any = fingerprint(view, root) if view.source["format"] == "delta" else None
    count = min(max(count_rows(view, root, as_of) // PARTITION_ROWS, PARTITIONS_MIN), PARTITIONS_MAX)
    return Backfill(
        document=view.document,
        view=view.name,
        sources_root=str(root),
        as_of=as_of,
        start_us=load.span[0],
        end_us=load.span[1],
        now_us=load.now_us,
        latest_us=load.now_us + load.intake.skew_us,
        blocked=load.store.blocked,
        letters_max=config.ingest.dead_letter_rows_max,
        describes=load.store.statistics is not None,
        count=count,
    )
