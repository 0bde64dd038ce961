//! What every [`OnlineStore`] must do, as checks that any implementation runs: `check_online_store(&|plan| ..)` in a test.
//!
//! A store is driven as the engine drives it: batches of [`encode_rows`], lookups by [`OnlinePlan`]. Beside it stands a
//! model of a few lines: the newest row of each key, tombstones included. A failed check panics and says what differs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headrace_types::{Batch, Column, ColumnData, ErrorCode, FeatureStatus, RowVersion, Value};
use serde_json::json;

use crate::join::{CREATED_TS_COLUMN, DELETED_COLUMN, EVENT_TS_COLUMN};
use crate::online::{ApplyCounts, EncodeOptions, OnlinePlan, OnlineStore, encode_rows};
use crate::plan::Plan;

const KEYS: u64 = 7;
const TIMES: u64 = 12;
const TTL_US: i64 = 4;
const ROUNDS: usize = 120;
const LONG: &str = "a text that is longer than what a row may keep in itself";

/// Runs all checks, each on stores that `make` makes for a plan. Stores are empty when they are made.
///
/// # Panics
/// Where a store does not do what it must.
pub fn check_online_store(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    the_newest_row_of_each_key_is_found(make);
    a_batch_that_is_applied_again_changes_nothing(make);
    rows_of_another_definition_are_matched_by_name(make);
    bytes_that_are_no_batch_are_refused(make);
    a_lookup_checks_what_it_is_given(make);
    readers_see_whole_rows_beside_a_writer(make);
}

/// Two views of one key, one with a TTL; `fields` adds to those of the first.
fn plan(fields: &[(&str, &str)]) -> Plan {
    let field = |name: &str, dtype: &str| json!({"name": name, "dtype": dtype});
    let source = json!({"kind": "push", "event_ts": "at", "created_ts": "made"});
    let mut first = vec![field("x", "float64"), field("n", "float32")];
    first.extend(fields.iter().map(|(name, dtype)| field(name, dtype)));
    let second = vec![field("text", "string"), field("y", "float64")];
    let of = |view: &str, names: &[serde_json::Value]| -> Vec<_> {
        let feature = |one: &serde_json::Value| json!({"view": view, "feature": one["name"], "name": one["name"]});
        names.iter().map(feature).collect()
    };
    let all = [of("first", &first), of("second", &second)].concat();
    let numbers = [of("first", &first[..2]), of("second", &second[1..])].concat();
    let document = json!({
        "format": 1, "project": "conformance",
        "entities": {"thing": {"join_keys": [{"name": "id", "dtype": "int64"}]}},
        "views": {
            "first": {"entities": ["thing"], "online": true, "ttl_us": null, "fields": first, "source": source},
            "second": {"entities": ["thing"], "online": true, "ttl_us": TTL_US, "fields": second, "source": source},
        },
        "services": {
            "all": {"features": all},
            "numbers": {"features": numbers},
        },
    });
    Plan::from_json(&document.to_string()).expect("the plan of the conformance checks")
}

/// A row of a view: its fields stand for a number, in which None is null everywhere.
#[derive(Debug, Clone)]
struct Row {
    key: i64,
    event_ts: i64,
    created_ts: i64,
    value: Option<i64>,
    deleted: bool,
}

fn encoded(plan: &Plan, view: &str, rows: &[Row], first_sequence: u64) -> Vec<u8> {
    let times = |of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(rows.iter().map(of).collect::<Vec<_>>()).with_timezone("UTC"))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(rows.iter().map(|row| row.key).collect::<Vec<_>>()))),
        (EVENT_TS_COLUMN, times(|row| row.event_ts)),
        (CREATED_TS_COLUMN, times(|row| row.created_ts)),
        (DELETED_COLUMN, Arc::new(BooleanArray::from(rows.iter().map(|row| row.deleted).collect::<Vec<_>>()))),
    ];
    let view = plan.view(view).expect("a view of the plan");
    for field in &view.fields {
        let numbers = rows.iter().map(|row| row.value);
        let column: ArrayRef = match field.dtype.to_string().as_str() {
            "float64" => Arc::new(numbers.map(|value| value.map(|value| value as f64)).collect::<Float64Array>()),
            "float32" => Arc::new(numbers.map(|value| value.map(|value| value as f32)).collect::<Float32Array>()),
            _ => Arc::new(numbers.map(|value| value.map(text)).collect::<StringArray>()),
        };
        columns.push((field.name.as_str(), column));
    }
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .expect("columns of one length");
    encode_rows(view, &batch, &EncodeOptions::new(first_sequence, i64::MAX, 0)).expect("rows that can be encoded").bytes
}

fn text(value: i64) -> String {
    if value % 2 == 0 { format!("{value}") } else { format!("{value} {LONG}") }
}

/// A sequence that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn row(&mut self) -> Row {
        Row {
            key: self.below(KEYS) as i64 - 2,
            event_ts: self.below(TIMES) as i64,
            created_ts: self.below(3) as i64,
            value: (self.below(5) > 0).then(|| self.below(1000) as i64),
            deleted: self.below(5) == 0,
        }
    }
}

type Newest = BTreeMap<(&'static str, i64), (RowVersion, Row)>;

/// What the rows of a batch become, one after the other.
fn counted(newest: &mut Newest, view: &'static str, rows: &[Row], first_sequence: u64) -> ApplyCounts {
    let mut counts = ApplyCounts::default();
    for (row, sequence) in rows.iter().zip(first_sequence..) {
        let version = RowVersion { event_ts: row.event_ts, created_ts: row.created_ts, sequence };
        let known = newest.get(&(view, row.key)).map(|(version, _)| *version);
        if known.is_some_and(|known| known >= version) {
            counts.stale += 1;
            continue;
        }
        match (row.deleted, known) {
            (true, _) => counts.deleted += 1,
            (false, None) => counts.inserted += 1,
            (false, Some(_)) => counts.replaced += 1,
        }
        newest.insert((view, row.key), (version, row.clone()));
    }
    counts
}

/// What a lookup must find of a view's fields.
fn expected(newest: &Newest, view: &'static str, key: i64, now_us: i64) -> (Option<i64>, FeatureStatus) {
    match newest.get(&(view, key)) {
        None => (None, FeatureStatus::NotFound),
        Some((_, row)) if row.deleted => (None, FeatureStatus::NotFound),
        Some((_, row)) if view == "second" && row.event_ts < now_us - TTL_US => (None, FeatureStatus::OutsideMaxAge),
        Some((_, row)) if row.value.is_none() => (None, FeatureStatus::NullValue),
        Some((_, row)) => (row.value, FeatureStatus::Present),
    }
}

fn asked(keys: &[i64]) -> Batch {
    Batch::new(vec![("id".into(), Column::new(ColumnData::Int64(keys.to_vec())))]).expect("one column")
}

fn assert_lookups(store: &dyn OnlineStore, plan: &Plan, newest: &Newest, now_us: i64) {
    let keys: Vec<i64> = (-3..KEYS as i64).chain([i64::MIN, 0, 0]).collect();
    let batch = asked(&keys);
    let all = OnlinePlan::compile(store, plan, "all").expect("a service of the plan");
    let found = all.read_columns(&batch, now_us).expect("a lookup of columns");
    let numbers = OnlinePlan::compile(store, plan, "numbers").expect("a service of the plan");
    let mut buffers = Vec::new();
    let encoded = numbers.encode_keys(&batch, &mut buffers).expect("keys of the service");
    let cells = keys.len() * numbers.width();
    let (mut floats, mut doubles) = (vec![7.0f32; cells], vec![7.0f64; cells]);
    let (mut of_floats, mut of_doubles) = (vec![9u8; cells], vec![9u8; cells]);
    numbers.read_f32(&encoded, now_us, &mut floats, Some(&mut of_floats)).expect("a lookup of float32");
    numbers.read_f64(&encoded, now_us, &mut doubles, Some(&mut of_doubles)).expect("a lookup of float64");
    for (at, &key) in keys.iter().enumerate() {
        for (column, stored) in all.stored().iter().enumerate() {
            let view = if column < all.width() - 2 { "first" } else { "second" };
            let (value, status) = expected(newest, view, key, now_us);
            let here = format!("{} of key {key} at {now_us}", stored.field);
            assert_eq!(found.status[at * all.width() + column], status as u8, "{here}");
            let wanted = value.map_or(Value::Null, |value| match stored.field.as_str() {
                "n" => Value::Float32(value as f32),
                "text" => Value::String(text(value)),
                _ => Value::Float64(value as f64),
            });
            assert_eq!(found.columns[column].value(at), wanted, "{here}");
        }
        for (column, view) in ["first", "first", "second"].into_iter().enumerate() {
            let (value, status) = expected(newest, view, key, now_us);
            let cell = at * numbers.width() + column;
            assert_eq!(
                [of_floats[cell], of_doubles[cell]],
                [status as u8; 2],
                "number {column} of key {key} at {now_us}"
            );
            let wanted = value.map_or(f64::NAN, |value| value as f64);
            assert!(doubles[cell].total_cmp(&wanted).is_eq() || (doubles[cell].is_nan() && wanted.is_nan()));
            assert!(f64::from(floats[cell]).total_cmp(&wanted).is_eq() || (floats[cell].is_nan() && wanted.is_nan()));
        }
    }
}

fn the_newest_row_of_each_key_is_found(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let plan = plan(&[]);
    let store = make(&plan);
    let (mut random, mut newest, mut sequence) = (Random(1), Newest::new(), 0);
    assert_lookups(store.as_ref(), &plan, &newest, 0);
    for round in 0..ROUNDS {
        let view = if random.below(2) == 0 { "first" } else { "second" };
        let rows: Vec<Row> = (0..random.below(6)).map(|_| random.row()).collect();
        let counts = store.apply(&encoded(&plan, view, &rows, sequence)).expect("a batch of the plan");
        assert_eq!(counts, counted(&mut newest, view, &rows, sequence), "round {round}: {rows:?}");
        sequence += rows.len() as u64;
        assert_lookups(store.as_ref(), &plan, &newest, random.below(TIMES + 6) as i64);
    }
}

fn a_batch_that_is_applied_again_changes_nothing(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let plan = plan(&[]);
    let (mut random, mut newest) = (Random(2), Newest::new());
    let batches: Vec<(&'static str, Vec<Row>, u64)> =
        (0..8).map(|at| (["first", "second"][at % 2], (0..5).map(|_| random.row()).collect(), 5 * at as u64)).collect();
    let apply = |store: &dyn OnlineStore, at: usize| {
        let (view, rows, sequence) = &batches[at];
        store.apply(&encoded(&plan, view, rows, *sequence)).expect("a batch of the plan")
    };
    let store = make(&plan);
    for (view, rows, sequence) in &batches {
        counted(&mut newest, view, rows, *sequence);
    }
    // In any order, some of them more than once: what is newest does not depend on it.
    for at in [3, 0, 7, 3, 5, 1, 2, 6, 4, 0] {
        apply(store.as_ref(), at);
    }
    for at in 0..batches.len() {
        assert_eq!(apply(store.as_ref(), at), ApplyCounts { stale: 5, ..ApplyCounts::default() });
    }
    for now_us in 0..TIMES as i64 + 6 {
        assert_lookups(store.as_ref(), &plan, &newest, now_us);
    }
}

fn rows_of_another_definition_are_matched_by_name(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let (narrow, wide) = (plan(&[]), plan(&[("more", "float64")]));
    let row = |key: i64| Row { key, event_ts: 1, created_ts: 0, value: Some(5), deleted: false };
    let store = make(&wide);
    store.apply(&encoded(&narrow, "first", &[row(0)], 0)).expect("a batch of an older definition");
    store.apply(&encoded(&wide, "first", &[row(1)], 1)).expect("a batch of this definition");
    let found = OnlinePlan::compile(store.as_ref(), &wide, "all").and_then(|all| all.read_columns(&asked(&[0, 1]), 2));
    let found = found.expect("a lookup of columns");
    assert_eq!([found.columns[0].value(0), found.columns[2].value(0)], [Value::Float64(5.0), Value::Null]);
    assert_eq!(found.columns[2].value(1), Value::Float64(5.0));
    let store = make(&narrow);
    store.apply(&encoded(&wide, "first", &[row(0)], 0)).expect("a batch with a field that was dropped");
    assert_eq!(store.apply(&unknown_view()).expect("a batch of a view that was dropped").skipped, 1);
    let found = OnlinePlan::compile(store.as_ref(), &narrow, "all").and_then(|all| all.read_columns(&asked(&[0]), 2));
    assert_eq!(found.expect("a lookup of columns").columns[1].value(0), Value::Float32(5.0));
}

/// A batch of one row of a view that the checks' plans do not have.
fn unknown_view() -> Vec<u8> {
    let document = json!({
        "format": 1, "project": "conformance",
        "entities": {"thing": {"join_keys": [{"name": "id", "dtype": "int64"}]}},
        "views": {"gone": {"entities": ["thing"], "online": true, "ttl_us": null,
                           "fields": [{"name": "x", "dtype": "float64"}], "source": {"kind": "push", "event_ts": "at"}}},
        "services": {},
    });
    let plan = Plan::from_json(&document.to_string()).expect("a plan of one view");
    encoded(&plan, "gone", &[Row { key: 0, event_ts: 1, created_ts: 0, value: Some(1), deleted: false }], 0)
}

fn bytes_that_are_no_batch_are_refused(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let plan = plan(&[]);
    let store = make(&plan);
    let whole = encoded(&plan, "first", &[Random(3).row()], 0);
    for cut in (0..whole.len()).step_by(7) {
        let error = store.apply(&whole[..cut]).expect_err("a batch that was cut");
        assert_eq!(error.code, ErrorCode::CorruptStore, "{error}");
    }
    for at in (0..whole.len()).step_by(5) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let error = store.apply(&flipped).expect_err("a batch with a changed bit");
        assert!(matches!(error.code, ErrorCode::CorruptStore | ErrorCode::NewerFormat), "{error}");
    }
    assert_lookups(store.as_ref(), &plan, &Newest::new(), 0);
}

fn a_lookup_checks_what_it_is_given(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let plan = plan(&[]);
    let store = make(&plan);
    let online = OnlinePlan::compile(store.as_ref(), &plan, "numbers").expect("a service of the plan");
    let (batch, mut buffers) = (asked(&[1, 2]), Vec::new());
    let keys = online.encode_keys(&batch, &mut buffers).expect("keys of the service");
    let mut out = vec![0.0; 2 * online.width()];
    let error = online.read_f32(&keys, 0, &mut out[1..], None).expect_err("a slice that is too short");
    assert_eq!(error.code, ErrorCode::LengthMismatch, "{error}");
    let error = online.read_f32(&keys, 0, &mut out, Some(&mut [0])).expect_err("statuses that are too short");
    assert_eq!(error.code, ErrorCode::LengthMismatch, "{error}");
    let texts = OnlinePlan::compile(store.as_ref(), &plan, "all").expect("a service of the plan");
    let mut out = vec![0.0; 2 * texts.width()];
    let error = texts.read_f32(&keys, 0, &mut out, None).expect_err("a text as a float");
    assert_eq!(error.code, ErrorCode::TypeMismatch, "{error}");
    let none = online.read_columns(&asked(&[]), 0).expect("a lookup of no keys");
    assert!(none.columns.iter().all(Column::is_empty));
}

fn readers_see_whole_rows_beside_a_writer(make: &dyn Fn(&Plan) -> Arc<dyn OnlineStore>) {
    let plan = plan(&[]);
    let store = make(&plan);
    let online = OnlinePlan::compile(store.as_ref(), &plan, "numbers").expect("a service of the plan");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (batch, mut buffers, mut newest) = (asked(&[0]), Vec::new(), 0.0f64);
            let keys = online.encode_keys(&batch, &mut buffers).expect("keys of the service");
            let mut out = vec![0.0f64; online.width()];
            while !done.load(Ordering::Acquire) {
                online.read_f64(&keys, 0, &mut out, None).expect("a lookup beside a writer");
                if !out[0].is_nan() {
                    assert_eq!(out[0].to_bits(), out[1].to_bits(), "a row of two versions");
                    assert!(out[0] >= newest, "a row that goes back");
                    newest = out[0];
                }
            }
        });
        for sequence in 0..2_000u64 {
            let row = Row { key: 0, event_ts: 1, created_ts: 0, value: Some(sequence as i64), deleted: false };
            store.apply(&encoded(&plan, "first", &[row], sequence)).expect("a batch of the plan");
        }
        done.store(true, Ordering::Release);
    });
}
