//! The point-in-time join on whole examples: what it gives out, and what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, NullArray, RecordBatch,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow_schema::DataType;
use common::{changed, flights, plan};
use headrace_features::{AsKnownAt, JoinOptions, JoinOutput, Plan, SourceRows, point_in_time_join};
use headrace_types::{ErrorCode, Result};
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000_000;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn times(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
}

fn options() -> JoinOptions {
    JoinOptions { event_ts_column: "at".into(), threads: 2, ..JoinOptions::default() }
}

fn sources(views: Vec<(&str, Vec<RecordBatch>)>) -> BTreeMap<String, SourceRows> {
    views.into_iter().map(|(name, batches)| (name.to_owned(), SourceRows { batches })).collect()
}

/// A service of one view `v` with the key `k` and the features `x` (float64) and `s` (string).
fn small(ttl_us: Option<i64>) -> Value {
    json!({
        "format": 1, "project": "p",
        "entities": {"e": {"join_keys": [{"name": "k", "dtype": "string"}]}},
        "views": {"v": {"entities": ["e"], "ttl_us": ttl_us,
                        "fields": [{"name": "x", "dtype": "float64"}, {"name": "s", "dtype": "string"}],
                        "source": {"kind": "push", "event_ts": "event_ts"}}},
        "services": {"svc": {"features": [{"view": "v", "feature": "x", "name": "x"}, {"view": "v", "feature": "s", "name": "s"}]}},
    })
}

/// Rows of `v`: key, event time, creation time, deleted, x.
type Row<'a> = (Option<&'a str>, Option<i64>, Option<i64>, bool, Option<f64>);

fn rows(rows: &[Row<'_>]) -> RecordBatch {
    let labels: Vec<String> = (0..rows.len()).map(|index| format!("row {index}")).collect();
    batch(vec![
        ("k", strings(&rows.iter().map(|row| row.0).collect::<Vec<_>>())),
        ("__event_ts", times(&rows.iter().map(|row| row.1).collect::<Vec<_>>())),
        ("__created_ts", times(&rows.iter().map(|row| row.2).collect::<Vec<_>>())),
        ("__deleted", Arc::new(BooleanArray::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()))),
        ("x", floats(&rows.iter().map(|row| row.4).collect::<Vec<_>>())),
        ("s", strings(&labels.iter().map(|label| Some(label.as_str())).collect::<Vec<_>>())),
    ])
}

fn asked(rows: &[(Option<&str>, Option<i64>)]) -> RecordBatch {
    batch(vec![
        ("k", strings(&rows.iter().map(|row| row.0).collect::<Vec<_>>())),
        ("at", times(&rows.iter().map(|row| row.1).collect::<Vec<_>>())),
    ])
}

fn join(plan: &Plan, entities: &RecordBatch, options: &JoinOptions, source: Vec<RecordBatch>) -> Result<JoinOutput> {
    point_in_time_join(plan, "svc", entities, options, &sources(vec![("v", source)]))
}

/// Which source row each entity row took, by the column `s`, and its status.
fn found(output: &JoinOutput) -> Vec<(Option<String>, String)> {
    let labels = output.batch.column_by_name("s").unwrap().as_string::<i32>().clone();
    let statuses = output.batch.column_by_name("s__status").unwrap().as_dictionary::<Int8Type>().clone();
    let names = statuses.values().as_string::<i32>().clone();
    (0..labels.len())
        .map(|row| {
            let label = labels.is_valid(row).then(|| labels.value(row).to_owned());
            (label, names.value(usize::try_from(statuses.keys().value(row)).unwrap()).to_owned())
        })
        .collect()
}

#[track_caller]
fn assert_found(output: &JoinOutput, expected: &[(Option<usize>, &str)]) {
    let expected: Vec<(Option<String>, String)> =
        expected.iter().map(|(row, status)| (row.map(|row| format!("row {row}")), (*status).to_owned())).collect();
    assert_eq!(found(output), expected);
}

#[test]
fn ties_are_broken_by_creation_then_by_sequence() {
    let source = rows(&[
        (Some("a"), Some(10), Some(7), false, Some(1.0)),
        (Some("a"), Some(10), Some(9), false, Some(2.0)),
        (Some("a"), Some(10), Some(9), false, Some(3.0)),
        (Some("a"), Some(10), None, false, Some(4.0)),
        (Some("b"), Some(10), None, false, Some(5.0)),
        (Some("b"), Some(9), Some(99), false, Some(6.0)),
    ]);
    let options = JoinOptions { statuses: true, ..options() };
    let entities = asked(&[(Some("a"), Some(10)), (Some("b"), Some(10)), (Some("b"), Some(9)), (Some("b"), Some(8))]);
    let output = join(&plan(&small(None)), &entities, &options, vec![source]).unwrap();
    assert_found(&output, &[(Some(2), "PRESENT"), (Some(4), "PRESENT"), (Some(5), "PRESENT"), (None, "NOT_FOUND")]);
}

#[test]
fn the_order_of_input_is_the_sequence_across_batches() {
    let one = rows(&[(Some("a"), Some(10), Some(1), false, Some(1.0))]);
    let two = rows(&[(Some("a"), Some(10), Some(1), false, Some(2.0))]);
    let entities = asked(&[(Some("a"), Some(10))]);
    let output = join(&plan(&small(None)), &entities, &options(), vec![one, two]).unwrap();
    assert_eq!(output.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().value(0), 2.0);
}

#[test]
fn the_ttl_is_inclusive_at_both_ends_and_saturates() {
    let source = rows(&[
        (Some("a"), Some(100), Some(0), false, Some(1.0)),
        (Some("low"), Some(i64::MIN), Some(0), false, Some(2.0)),
        (Some("high"), Some(i64::MAX), Some(0), false, Some(3.0)),
    ]);
    let at = [99, 100, 105, 106, i64::MAX];
    let mut asked_rows: Vec<(Option<&str>, Option<i64>)> = at.iter().map(|&at| (Some("a"), Some(at))).collect();
    asked_rows.extend([
        (Some("low"), Some(i64::MIN)),
        (Some("low"), Some(i64::MIN + 6)),
        (Some("high"), Some(i64::MAX)),
    ]);
    let options = JoinOptions { statuses: true, ..options() };
    let output = join(&plan(&small(Some(5))), &asked(&asked_rows), &options, vec![source]).unwrap();
    assert_found(
        &output,
        &[
            (None, "NOT_FOUND"),
            (Some(0), "PRESENT"),
            (Some(0), "PRESENT"),
            (None, "OUTSIDE_MAX_AGE"),
            (None, "OUTSIDE_MAX_AGE"),
            (Some(1), "PRESENT"),
            (None, "OUTSIDE_MAX_AGE"),
            (Some(2), "PRESENT"),
        ],
    );
    let counts = output.counts.views["v"];
    assert_eq!((counts.found, counts.not_found, counts.outside_max_age), (4, 1, 3));
}

#[test]
fn null_times_and_null_keys_find_nothing_and_are_counted() {
    let source = rows(&[
        (Some("a"), None, Some(1), false, Some(1.0)),
        (None, Some(1), Some(1), false, Some(2.0)),
        (Some("a"), Some(1), Some(1), false, Some(3.0)),
    ]);
    let options = JoinOptions { statuses: true, ..options() };
    let entities = asked(&[(Some("a"), Some(5)), (None, Some(5)), (Some("a"), None)]);
    let output = join(&plan(&small(None)), &entities, &options, vec![source]).unwrap();
    assert_found(&output, &[(Some(2), "PRESENT"), (None, "NOT_FOUND"), (None, "NOT_FOUND")]);
    let counts = output.counts.views["v"];
    assert_eq!((counts.source_rows, counts.null_event_ts, counts.null_keys), (3, 1, 1));
}

#[test]
fn nan_is_a_value_and_null_is_none() {
    let source =
        rows(&[(Some("nan"), Some(1), Some(1), false, Some(f64::NAN)), (Some("null"), Some(1), Some(1), false, None)]);
    let options = JoinOptions { statuses: true, ..options() };
    let output =
        join(&plan(&small(None)), &asked(&[(Some("nan"), Some(1)), (Some("null"), Some(1))]), &options, vec![source])
            .unwrap();
    let x = output.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().clone();
    assert!(x.is_valid(0) && x.value(0).is_nan() && x.is_null(1));
    let statuses =
        output.batch.column_by_name("x__status").unwrap().as_dictionary::<Int8Type>().keys().values().to_vec();
    assert_eq!(statuses, [0, 1]);
}

#[test]
fn a_tombstone_hides_what_is_older_only() {
    let source = rows(&[
        (Some("a"), Some(10), Some(10), false, Some(1.0)),
        (Some("a"), Some(20), Some(20), true, None),
        (Some("a"), Some(15), Some(30), false, Some(2.0)), // late, and older than the tombstone
        (Some("a"), Some(40), Some(40), false, Some(3.0)),
    ]);
    let options = JoinOptions { statuses: true, ..options() };
    let entities = asked(&[12, 17, 20, 39, 40].map(|at| (Some("a"), Some(at))));
    let output = join(&plan(&small(Some(3))), &entities, &options, vec![source]).unwrap();
    assert_found(
        &output,
        &[
            (Some(0), "PRESENT"),
            (Some(2), "PRESENT"),
            (None, "NOT_FOUND"),
            (None, "NOT_FOUND"), // a deleted row is not found, however old
            (Some(3), "PRESENT"),
        ],
    );
}

#[test]
fn a_cutoff_hides_what_was_not_known() {
    let source = rows(&[
        (Some("a"), Some(10), Some(11), false, Some(1.0)),
        (Some("a"), Some(20), Some(90), false, Some(2.0)),
        (Some("a"), Some(25), None, false, Some(3.0)),
        (Some("a"), Some(26), Some(91), true, None),
    ]);
    let entities = batch(vec![
        ("k", strings(&[Some("a"); 5])),
        ("at", times(&[Some(10), Some(30), Some(30), Some(30), Some(30)])),
        ("known", times(&[Some(10), Some(89), Some(90), Some(91), None])),
    ]);
    let statuses = JoinOptions { statuses: true, ..options() };
    let column = JoinOptions { as_known_at: AsKnownAt::Column("known".into()), ..statuses.clone() };
    let output = join(&plan(&small(None)), &entities, &column, vec![source.clone()]).unwrap();
    assert_found(
        &output,
        &[(None, "NOT_FOUND"), (Some(0), "PRESENT"), (Some(1), "PRESENT"), (None, "NOT_FOUND"), (None, "NOT_FOUND")],
    );
    assert_eq!(output.counts.views["v"].null_created_ts, 1);

    let event_time = JoinOptions { as_known_at: AsKnownAt::EventTime, ..statuses.clone() };
    let output = join(&plan(&small(None)), &entities, &event_time, vec![source.clone()]).unwrap();
    assert_eq!(found(&output)[..2], [(None, "NOT_FOUND".into()), (Some("row 0".into()), "PRESENT".into())]);

    let output = join(&plan(&small(None)), &entities, &statuses, vec![source]).unwrap();
    assert_eq!(found(&output)[..2], [(Some("row 0".into()), "PRESENT".into()), (None, "NOT_FOUND".into())]);
}

#[test]
fn a_row_without_a_creation_time_is_known_as_the_definition_says() {
    let source = rows(&[(Some("a"), Some(10), None, false, Some(1.0))]);
    let entities = asked(&[10, 14, 15].map(|at| (Some("a"), Some(at))));
    let options = JoinOptions { as_known_at: AsKnownAt::EventTime, ..options() };
    let found = |definition: Value| -> Vec<bool> {
        let mut json = small(None);
        json["views"]["v"]["source"] = definition;
        let output = join(&plan(&json), &entities, &options, vec![source.clone()]).unwrap();
        output.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().iter().map(|x| x.is_some()).collect()
    };
    assert_eq!(found(json!({"kind": "file", "path": "f.csv", "event_ts": "t"})), [true, true, true]);
    assert_eq!(
        found(json!({"kind": "file", "path": "f.csv", "event_ts": "t", "available_after_us": 5})),
        [false, false, true]
    );
    assert_eq!(found(json!({"kind": "file", "path": "f.csv", "event_ts": "t", "created_ts": "c"})), [false; 3]);
    assert_eq!(found(json!({"kind": "push", "event_ts": "t"})), [false; 3]);
}

#[test]
fn a_search_goes_far_back_for_what_was_known() {
    // The last 1,000 rows were backfilled later.
    let rows_count = 2_000;
    let many: Vec<Row<'_>> = (0..rows_count)
        .map(|n| (Some("a"), Some(n), Some(if n < 1_000 { n } else { 1_000_000 }), false, Some(n as f64)))
        .collect();
    let options = JoinOptions { as_known_at: AsKnownAt::EventTime, ..options() };
    let output = join(
        &plan(&small(None)),
        &asked(&[(Some("a"), Some(5_000)), (Some("a"), Some(3))]),
        &options,
        vec![rows(&many)],
    )
    .unwrap();
    let x = output.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(x, [999.0, 3.0]);
}

#[test]
fn entity_rows_stay_as_they_are() {
    let source = rows(&[
        (Some("a"), Some(0), Some(0), false, Some(1.0)),
        (Some("b"), Some(9 * HOUR), Some(0), false, Some(2.0)),
    ]);
    // Out of order, twice the same, a view of strings, another column, seconds in another zone.
    let entities = batch(vec![
        ("label", Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef),
        ("k", Arc::new(StringViewArray::from(vec!["b", "a", "b", "z"]))),
        (
            "at",
            Arc::new(TimestampSecondArray::from(vec![9 * 3_600, 0, 9 * 3_600, 0]).with_timezone("America/New_York")),
        ),
    ]);
    let output = join(&plan(&small(None)), &entities, &options(), vec![source]).unwrap().batch;
    assert_eq!(output.columns()[..3], entities.columns()[..]);
    let names: Vec<String> = output.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["label", "k", "at", "x", "s"]);
    let x: Vec<Option<f64>> = output.column_by_name("x").unwrap().as_primitive::<Float64Type>().iter().collect();
    assert_eq!(x, [Some(2.0), Some(1.0), Some(2.0), None]);
}

#[test]
fn nanoseconds_are_rounded_down_and_naive_times_are_utc() {
    let source =
        rows(&[(Some("a"), Some(-1), Some(0), false, Some(1.0)), (Some("a"), Some(0), Some(0), false, Some(2.0))]);
    let entities = batch(vec![
        ("k", strings(&[Some("a"), Some("a")])),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![-1, 999])) as ArrayRef),
    ]);
    let output = join(&plan(&small(None)), &entities, &options(), vec![source]).unwrap();
    assert_eq!(output.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().values().to_vec(), [1.0, 2.0]);
}

#[test]
fn empty_frames_on_either_side() {
    let plan = plan(&small(None));
    let empty = rows(&[]);
    let some = asked(&[(Some("a"), Some(1))]);
    for source in [vec![], vec![empty.clone()], vec![empty.clone(), empty.clone()]] {
        let output = join(&plan, &some, &options(), source).unwrap();
        assert_eq!((output.batch.num_rows(), output.batch.column_by_name("x").unwrap().null_count()), (1, 1));
    }
    let source = rows(&[(Some("a"), Some(1), Some(1), false, Some(1.0))]);
    let output = join(&plan, &asked(&[]), &JoinOptions { statuses: true, ..options() }, vec![source]).unwrap();
    assert_eq!((output.batch.num_rows(), output.batch.num_columns()), (0, 6));
}

#[test]
fn every_type_comes_through() {
    let types = ["bool", "int8", "uint64", "float32", "bytes", "timestamp", "list<int64>", "list<string>"];
    let fields: Vec<Value> =
        types.iter().enumerate().map(|(n, t)| json!({"name": format!("f{n}"), "dtype": t})).collect();
    let features: Vec<Value> =
        (0..types.len()).map(|n| json!({"view": "v", "feature": format!("f{n}"), "name": format!("f{n}")})).collect();
    let mut json = small(None);
    json["views"]["v"]["fields"] = json!(fields);
    json["services"]["svc"]["features"] = json!(features);
    json["entities"]["e"]["join_keys"] = json!([{"name": "k", "dtype": "int32"}, {"name": "b", "dtype": "bytes"}]);
    let key_bytes: ArrayRef = Arc::new(arrow_array::BinaryArray::from(vec![b"x".as_slice(), b""]));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(i64::MAX), None]), None]);
    let mut list_strings = arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
    list_strings.append_value([Some("a"), None]);
    list_strings.append_value(Vec::<Option<&str>>::new());
    let values: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![true, false])),
        Arc::new(arrow_array::Int8Array::from(vec![-128, 127])),
        Arc::new(arrow_array::UInt64Array::from(vec![u64::MAX, (1 << 53) + 1])),
        Arc::new(arrow_array::Float32Array::from(vec![f32::MIN_POSITIVE, f32::NEG_INFINITY])),
        Arc::new(arrow_array::BinaryArray::from(vec![&[0u8, 255][..], &[]])),
        times(&[Some(i64::MIN), Some(i64::MAX)]),
        Arc::new(lists),
        Arc::new(list_strings.finish()),
    ];
    let mut columns = vec![
        ("k", Arc::new(Int64Array::from(vec![i64::from(i32::MAX), 2])) as ArrayRef),
        ("b", Arc::clone(&key_bytes)),
        ("__event_ts", times(&[Some(1), Some(1)])),
        ("__created_ts", times(&[Some(1), Some(1)])),
    ];
    let names: Vec<String> = (0..types.len()).map(|n| format!("f{n}")).collect();
    columns.extend(names.iter().map(String::as_str).zip(values.iter().cloned()));
    let entities = batch(vec![
        ("k", Arc::new(Int32Array::from(vec![i32::MAX, 2])) as ArrayRef),
        ("b", key_bytes),
        ("at", times(&[Some(1), Some(1)])),
    ]);
    let output = join(&plan(&json), &entities, &options(), vec![batch(columns)]).unwrap().batch;
    for (name, expected) in names.iter().zip(&values) {
        let column = output.column_by_name(name).unwrap();
        assert_eq!(column.to_data(), arrow_select::concat::concat(&[expected.as_ref()]).unwrap().to_data(), "{name}");
    }
    assert_eq!(
        output.column_by_name("f5").unwrap().data_type(),
        &DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into()))
    );
}

fn flight_sources() -> BTreeMap<String, SourceRows> {
    let weather = batch(vec![
        ("origin", strings(&[Some("JFK"), Some("JFK")])),
        ("__event_ts", times(&[Some(0), Some(HOUR)])),
        ("__created_ts", times(&[Some(0), Some(HOUR)])),
        ("temp", floats(&[Some(1.0), Some(2.0)])),
        ("wind_dir", floats(&[Some(90.0), None])),
        ("wind_speed", floats(&[Some(10.0), Some(20.0)])),
    ]);
    let plane = batch(vec![
        ("tailnum", strings(&[Some("N1")])),
        ("__event_ts", Arc::new(NullArray::new(1))),
        ("__created_ts", Arc::new(NullArray::new(1))),
        ("year", Arc::new(Int64Array::from(vec![1969]))),
        ("model", strings(&[Some("B")])),
    ]);
    let delay = |key: &str, field: &str| {
        batch(vec![
            (key, strings(&[Some("UA")])),
            ("__event_ts", times(&[Some(0)])),
            ("__created_ts", times(&[Some(0)])),
            (field, floats(&[Some(7.0)])),
        ])
    };
    sources(vec![
        ("weather", vec![weather]),
        ("plane", vec![plane]),
        ("carrier_delay", vec![delay("carrier", "carrier_last_delay")]),
        ("plane_delay", vec![delay("tailnum", "plane_last_delay")]),
    ])
}

fn flight_entities() -> RecordBatch {
    batch(vec![
        ("origin", strings(&[Some("JFK"), Some("JFK")])),
        ("carrier", strings(&[Some("UA"), Some("DL")])),
        ("tailnum", strings(&[Some("N1"), None])),
        ("at", times(&[Some(HOUR - 1), Some(HOUR)])),
        ("planned_departure", times(&[Some(6 * HOUR), Some(18 * HOUR)])),
    ])
}

#[test]
fn a_service_of_many_views_with_computed_features() {
    let options = JoinOptions { as_known_at: AsKnownAt::EventTime, statuses: true, ..options() };
    let output =
        point_in_time_join(&plan(&flights()), "departure_risk", &flight_entities(), &options, &flight_sources())
            .unwrap();
    let names: Vec<String> = output.batch.schema().fields().iter().skip(5).map(|field| field.name().clone()).collect();
    let features = ["temp", "hour_sin", "carrier_last_delay", "crosswind", "plane_last_delay", "plane_age"];
    assert_eq!(names[..6], features.map(str::to_owned));
    assert_eq!(names[6..], features.map(|name| format!("{name}__status")));
    let column = |name: &str| -> Vec<Option<f64>> {
        output.batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().iter().collect()
    };
    assert_eq!(column("temp"), [Some(1.0), Some(2.0)]);
    assert_eq!(column("carrier_last_delay"), [Some(7.0), None]);
    assert_eq!(column("crosswind"), [Some(10.0), None]);
    assert!((column("hour_sin")[0].unwrap() - 1.0).abs() < 1e-12);
    let ages: Vec<Option<i64>> =
        output.batch.column_by_name("plane_age").unwrap().as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ages, [Some(1), None]);
    assert_eq!(output.counts.views.len(), 4);
}

#[test]
fn threads_do_not_change_the_result() {
    let join = |threads| {
        let options = JoinOptions { threads, statuses: true, ..options() };
        point_in_time_join(&plan(&flights()), "departure_risk", &flight_entities(), &options, &flight_sources())
            .unwrap()
            .batch
    };
    let one = join(1);
    for threads in [0, 2, 16] {
        assert_eq!(join(threads), one);
    }
}

#[track_caller]
fn assert_refused(result: Result<JoinOutput>, code: ErrorCode, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(part), "expected {part:?} in {:?}", error.message);
}

#[test]
fn what_is_missing_is_named() {
    let plan = plan(&flights());
    let join = |entities: &RecordBatch, sources: &BTreeMap<String, SourceRows>| {
        point_in_time_join(&plan, "departure_risk", entities, &options(), sources)
    };
    let without = |batch: &RecordBatch, name: &str| {
        let keep: Vec<usize> = (0..batch.num_columns()).filter(|&n| batch.schema().field(n).name() != name).collect();
        batch.project(&keep).unwrap()
    };
    use ErrorCode::{InvalidArgument, MissingColumn, NameClash, TypeMismatch};
    for name in ["tailnum", "at", "planned_departure"] {
        let result = join(&without(&flight_entities(), name), &flight_sources());
        assert_refused(result, MissingColumn, &format!("entity rows: there is no column '{name}'"));
    }
    let mut sources = flight_sources();
    sources.remove("plane");
    assert_refused(join(&flight_entities(), &sources), InvalidArgument, "view 'plane'");
    for name in ["origin", "temp", "__event_ts"] {
        let mut sources = flight_sources();
        let batch = without(&sources["weather"].batches[0], name);
        sources.insert("weather".into(), SourceRows { batches: vec![batch] });
        assert_refused(
            join(&flight_entities(), &sources),
            MissingColumn,
            &format!("view 'weather': there is no column '{name}'"),
        );
    }
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in flight_entities().schema().fields().iter().zip(flight_entities().columns()) {
        columns.push((field.name().clone(), Arc::clone(column)));
    }
    let extra = |name: &str, column: ArrayRef| {
        let mut columns: Vec<(&str, ArrayRef)> =
            columns.iter().filter(|(n, _)| n != name).map(|(n, c)| (n.as_str(), Arc::clone(c))).collect();
        columns.push((name, column));
        batch(columns)
    };
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    assert_refused(join(&extra("temp", Arc::clone(&numbers)), &flight_sources()), NameClash, "column 'temp'");
    assert_refused(
        join(&extra("tailnum", Arc::clone(&numbers)), &flight_sources()),
        TypeMismatch,
        "column 'tailnum': it is Int64, expected string",
    );
    assert_refused(join(&extra("at", numbers), &flight_sources()), TypeMismatch, "column 'at'");
    let unknown = point_in_time_join(&plan, "departure_rsik", &flight_entities(), &options(), &flight_sources());
    assert_refused(unknown, ErrorCode::UnknownFeatureService, "departure_rsik");
}

#[test]
fn a_join_can_be_cancelled() {
    let options = JoinOptions { cancel: Some(Arc::new(AtomicBool::new(true))), ..options() };
    let result =
        point_in_time_join(&plan(&flights()), "departure_risk", &flight_entities(), &options, &flight_sources());
    assert_refused(result, ErrorCode::Cancelled, "cancelled");
}

#[test]
fn a_global_view_has_one_row_for_all() {
    let json = changed(|plan| {
        plan["views"]["carrier_delay"]["entities"] = json!([]);
        plan["services"] = json!({"svc": {"features": [
            {"view": "carrier_delay", "feature": "carrier_last_delay", "name": "carrier_last_delay"}]}});
    });
    let source = batch(vec![
        ("__event_ts", times(&[Some(1), Some(5)])),
        ("__created_ts", times(&[Some(1), Some(5)])),
        ("carrier_last_delay", floats(&[Some(1.5), Some(2.5)])),
    ]);
    let entities = batch(vec![("at", times(&[Some(5), Some(0), Some(4)]))]);
    let output =
        point_in_time_join(&plan(&json), "svc", &entities, &options(), &sources(vec![("carrier_delay", vec![source])]))
            .unwrap();
    let values: Vec<Option<f64>> = output.batch.column(1).as_primitive::<Float64Type>().iter().collect();
    assert_eq!(values, [Some(2.5), None, Some(1.5)]);
}
