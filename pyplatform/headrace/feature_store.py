"""`FeatureStore`: what one does with a project's features, from the definitions to training sets and online reads.

```python
store = FeatureStore("flights")
print(store.plan())
store.apply()
store.materialize()
training = store.get_historical_features("departure_risk", flights, event_ts_column="asked_at")
```
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from headrace import _native
from headrace.arguments import checked_clock, folder_path, machine_clock, service_name
from headrace.config import Config
from headrace.errors import DefinitionError, RefusedRowsWarning, make_error
from headrace.expressions import datetime_us
from headrace.functions import bind_functions
from headrace.online_store import OnlineStore, WriteCounts, recorded_intervals
from headrace.plan_diff import PlanDiff, diff_plans
from headrace.project import Project
from headrace.registry import ModelUse, PlanFolder, registered_models

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.catalog import Entry, FeatureUse
    from headrace.consistency import ConsistencyReport
    from headrace.datasets import Dataset, DatasetFolder, Split
    from headrace.definitions import FeatureService, FileFormat
    from headrace.export import ExportedModel
    from headrace.historical import JoinRequest
    from headrace.history import Compaction, ViewHistory
    from headrace.history_export import Exported
    from headrace.lineage import Lineage
    from headrace.loads import Intake
    from headrace.sources import AsOf, ViewRows

Progress = Callable[[str, int], None]
"""Called with a view's name and the number of its rows written so far."""


class FeatureStore:
    """The features of one project. Safe to share between threads; after a fork, open another one."""

    def __init__(
        self, path: str | os.PathLike[str] = ".", *, clock: Callable[[], int | dt.datetime] | None = None
    ) -> None:
        """Opens a project.

        Args:
            path: the project's folder, with a headrace.toml.
            clock: gives "now" as microseconds UTC or as a datetime; for replays and tests.

        Raises:
            UnknownNameError: `not_found`, the folder has no headrace.toml.
            InputError: a setting is wrong; the path is none, or the clock is no function.
        """
        self._clock = machine_clock if clock is None else checked_clock(clock)
        self.project = Project.open(folder_path(path))
        self._online: OnlineStore | None = None
        self._mutex = threading.RLock()
        self._applied: tuple[tuple[int, ...] | None, _native.Plan, dict[str, Any]] | None = None
        self._view_rows: dict[str, ViewRows] = {}
        self._histories: dict[str, ViewHistory] = {}
        self._engines: list[weakref.WeakMethod[Callable[[], object]]] = []

    @property
    def config(self) -> Config:
        return self.project.config

    @property
    def plans(self) -> PlanFolder:
        return PlanFolder(self.config.state / "plans")

    def now_us(self) -> int:
        """The store's clock, in microseconds UTC."""
        return self._clock()

    # definitions

    def plan(self) -> PlanDiff:
        """What `apply` would change.

        Raises:
            DefinitionError: the definitions are wrong.
        """
        return self._diff(self.project.compile())

    def apply(self) -> PlanDiff:
        """Compiles the definitions and puts them in force; returns what changed.

        Raises:
            DefinitionError: the definitions are wrong, or `breaking_change`: they would break services or models in
                use.
        """
        plan = self.project.compile()
        diff = self._diff(plan)
        if diff.breaking:
            raise DefinitionError(
                "breaking_change",
                "\n  ".join(str(breaking) for breaking in diff.breaking),
                "keep what is in use and add the new definition under another name",
            )
        with self._mutex:
            self.plans.put(plan)
            if self._online is not None and self._online.plan.digest != plan.digest:
                self.close()
        return diff

    def _diff(self, plan: _native.Plan) -> PlanDiff:
        head = self.plans.head()
        old = None if head is None else _native.Plan.from_json(self.plans.load(head))
        return diff_plans(old, plan, self._models())

    @property
    def applied(self) -> _native.Plan:
        """The plan in force.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
        """
        return self._load_applied()[0]

    def _load_applied(self) -> tuple[_native.Plan, dict[str, Any]]:
        """The plan in force, compiled and as a document."""
        with self._mutex:
            mark = self.plans.head_mark()
            if self._applied is None or self._applied[0] != mark:
                plan = _native.Plan.from_json(self.plans.load_head())
                if self._applied is None or self._applied[1].digest != plan.digest:
                    self._view_rows.clear()
                    self._applied = (mark, plan, json.loads(plan.json))
                else:
                    self._applied = (mark, *self._applied[1:])
            return self._applied[1], self._applied[2]

    def _rows_of(self, view: str) -> ViewRows:
        """The rows of a view as the plan in force has them."""
        from headrace.sources import ViewRows

        with self._mutex:
            document = self._load_applied()[1]
            found = self._view_rows.get(view)
            if found is None:
                found = self._view_rows[view] = ViewRows(document, view)
            return found

    # online writes

    def materialize(
        self,
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        views: Sequence[str] | None = None,
        progress: Progress | None = None,
        on: str | None = None,
    ) -> dict[str, WriteCounts]:
        """Loads rows of the views' sources into the online table.

        Args:
            start: rows of an earlier time are left out; None takes all from the beginning. The time of a row is the
                later one of its event time and its creation time (the source's `created_ts` or `available_after`).
            end: rows from this time on are left out, so that nothing is served before it was known; None is now.
                Without a zone, times are UTC.
            views: by default every view that is `online` and has a file source. Of pushed views only those of
                aggregates can be named: they are built anew from their history, as after a change of their definition.
            progress: called after each batch of rows.
            on: "ray" has the files read and reduced to what the table keeps on a Ray cluster, with the same answers;
                rows that a newer one of the same load supersedes then count as stale.

        Returns:
            View -> what became of its rows. Rows of static views are always read whole. A view of aggregates is built
            anew, since an event that comes twice counts twice; `materialize_incremental` adds to it.

        Raises:
            InputError, UnknownNameError, StoreError: a source lacks a column, a file is missing, another process
            writes.
        """
        start_us = None if start is None else datetime_us(start)
        end_us = self.now_us() if end is None else datetime_us(end)
        return {
            view.name: self._materialize_view(view, start_us, end_us, progress, view.is_windowed, on)
            for view in self._file_views(views)
        }

    def materialize_incremental(
        self,
        end: dt.datetime | None = None,
        views: Sequence[str] | None = None,
        progress: Progress | None = None,
        on: str | None = None,
    ) -> dict[str, WriteCounts]:
        """As `materialize`, from where each view's last one ended."""
        end_us = self.now_us() if end is None else datetime_us(end)
        store = self.open_online(writable=True)
        counts = {}
        for view in self._file_views(views):
            spans = store.intervals(view.name)
            is_current = view.aggregates is None or view.aggregates == store.aggregates_of(view.name)
            # A history has events that are in the table already since they were pushed.
            goes_on = bool(spans) and is_current and not view.is_static and not view.is_pushed
            start_us = max(span[1] for span in spans) if goes_on else None
            resets = view.is_windowed and start_us is None
            counts[view.name] = self._materialize_view(view, start_us, end_us, progress, resets, on)
        return counts

    def _file_views(self, names: Sequence[str] | None) -> list[ViewRows]:
        from headrace.sources import ViewRows

        document = self._load_applied()[1]
        if names is None:
            views = document["views"]
            names = [name for name, view in views.items() if view["online"] and view["source"]["kind"] == "file"]
        found = [ViewRows(document, name) for name in names]
        for view in found:
            if view.is_pushed and not view.is_windowed:
                raise make_error(
                    "invalid_argument",
                    f"view '{view.name}' has no files to read",
                    "its rows come with FeatureStore.push",
                )
        return found

    def _materialize_view(
        self,
        view: ViewRows,
        start_us: int | None,
        end_us: int,
        progress: Progress | None,
        resets: bool,
        on: str | None,
    ) -> WriteCounts:
        from headrace.historical import checked_on
        from headrace.loads import load_view

        on = checked_on(on)
        store = self.open_online(writable=True)
        with self._engines_told(store):
            return load_view(store, view, self.config, (start_us, end_us), self.now_us(), progress, resets, on)

    def push(self, view: str, frame: Any) -> WriteCounts:
        """Writes rows of a view to the online table; when this returns they are durable and visible.

        Rows of a view with a PushSource are kept for training too. Rows without a creation time get the time of the
        push.

        Args:
            view: the view's name.
            frame: a pyarrow, pandas or Polars frame, or a dict of columns: the view's keys, event time and features.

        Returns:
            What became of the rows. Where some were refused, a RefusedRowsWarning says how many and why, too.

        Raises:
            InputError: `missing_column`, `type_mismatch`.
            UnknownNameError: `unknown_feature_view`.
            StoreError: `store_locked`, `store_full`, `io`.
        """
        counts = self.push_rows(view, frame)
        if counts.refused:
            told = ", ".join(f"{count} {reason}" for reason, count in counts.refused.items())
            warnings.warn(f"rows pushed to view '{view}' were refused: {told}", RefusedRowsWarning, stacklevel=2)
        return counts

    def push_rows(self, view: str, frame: Any, wrong: Mapping[int, str] | None = None) -> WriteCounts:
        """As `push`, without the warning.

        Args:
            view: the view's name.
            frame: see `push`.
            wrong: row -> why it is refused, of rows that could not be read as the view's types.

        Raises:
            InputError, UnknownNameError, StoreError: as `push`.
        """
        from headrace.frames import to_table
        from headrace.loads import part_by_row

        rows = self._rows_of(view)
        now_us = self.now_us()
        place = f"the frame pushed to view '{view}'"
        with self._intake(rows, "push") as intake:
            table = to_table(frame, place)
            if wrong:
                table, refused = part_by_row(table, wrong)
                intake.refuse("type_mismatch", refused, next(iter(wrong.values())))
            self._write(rows, rows.shape(table, now_us, place, given_by_files=False), now_us, intake)
        return intake.counts

    def delete(self, view: str, keys: Any, event_ts: dt.datetime | None = None) -> WriteCounts:
        """Deletes rows of a view: their keys are not found any more, also not by later writes of older rows.

        Args:
            view: the view's name.
            keys: a frame or a dict of the view's key columns.
            event_ts: from when on; by default now.

        Raises:
            InputError, UnknownNameError, StoreError: as `push`.
        """
        return self.delete_rows(view, keys, None if event_ts is None else datetime_us(event_ts))

    def delete_rows(self, view: str, keys: Any, event_ts_us: int | None = None) -> WriteCounts:
        """As `delete`, with the time in microseconds UTC."""
        rows = self._rows_of(view)
        now_us = self.now_us()
        from_us = now_us if event_ts_us is None else event_ts_us
        table = rows.deletions(keys, from_us, now_us, f"the frame of keys that view '{view}' shall forget")
        with self._intake(rows, "delete") as intake:
            self._write(rows, table, now_us, intake)
        return intake.counts

    def push_file(
        self,
        view: str,
        path: str | os.PathLike[str],
        file_format: FileFormat | None = None,
        progress: Progress | None = None,
    ) -> WriteCounts:
        """Writes the rows of a file, as `push` does, batch by batch.

        A value of a text file that is not of its type makes its row a refused one; what came before an error stays.

        Args:
            view: the view's name.
            path: a file, a folder, a glob or a URL; relative paths start from the current folder.
            file_format: "parquet", "csv", "jsonl" or "delta"; by default from the name's ending.
            progress: called after each batch of rows.

        Raises:
            DefinitionError: `invalid_definition`, the name does not tell the format.
            InputError, UnknownNameError, StoreError: as `push` and `materialize`.
        """
        from headrace.definitions import FileSource
        from headrace.sources import CREATED_TS, TEXT_FORMATS, read_tables

        rows = self._rows_of(view)
        file = FileSource(os.fspath(path), format=file_format)
        place = f"the file {file.path} pushed to view '{view}'"
        names = rows.columns(False)
        with self._intake(rows, file.path) as intake:
            tables = read_tables(
                rows, names, file.path, file.file_format(), Path.cwd(), place, intake.refuse, optional=(CREATED_TS,)
            )
            for table in tables:
                now_us = self.now_us()
                is_text = file.file_format() in TEXT_FORMATS
                shaped = rows.shape(table, now_us, place, given_by_files=False, from_text=is_text, refuse=intake.refuse)
                self._write(rows, shaped, now_us, intake)
                if progress is not None:
                    progress(view, intake.counts.rows)
        return intake.counts

    @contextmanager
    def _intake(self, view: ViewRows, origin: str) -> Iterator[Intake]:
        from headrace.loads import Intake

        intake = Intake(self.config, view, origin, self.now_us())
        try:
            yield intake
        finally:
            intake.keep_sample()

    @contextmanager
    def _engines_told(self, store: OnlineStore) -> Iterator[None]:
        """The engines of this process hear of it if the block leaves another table."""
        before = store.local
        try:
            yield
        finally:
            if store.local is not before:
                self._tell_engines()

    def _write(self, view: ViewRows, table: pa.Table, now_us: int, intake: Intake) -> None:
        from headrace.sources import BATCH_ROWS_MAX

        store = self.open_online(writable=True)
        with self._mutex, self._engines_told(store):
            history = self._history_of(view.name) if view.is_pushed else None
            for batch in table.to_batches(max_chunksize=BATCH_ROWS_MAX):
                intake.write(store, batch, now_us, history=history)

    def erase(self, entity: str, keys: Any, rewrite_datasets: bool = True) -> dict[str, Any]:
        """Removes all that is kept about some keys, and sees to it that late writes do not bring them back.

        They go from the online table, its log and snapshot, from the history, the refused rows and the datasets. A
        server that reads the store forgets them at its next refresh. Rows of these keys with an event time until now
        (static rows: all) are refused from now on, for `erase.block_days` or for good.

        Args:
            entity: whose keys they are; views with several entities lose all rows with such a key.
            keys: a frame or a dict of the entity's join keys.
            rewrite_datasets: datasets with the keys get a new version without them, and the old rows go; False only
                lists them as holding the keys.

        Returns:
            The receipt, which is kept in `.headrace/erasures/`: what was removed, and `still_held`: who has the keys
            still (files of sources, backups, datasets, models that learnt from them).

        Raises:
            UnknownNameError: `unknown_entity`.
            InputError: `missing_column`, `type_mismatch`, `null_key`.
            StoreError: `store_locked`, `io`.
        """
        from headrace.erase import ErasedKeys, Eraser

        document = self._load_applied()[1]
        erased = ErasedKeys.of(document, entity, keys)
        store = self.open_online(writable=True)
        now_us = self.now_us()
        days = self.config.erase.block_days
        until_us = now_us + round(days * 86_400_000_000) if days else None
        with self._mutex, self._engines_told(store):
            self._close_histories()
            eraser = Eraser(self.config.state, self.config.sources_root, document, store, erased, now_us)
            return eraser.run(entity, until_us, rewrite_datasets)

    def compact(self, views: Sequence[str] | None = None) -> dict[str, Compaction]:
        """Makes Parquet of the pushed views' history, removes what is past retention, shortens the log.

        Events older than `history.retention_days` go, unless a dataset refers to them. What ends it loses nothing.

        Args:
            views: by default all that have a history.

        Raises:
            UnknownNameError: `unknown_feature_view`.
            StoreError: `store_locked`, another process writes.
        """
        from headrace.datasets import history_references
        from headrace.history import compact_history

        for view in views or ():
            self._rows_of(view)
        settings = self.config.history
        store = self.open_online(writable=True)
        before_us = self.now_us() - round(settings.retention_days * 86_400_000_000) if settings.retention_days else None
        history = self._history_root
        names = views if views is not None else sorted(folder.name for folder in history.glob("*") if folder.is_dir())
        references = history_references(self.config.state / "datasets")
        with self._mutex:
            store.check_writable()
            self._close_histories()
            done = {
                name: compact_history(history / name, settings.file_bytes, before_us, references.get(name, []))
                for name in names
            }
            store.snapshot()
        return done

    def export_history(self, view: str, target: str | os.PathLike[str]) -> Exported:
        """Appends what was pushed to a view since the last export to a Delta Lake table, each push once.

        Args:
            view: a view with a PushSource.
            target: the table's folder or URL; made if need be. Relative paths start from the current folder.

        Returns:
            `rows` that were appended, `first_push` and `next_push`, and the table's `version`.

        Raises:
            UnknownNameError: `unknown_feature_view`.
            InputError: `invalid_argument`, rows are not pushed to the view.
            ProcessError: `unavailable`, the package deltalake is not installed.
            StoreError: `io`, `corrupt_store`.
        """
        from headrace.history_export import export_history
        from headrace.locations import is_url

        rows = self._rows_of(view)
        if not rows.is_pushed:
            raise make_error("invalid_argument", f"view '{view}' has no pushed rows", "its rows are in its source")
        place = os.fspath(target)
        uri = place if is_url(place) else str(Path(place).absolute())
        return export_history(rows, self._history_root / view, uri, self.config.name)

    # day two

    def backup(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes all that headrace keeps of the project to a new folder, at one moment, while a writer may go on.

        Returns:
            `created_at`, `online_rows` (rows that were accepted until then) and what else backup.json says. Writes that
            are acknowledged after it began are not in it; neither are the files of sources.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
            StoreError: `io`.
        """
        from headrace.backup import make_backup

        return make_backup(self.config, Path(folder).absolute(), self.now_us())

    def _history_of(self, view: str) -> ViewHistory:
        from headrace.history import ViewHistory

        known = self._histories.get(view)
        if known is None:
            known = ViewHistory(self._history_root / view, sync=self.config.online.durability == "disk")
            self._histories[view] = known
        return known

    def _close_histories(self) -> None:
        with ExitStack() as stack:
            while self._histories:
                stack.callback(self._histories.popitem()[1].close)

    @property
    def _history_root(self) -> Path:
        return self.config.state / "history"

    # reads

    def get_historical_features(
        self,
        service: str | FeatureService,
        entity_df: Any,
        event_ts_column: str = "event_timestamp",
        as_known_at: bool | str | None = None,
        statuses: bool = False,
        threads: int | None = None,
        as_of: AsOf | Mapping[str, AsOf] = None,
        memory: str | int | None = None,
        on: str | None = None,
    ) -> pa.Table:
        """A training set: the features of each row as they were at the row's time.

        Args:
            service: the feature service, or its name.
            entity_df: rows with the service's join keys and request fields and a time; a pyarrow, pandas or Polars
                frame, a dict of columns, or the Path of a Parquet file.
                Other columns are passed through.
            event_ts_column: the column with each row's time.
            as_known_at: True leaves out what became known only after the row's time; the name of a timestamp
                column, after the time in it.
            statuses: adds a column `NAME__status` for each feature.
            threads: at most so many; by default one for each core.
            as_of: reads the views as they were: a time, or a version (of a Delta table) or number of pushes before
                (of a pushed view); or view -> one of these, for some views. Other files keep no past: they are
                refused.
            memory: what the join may hold, in bytes or such as "2GB"; by default `offline.memory` of headrace.toml.
                What does not fit is joined in partitions, with the same result.
            on: "ray" joins the partitions on a Ray cluster, with the same result.

        Returns:
            Exactly the rows of `entity_df`, in order, with its columns and the service's features. `.to_pandas()`
            makes a DataFrame. The schema's
            metadata holds counts of the join under `headrace.counts`, as JSON.

        Raises:
            InputError: `missing_column`, `type_mismatch`, `too_large`.
            UnknownNameError: `unknown_feature_service`, `not_found`.
            StoreError: `io`, a source cannot be read, or the disk is full.
        """
        from headrace.historical import historical_features

        request = self._join_request(service, event_ts_column, as_known_at, statuses, threads, as_of, memory, on)
        return historical_features(request, entity_df)

    def write_historical_features(
        self,
        service: str | FeatureService,
        entity_df: Any,
        path: str | os.PathLike[str],
        event_ts_column: str = "event_timestamp",
        as_known_at: bool | str | None = None,
        statuses: bool = False,
        threads: int | None = None,
        as_of: AsOf | Mapping[str, AsOf] = None,
        memory: str | int | None = None,
        on: str | None = None,
    ) -> dict[str, Any]:
        """Writes the training set of `get_historical_features` to a Parquet file; it need not fit into memory.

        Args:
            service: see `get_historical_features`, as for all that is not named here.
            entity_df: given as the Path of a Parquet file, it need not fit into memory either.
            path: the file appears when it is whole, in place of one that was there.
            event_ts_column: the column with each row's time.
            as_known_at: the cutoff.
            statuses: adds a column of statuses for each feature.
            threads: at most so many.
            as_of: reads the views as they were.
            memory: what the join may hold.
            on: "ray", or None for this machine.

        Returns:
            Counts of the join: `rows`, and for each view in `views` how many rows were found, missing, or left out.

        Raises:
            InputError, UnknownNameError, StoreError: as `get_historical_features`.
        """
        from headrace.historical import write_historical_features

        request = self._join_request(service, event_ts_column, as_known_at, statuses, threads, as_of, memory, on)
        return write_historical_features(request, entity_df, Path(path))

    def _join_request(
        self,
        service: str | FeatureService,
        event_ts_column: str,
        as_known_at: bool | str | None,
        statuses: bool,
        threads: int | None,
        as_of: AsOf | Mapping[str, AsOf],
        memory: str | int | None,
        on: str | None,
    ) -> JoinRequest:
        from headrace.historical import join_request

        plan, document = self._load_applied()
        bind_functions(plan, self.project)
        return join_request(
            self.config,
            plan,
            document,
            service_name(service),
            event_ts_column=event_ts_column,
            as_known_at=as_known_at,
            now_us=self.now_us(),
            statuses=statuses,
            threads=threads,
            memory=memory,
            on=on,
            as_of=as_of,
        )

    # datasets

    def create_dataset(
        self,
        name: str,
        service: str,
        entity_df: Any,
        splits: Split | None = None,
        as_known_at: bool | str | None = None,
        event_ts_column: str = "event_timestamp",
        as_of: AsOf | Mapping[str, AsOf] = None,
        memory: str | int | None = None,
        on: str | None = None,
    ) -> Dataset:
        """Makes a training set and keeps it for good, as the next version of a dataset.

        Args:
            name: the dataset's name.
            service: the feature service's name.
            entity_df: as `get_historical_features` takes it; so are the arguments that are named alike.
            splits: a `TimeSplit` or a `HashSplit`; the part of a row stands in the column `__split`.
            as_known_at: see `get_historical_features`.
            event_ts_column: see there.
            as_of: see there.
            memory: what the join may hold beside the training set itself.
            on: see there.

        Returns:
            The new version; if the same rows of the same query are kept already, the version that has them.

        Raises:
            InputError, UnknownNameError, StoreError: as `get_historical_features`; `io`, there is no room.
        """
        from headrace.datasets import frame_digest
        from headrace.frames import to_table
        from headrace.historical import read_entities

        is_file = isinstance(entity_df, os.PathLike)
        entities = read_entities(Path(entity_df)) if is_file else to_table(entity_df, "the entity frame")
        lineage, states = self.dataset_lineage(service, entities, event_ts_column, as_of)
        table = self.get_historical_features(
            service, entities, event_ts_column, as_known_at, as_of=states, memory=memory, on=on
        )
        query = {
            "service": service,
            "event_ts_column": event_ts_column,
            "as_known_at": as_known_at,
            "entities": {"digest": frame_digest(entities), "rows": entities.num_rows},
        }
        return self.datasets.put(name, table, splits, query, lineage, self.now_us())

    def dataset_lineage(
        self, service: str, entities: pa.Table, event_ts_column: str, as_of: AsOf | Mapping[str, AsOf] = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a training set of these rows would come from, and the `as_of` with which to join just that."""
        import pyarrow.compute as pc

        from headrace.datasets import view_lineage
        from headrace.dtypes import Timestamp
        from headrace.frames import cast_column, take_columns

        plan, document = self._load_applied()
        views = json.loads(plan.service(service))["views"]
        column = take_columns(entities, [event_ts_column], "the entity frame").column(event_ts_column)
        times = cast_column(column, Timestamp, f"the entity frame, column '{event_ts_column}'")
        first_us = pc.min(times.cast("int64")).as_py()
        root = self.config.sources_root
        lineage, states = view_lineage(document, views, root, self._history_root, first_us, as_of)
        return {"plan_digest": plan.digest, "views": lineage}, states

    @property
    def datasets(self) -> DatasetFolder:
        """All datasets of the project."""
        from headrace.datasets import DatasetFolder

        return DatasetFolder(self.config.state / "datasets")

    def dataset(self, name: str, version: int | str | None = None) -> Dataset:
        """A dataset that was kept.

        Args:
            name: the dataset's name.
            version: its number or its digest; by default the newest.

        Raises:
            UnknownNameError: `not_found`.
        """
        return self.datasets.get(name, version)

    def get_online_features(
        self,
        service: str | FeatureService,
        entities: Mapping[str, Sequence[Any]],
        request: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, Any]:
        """The features of some entities now.

        Args:
            service: the feature service, or its name.
            entities: join key -> values, one for each row.
            request: request field -> values, for on-demand features.

        Returns:
            `{"features": {name: [values]}, "statuses": {name: [PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or
            INVALID]}}`; the value
            is None where there is none.

        Raises:
            UnknownNameError: `unknown_feature_service`, `unknown_entity`.
            InputError: `type_mismatch`, `length_mismatch`, `missing_column`.
        """
        return self.online_plan(service).read(entities, request or {}, now_us=self.now_us())

    def verify_consistency(
        self,
        deployment: str | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        lag: dt.timedelta = dt.timedelta(seconds=5),
    ) -> ConsistencyReport:
        """Recomputes the lookups of the payload log offline, as of their times, and compares value by value.

        What it found is also kept in `.headrace/consistency.json`, from where a server takes it into its metrics.

        Args:
            deployment: only this one's (a model, or a feature service); by default all.
            since: only lookups from this time on.
            until: only lookups before this time.
            lag: how late online may be: a value that was right a moment before counts as late, not as wrong.

        Raises:
            StoreError: `corrupt_store`, a segment or a source cannot be read; `newer_format`.
        """
        from headrace.consistency import verify

        return verify(self, deployment, since, until, lag)

    def online_plan(self, service: str | FeatureService) -> _native.OnlinePlan:
        """A service prepared for fast reads: `plan.read_into(keys, out, status=None)` fills the caller's array.

        It reads the table of this moment's `open_online()`; a reader's plan sees new writes after the next read
        through the store.

        Raises:
            UnknownNameError: `unknown_feature_service`.
        """
        store = self.open_online()
        store.refresh()
        bind_functions(store.plan, self.project)
        return store.local.online_plan(service_name(service))

    # models

    def register_model(
        self,
        name: str,
        exported: ExportedModel,
        service: str | FeatureService | None = None,
        *,
        features: Sequence[str] | Mapping[str, str] | None = None,
        task: str | None = None,
        labels: Sequence[str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> _native.Model:
        """Makes the next version of a model, which engines over this project serve from then on.

        ```python
        exported = export_sklearn(pipeline, "risk.safetensors", golden=rows[:50])
        model = store.register_model("risk", exported, service="departure_risk")
        ```

        Args:
            name: the model's; a plain name.
            exported: what an exporter of `headrace.export` returned.
            service: the feature service whose features the model takes; None for a model that is given its features.
            features: the names of the model's features in its order, where the exporter found none or others; a mapping
                also gives their types, for a model without a service.
            task: `classification`, `regression`, `multi_label` or `ranking`; by default what the exporter found.
            labels: the names of the classes in the order of the scores; by default what the exporter found.
            metrics: measures that the version keeps, in any form that JSON has.
            lineage: where the model came from, likewise.

        Returns:
            The version, loaded: the engine has reproduced the golden rows that the exporter computed.

        Raises:
            UnknownNameError: `unknown_feature_service`, `unknown_feature`, or `not_found`: nothing has been applied.
            InputError: `length_mismatch`, names for another number of features; `invalid_argument`.
            StoreError: `golden_row_mismatch`, `unsupported_model`, `unavailable`; no version is made then.
        """
        from headrace.registration import create_version, signature_of

        compiled, digest = None, None
        if service is not None:
            plan = self.applied
            compiled, digest = json.loads(plan.service(service_name(service))), plan.digest
        signature = signature_of(exported, compiled, digest, features)
        return create_version(
            self.config.state / "models",
            name,
            exported,
            signature,
            self.config.models,
            task=task,
            labels=labels,
            metrics=metrics,
            lineage=lineage,
        )

    # the catalogue

    def search(
        self, text: str = "", tags: Mapping[str, str] | Sequence[str] | None = None, owner: str | None = None
    ) -> list[Entry]:
        """Entities, views, features, services and models that hold every word of a text, best first.

        Words are looked for in names, tags, owners and descriptions; a part of a word is enough.

        Args:
            text: words in any order; empty finds everything.
            tags: only what has these: `{"tier": "gold"}`, or a list of `"tier"` and `"tier=gold"`.
            owner: only what is this owner's.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
            InputError: `invalid_argument`.
        """
        from headrace.catalog import entries_of, search

        return search(entries_of(self._load_applied()[1], self._models()), text, tags, owner)

    def features(self) -> list[FeatureUse]:
        """Every feature with its owner, its freshness, and the services and models that use it.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
        """
        from headrace.catalog import features_of

        document = self._load_applied()[1]
        online = self._online
        spans = online.intervals if online is not None else recorded_intervals(self.config.state / "online")
        fresh = {view: max(end for _, end in spans(view)) for view in document["views"] if spans(view)}
        return features_of(document, self._models(), fresh)

    def lineage(self, name: str | None = None) -> Lineage:
        """From source columns to features, services and models: of the whole project, or what leads to and from a name.

        Args:
            name: of a feature (`temp`, `weather:temp`), a view, a service, a model (`late`, `late/3`), a source, or a
                column of one (`data/weather.parquet#temp`).

        Raises:
            UnknownNameError: `not_found`, nothing has that name, or nothing has been applied.
        """
        from headrace.lineage import lineage_of

        graph = lineage_of(self._load_applied()[1], self._models())
        return graph if name is None else graph.about(name)

    def describe(self, name: str) -> dict[str, Any]:
        """Statistics of what was written to a view, or to the views of a service, gathered at ingest.

        They are of the rows that `push` and `materialize` were given, each as often as it was; deletions are left out.

        Args:
            name: of a view or a service.

        Returns:
            `{"name", "kind", "rows", "rows_missed", "event_ts", "columns": {feature: {"dtype", "rows", "nulls", "nans",
            "min", "max", "mean", "std", "quantiles", "distinct", "top", "histogram", ..}}}`; a computed feature of a
            service is None. `rows_missed`: rows of all views that a killed process had not yet counted.

        Raises:
            UnknownNameError: `not_found`.
            StoreError: `corrupt_store`, the statistics cannot be read.
        """
        from headrace.statistics import IngestStatistics, describe_definition

        online = self._online
        statistics = online.statistics if online is not None else None
        if statistics is None:
            statistics = IngestStatistics(self.config.state / "online/statistics")
        with self._mutex:
            return describe_definition(self._load_applied()[1], name, statistics)

    def _models(self) -> list[ModelUse]:
        return registered_models(self.config.state / "models")

    # state

    def open_online(self, *, writable: bool = False) -> OnlineStore:
        """The online store: the one that is open, or a newly opened one.

        Args:
            writable: opens it for writing, which only one process may do at a time. A reader that is open is replaced.

        Raises:
            UnknownNameError: `not_found`, nothing has been applied.
            StoreError: `store_locked`, `corrupt_store`.
        """
        with self._mutex:
            plan = self._load_applied()[0]
            online = self._online
            if online is not None and (online.plan.digest != plan.digest or (writable and not online.writable)):
                online.close()
                online = None
            if online is not None:
                return online
            opened = OnlineStore(self.config.state / "online", plan, self.config.online, writable=writable)
            if writable:
                try:
                    self._settle_histories(opened.next_sequence)
                except BaseException:
                    opened.close()
                    raise
            self._online = opened
            self._tell_engines()
            return self._online

    def _settle_histories(self, next_sequence: int) -> None:
        from headrace.history import settle

        self._close_histories()
        try:
            settle(self._history_root, next_sequence, sync=self.config.online.durability == "disk")
        except OSError as error:
            message = f"the history {self._history_root} cannot be opened for writing: {error}"
            raise make_error("io", message, "make room on the disk, and check its rights") from error

    def locked(self) -> AbstractContextManager[object]:
        """Holds off what changes the store's table in other threads of this process."""
        return self._mutex

    def on_new_table(self, callback: Callable[[], object]) -> None:
        """Has a bound method called whenever the online table is another object. It is held weakly."""
        self._engines.append(weakref.WeakMethod(callback))

    def _tell_engines(self) -> None:
        for reference in list(self._engines):
            callback = reference()
            if callback is None:
                self._engines.remove(reference)
            else:
                callback()

    def close(self) -> None:
        """Makes a snapshot of what this process wrote and lets others write. Nothing is lost without it."""
        with self._mutex:
            try:
                self._close_histories()
            finally:
                if self._online is not None:
                    self._online.close()
                    self._online = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
