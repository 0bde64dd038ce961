"""The proof that online equals offline: lookups that were served, recomputed from history as it was known then.

A lookup at time t is recomputed by the point-in-time join at t with `as_known_at` t, under the plan that was in force.
Where the two differ, the join is asked again as of each earlier moment at which a row of that key was created: if one
of these states is what was served, online was late, by the time since the first row that it had not seen.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import _native
from headrace.config import CONSISTENCY_FILE, PAYLOAD_FOLDER
from headrace.consistency_values import Difference, compare_values, plain_value, tolerances
from headrace.errors import HeadraceError
from headrace.files import write_atomic
from headrace.frames import TIMESTAMP
from headrace.functions import bind_functions
from headrace.historical import historical_features, join_request
from headrace.history import read_history
from headrace.payload import Lookups, read_lookups
from headrace.sources import CREATED_TS, ViewRows, leave_out, read_rows

if TYPE_CHECKING:
    from headrace.feature_store import FeatureStore

LAG = dt.timedelta(seconds=5)
"""How late online may be by default: what a server takes to bring in other processes' writes, and some room."""
ROWS_MAX = 500_000
"""Lookups that are recomputed at a time."""
EXPLAINED_ROWS_MAX = 20_000
"""Lookups of a deployment and plan for whose differences the lag is sought; the others count as not explained."""
MOMENTS_MAX = 256
"""Earlier states that are tried for a lookup, the latest first; fewer where many lookups differ."""
TRIED_ROWS_MAX = 500_000
"""Earlier states that are tried for all lookups together, or a few of each."""
MOMENTS_MIN = 16
EXAMPLES_MAX = 5
Group = tuple[str, str, str, tuple[str, ...], str]
"""Deployment, service, plan, features and schema of lookups that are recomputed together."""
_AT, _KNOWN = "__served_at", "__known_at"
_ROW, _KEY = "__row", "__key"
_RACE_US = 1_000


@dataclass
class FeatureFinding:
    """One feature of one deployment: what was served beside what is recomputed."""

    deployment: str
    feature: str
    count: int = 0
    """Served values that were recomputed."""
    mismatched: int = 0
    """Both sides have a value and they differ, or neither has one and the statuses differ."""
    missing: int = 0
    """Offline has a value, online had none."""
    extra: int = 0
    """Online had a value, offline has none."""
    late: int = 0
    """Served values that were right a moment before: within the lag that is allowed, so in none of the above."""
    largest_difference: float | None = None
    """The largest absolute difference of two numbers that count as mismatched."""
    lags_seconds: list[float] = field(default_factory=list)
    """By how much online was late, where an earlier state is what was served; within the allowed lag or not."""
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def differing(self) -> int:
        return self.mismatched + self.missing + self.extra

    def to_json(self) -> dict[str, Any]:
        lags = sorted(self.lags_seconds)
        lag = {"median": lags[len(lags) // 2], "max": lags[-1], "values": len(lags)} if lags else None
        return {
            "deployment": self.deployment,
            "feature": self.feature,
            "count": self.count,
            "mismatched": self.mismatched,
            "missing": self.missing,
            "extra": self.extra,
            "late": self.late,
            "mismatch_ratio": self.differing / max(self.count, 1),
            "largest_difference": self.largest_difference,
            "lag_seconds": lag,
            "examples": self.examples,
        }


@dataclass
class ConsistencyReport:
    """What a verification found."""

    verified_at_us: int
    rows: int = 0
    """Lookups that were recomputed."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Lookups that could not be, by reason."""
    features: list[FeatureFinding] = field(default_factory=list)

    @property
    def is_consistent(self) -> bool:
        return not any(one.differing for one in self.features)

    def to_json(self) -> dict[str, Any]:
        return {
            "verified_at_us": self.verified_at_us,
            "consistent": self.is_consistent,
            "rows": self.rows,
            "skipped": dict(self.skipped),
            "features": [one.to_json() for one in self.features],
        }


def verify(
    store: FeatureStore,
    deployment: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    lag: dt.timedelta = LAG,
) -> ConsistencyReport:
    """See `FeatureStore.verify_consistency`."""
    report = ConsistencyReport(store.now_us())
    findings: dict[tuple[str, str], FeatureFinding] = {}
    waiting: dict[Group, list[pa.Table]] = defaultdict(list)
    plans = Plans(store)

    def judge(key: Group) -> None:
        name, service, digest, features, _ = key
        table = pa.concat_tables(waiting.pop(key))
        try:
            plan, document = plans.load(digest)
            shape = json.loads(plan.service(service))
        except HeadraceError as error:
            report.skipped[f"the plan or the service is not there any more: {error.message}"] += table.num_rows
            return
        lag_us = round(lag.total_seconds() * 1e6)
        Judge(store, name, plan, document, shape, lag_us, report, findings).judge(features, table)

    for lookups in read_lookups(store.config.state / PAYLOAD_FOLDER, deployment, since, until):
        table = _usable(lookups, since, until, report)
        for digest, chosen in plans.in_force(lookups.plan_digest, table):
            key = (lookups.deployment, lookups.service, digest, lookups.features, str(chosen.schema))
            waiting[key].append(chosen)
            if sum(one.num_rows for one in waiting[key]) >= ROWS_MAX:
                judge(key)
    for key in list(waiting):
        judge(key)
    report.features = [findings[key] for key in sorted(findings)]
    if report.rows:
        write_atomic(store.config.state / CONSISTENCY_FILE, json.dumps(report.to_json(), default=str).encode())
    return report


def _usable(
    lookups: Lookups, since: dt.datetime | None, until: dt.datetime | None, report: ConsistencyReport
) -> pa.Table:
    """The lookups of a segment that can be recomputed, as one flat table; the others are counted."""
    columns = {name: lookups.rows.column(name) for name in lookups.rows.column_names}
    for prefix, members in (("key", lookups.keys), ("input", lookups.inputs), ("output", lookups.outputs)):
        columns |= {f"{prefix}:{name}": column for name, column in members.items()}
    table = pa.table(columns)
    at = table.column("at")
    chosen = pc.is_valid(at)
    for bound, keeps in ((since, pc.greater_equal), (until, pc.less)):
        if bound is not None:
            chosen = pc.and_(chosen, keeps(at, pa.scalar(bound, TIMESTAMP)))
    table = table.filter(chosen)
    is_ok = pc.fill_null(pc.equal(table.column("status"), "ok"), False)
    report.skipped["the row was invalid"] += table.num_rows - (pc.sum(is_ok).as_py() or 0)
    table = table.filter(is_ok)
    given = pa.array(np.zeros(table.num_rows, bool))
    for name in lookups.features:
        status = f"output:{name}__status"
        if status in table.column_names:
            given = pc.or_(given, pc.fill_null(pc.equal(table.column(status).cast(pa.string()), "GIVEN"), False))
    report.skipped["the request gave features itself"] += pc.sum(given).as_py() or 0
    report.skipped = +report.skipped
    return table.filter(pc.invert(given))


class Plans:
    """The plans of a project, and which one was in force when a request came."""

    def __init__(self, store: FeatureStore) -> None:
        self._folder = store.plans
        self._project = store.project
        self._loaded: dict[str, tuple[_native.Plan, dict[str, Any]]] = {}
        self.head = store.plans.head()
        try:
            self._head_since_us = (store.plans.folder / "HEAD").stat().st_mtime_ns // 1000
        except FileNotFoundError:
            self._head_since_us = store.now_us()

    def in_force(self, named: str, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """The lookups by the plan that they are held to: what was applied last, since it was applied; before, the plan
        that they name. So a server that goes on with an old plan is found out.
        """
        if self.head is None or self.head == named:
            yield named, table
            return
        after = pc.greater_equal(table.column("at"), pa.scalar(self._head_since_us, pa.int64()).cast(TIMESTAMP))
        for digest, chosen in ((self.head, table.filter(after)), (named, table.filter(pc.invert(after)))):
            if chosen.num_rows:
                yield digest, chosen

    def load(self, digest: str) -> tuple[_native.Plan, dict[str, Any]]:
        """A plan, compiled and as a document.

        Raises:
            HeadraceError: it is not there, or is not what its name says.
        """
        if digest not in self._loaded:
            text = self._folder.load(digest)
            plan = _native.Plan.from_json(text)
            bind_functions(plan, self._project)
            self._loaded[digest] = (plan, json.loads(text))
        return self._loaded[digest]


@dataclass
class Judge:
    """Recomputes lookups of one deployment under one plan."""

    store: FeatureStore
    deployment: str
    plan: _native.Plan
    document: dict[str, Any]
    shape: dict[str, Any]
    """The feature service, as the plan tells it."""
    lag_us: int
    report: ConsistencyReport
    findings: dict[tuple[str, str], FeatureFinding]

    def judge(self, features: tuple[str, ...], table: pa.Table) -> None:
        """Adds to the report what these lookups of some features show."""
        wanted = {f"key:{one['name']}" for one in self.shape["join_keys"]}
        wanted |= {f"input:{one['name']}" for one in self.shape["request_fields"]}
        if not wanted <= set(table.column_names):
            reason = "the plan in force asks for more keys or request fields than were given"
            self.report.skipped[reason] += table.num_rows
            return
        known = {one["name"] for one in self.shape["features"]}
        allowed = tolerances(self.document, self.shape)
        recomputed = self._recompute(table, table.column("at"), table.column("at"))
        differences = {}
        for name in features:
            if name not in known:
                self.report.skipped[f"feature '{name}' is not in the plan in force"] += table.num_rows
                continue
            finding = self._finding(name)
            finding.count += table.num_rows
            differences[name] = compare_values(served_of(table, name), recomputed_of(recomputed, name), allowed[name])
        self.report.rows += table.num_rows
        self._explain(table, differences, allowed)

    def _finding(self, feature: str) -> FeatureFinding:
        return self.findings.setdefault((self.deployment, feature), FeatureFinding(self.deployment, feature))

    def _recompute(self, table: pa.Table, at: Any, known_at: Any) -> pa.Table:
        """The features of the lookups, at a time and as they were known at another one."""
        columns = {one["name"]: table.column(f"key:{one['name']}") for one in self.shape["join_keys"]}
        columns |= {one["name"]: table.column(f"input:{one['name']}") for one in self.shape["request_fields"]}
        request = join_request(
            self.store.config,
            self.plan,
            self.document,
            self.shape["name"],
            event_ts_column=_AT,
            as_known_at=_KNOWN,
            now_us=self.store.now_us(),
            statuses=True,
        )
        return historical_features(request, pa.table({**columns, _AT: at, _KNOWN: known_at}))

    def _explain(self, table: pa.Table, differences: dict[str, Difference], allowed: dict[str, float]) -> None:
        """Counts the differences, those that an earlier state explains within the allowed lag as late."""
        differing = np.zeros(table.num_rows, bool)
        for difference in differences.values():
            differing |= difference.differs
        rows = np.flatnonzero(differing)
        lags = self._lags(table.take(rows[:EXPLAINED_ROWS_MAX]), differences, allowed) if rows.size else {}
        for name, difference in differences.items():
            finding = self._finding(name)
            for place, row in enumerate(rows.tolist()):
                if not difference.differs[row]:
                    continue
                lag_us = lags[name].get(place)
                if lag_us is not None:
                    finding.lags_seconds.append(lag_us / 1e6)
                if lag_us is not None and lag_us <= self.lag_us:
                    finding.late += 1
                    continue
                self._count(finding, difference, row)
                if len(finding.examples) < EXAMPLES_MAX:
                    finding.examples.append(self._example(table, name, difference, row, lag_us))

    def _count(self, finding: FeatureFinding, difference: Difference, row: int) -> None:
        finding.missing += int(difference.is_missing[row])
        finding.extra += int(difference.is_extra[row])
        finding.mismatched += int(not (difference.is_missing[row] or difference.is_extra[row]))
        size = difference.size_at(row)
        if size is not None:
            finding.largest_difference = max(finding.largest_difference or 0.0, size)

    def _example(
        self, table: pa.Table, name: str, difference: Difference, row: int, lag_us: int | None
    ) -> dict[str, Any]:
        names = [one["name"] for one in self.shape["join_keys"]]
        keys = {name: plain_value(table.column(f"key:{name}")[row]) for name in names}
        return {
            "request_id": table.column("request_id")[row].as_py(),
            "at": str(plain_value(table.column("at")[row])),
            "keys": keys,
            "served": difference.served.value_at(row),
            "served_status": difference.served.status_at(row),
            "recomputed": difference.recomputed.value_at(row),
            "recomputed_status": difference.recomputed.status_at(row),
            "lag_seconds": None if lag_us is None else lag_us / 1e6,
        }

    def _lags(
        self, table: pa.Table, differences: dict[str, Difference], allowed: dict[str, float]
    ) -> dict[str, dict[int, int]]:
        """For each feature, by the place of a lookup, how late online was; only where an earlier state was served."""
        at_us = _us(table.column("at"))
        places, times, known, lags = [], [], [], []
        for place, moments in enumerate(self._moments(table, at_us)):
            # A write that came while the lookup ran, between its clock and its read.
            during = at_us[place] + max(table.column("compute_us")[place].as_py() or 0, 0) + _RACE_US
            places.append(place)
            times.append(during)
            known.append(during)
            lags.append(0)
            for moment in moments:
                places.append(place)
                times.append(at_us[place])
                known.append(moment - 1)
                lags.append(at_us[place] - moment)
        tried = table.take(pa.array(places))
        recomputed = self._recompute(tried, _times(times), _times(known))
        found: dict[str, dict[int, int]] = {}
        for name in differences:
            same = ~compare_values(served_of(tried, name), recomputed_of(recomputed, name), allowed[name]).differs
            best: dict[int, int] = {}
            for position in np.flatnonzero(same).tolist():
                place, lag_us = places[position], lags[position]
                best[place] = min(lag_us, best.get(place, lag_us))
            found[name] = best
        return found

    def _moments(self, table: pa.Table, at_us: list[int]) -> list[list[int]]:
        """For each lookup, when rows of its keys were created up to its time: the latest ones, the latest first."""
        limit = min(MOMENTS_MAX, max(MOMENTS_MIN, TRIED_ROWS_MAX // max(len(at_us), 1)))
        found: list[set[int]] = [set() for _ in at_us]
        for view_name in self.shape["views"]:
            view = ViewRows(self.document, view_name)
            if view.is_static:
                continue
            numbers, created = self._created(view, table)
            for row, (number, until_us) in enumerate(zip(numbers, at_us, strict=True)):
                of_key = created.get(number, np.empty(0, np.int64))
                end = int(np.searchsorted(of_key, until_us, "right"))
                found[row].update(of_key[max(end - limit, 0) : end].tolist())
        return [sorted(moments, reverse=True)[:limit] for moments in found]

    def _created(self, view: ViewRows, table: pa.Table) -> tuple[list[int | None], dict[int | None, Any]]:
        """A number for each lookup's key, and for each number when rows of that key were created, in order."""
        keys = list(view.keys)
        asked = pa.table({_ROW: range(table.num_rows)} | {name: table.column(f"key:{name}") for name in keys})
        distinct = asked.group_by(keys).aggregate([]) if keys else asked.select([_ROW]).slice(0, 1)
        distinct = distinct.append_column(_KEY, pa.array(range(distinct.num_rows), pa.int64()))
        batches = [
            numbered(pa.Table.from_batches([batch]).select([*keys, CREATED_TS]), distinct, keys)
            for batch in self._rows_of(view)
        ]
        rows = pa.concat_tables(batches) if batches else None
        numbers = numbered(asked, distinct, keys)
        of_row = dict(zip(numbers.column(_ROW).to_pylist(), numbers.column(_KEY).to_pylist(), strict=True))
        created: dict[int | None, Any] = {}
        if rows is not None:
            number = np.asarray(rows.column(_KEY))
            moments = np.asarray(rows.column(CREATED_TS).cast(pa.int64()))
            order = np.lexsort((moments, number))
            number, moments = number[order], moments[order]
            starts = np.searchsorted(number, np.arange(distinct.num_rows + 1))
            created = {place: moments[starts[place] : starts[place + 1]] for place in range(distinct.num_rows)}
        return [of_row.get(row) for row in range(table.num_rows)], created

    def _rows_of(self, view: ViewRows) -> Iterable[pa.RecordBatch]:
        config = self.store.config
        if view.is_pushed:
            return read_history(view, config.state / "history" / view.name)
        return read_rows(view, config.sources_root, self.store.now_us(), leave_out)


def numbered(table: pa.Table, distinct: pa.Table, keys: list[str]) -> pa.Table:
    """The rows whose key is among the distinct ones, with its number; a null key is none of them."""
    if not keys:
        return table.append_column(_KEY, pa.array(np.zeros(table.num_rows, np.int64)))
    return table.join(distinct, keys, join_type="inner")


def served_of(table: pa.Table, name: str) -> tuple[Any, Any]:
    """Values and statuses of a feature as they were logged."""
    status = f"output:{name}__status"
    return table.column(f"output:{name}"), table.column(status) if status in table.column_names else None


def recomputed_of(table: pa.Table, name: str) -> tuple[Any, Any]:
    """Values and statuses of a feature as the join gives them."""
    return table.column(name), table.column(f"{name}__status")


def _us(column: Any) -> list[int]:
    found: list[int] = column.cast(pa.int64()).to_pylist()
    return found


def _times(microseconds: list[int]) -> Any:
    return pa.array(microseconds, pa.int64()).cast(TIMESTAMP)
