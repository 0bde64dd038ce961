"""Rows that were refused: counted always, and a bounded sample of them kept for people in Parquet files.

`.headrace/dead-letter/VIEW/NAME.parquet` has the columns `reason`, `detail`, `origin` (where the row came from), `at`
(when it was refused) and `row` (the row as JSON, or the line as it was). Keeping them never fails a load.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.frames import TIMESTAMP

ROW_CHARACTERS_MAX = 65_536
_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("origin", pa.string()),
        ("at", TIMESTAMP),
        ("row", pa.string()),
    ]
)
_log = logging.getLogger("headrace")


class DeadLetters:
    """Collects refused rows of one load; `flush` writes them."""

    def __init__(self, folder: Path, origin: str, now_us: int, rows_max: int, files_max: int) -> None:
        """An empty collection.

        Args:
            folder: `.headrace/dead-letter/VIEW`.
            origin: where the rows come from.
            now_us: the time of the load.
            rows_max: the first so many rows of each reason are kept.
            files_max: the oldest files above this number are removed.
        """
        self.folder = folder
        self._origin = origin
        self._now_us = now_us
        self._rows_max = rows_max
        self._files_max = files_max
        self._kept: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []

    def add(self, reason: str, rows: pa.Table | Sequence[str], detail: str = "") -> None:
        """Notes refused rows; only the first `rows_max` of a reason are kept."""
        kept = self._kept.get(reason, 0)
        room = min(self._rows_max - kept, len(rows))
        if room <= 0:
            return
        self._kept[reason] = kept + room
        for text in as_texts(rows, room):
            letter = {"reason": reason, "detail": detail, "origin": self._origin, "at": self._now_us}
            self._rows.append({**letter, "row": text[:ROW_CHARACTERS_MAX]})

    def flush(self) -> Path | None:
        """Writes what was collected to a file of its own; None where there is nothing, or no room for it."""
        if not self._rows:
            return None
        columns = {name: [row[name] for row in self._rows] for name in _SCHEMA.names}
        stamp = dt.datetime.fromtimestamp(self._now_us / 1e6, dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        path = self.folder / f"{stamp}-{uuid.uuid4().hex[:8]}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns, schema=_SCHEMA), temporary, compression="zstd")
            temporary.replace(path)
            for old in sorted(self.folder.glob("*.parquet"))[: -self._files_max]:
                old.unlink(missing_ok=True)
        except (OSError, pa.ArrowException) as error:
            _log.warning("refused rows could not be kept in %s: %s", self.folder, error)
            return None
        self._rows = []
        self._kept = {}
        return path


def as_texts(rows: pa.Table | Sequence[str], rows_max: int) -> list[str]:
    """The first refused rows as text: as JSON, or the lines as they were."""
    if isinstance(rows, pa.Table):
        return [_as_json(row) for row in rows.slice(0, rows_max).to_pylist()]
    return list(rows[:rows_max])


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps(row, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def refused_by_engine(
    batch: pa.RecordBatch, keys: Sequence[str], event_ts: str, latest_us: int
) -> dict[str, pa.RecordBatch]:
    """The rows that the engine refuses, by its reasons: null key, null event time, too far in the future."""
    has_key = pa.repeat(pa.scalar(True), batch.num_rows)
    for name in keys:
        has_key = pc.and_(has_key, pc.is_valid(batch.column(name)))
    found = {"null_key": batch.filter(pc.invert(has_key))}
    times = batch.column(event_ts)
    if not pa.types.is_null(times.type):
        found["null_event_ts"] = batch.filter(pc.and_(has_key, pc.is_null(times)))
        late = pc.fill_null(pc.greater(times.cast(pa.int64()), latest_us), False)
        found["future"] = batch.filter(pc.and_(has_key, late))
    return {reason: rows for reason, rows in found.items() if rows.num_rows}
