//! The online store: what goes in by batches comes out by lookups, also after a restart and after a change of the plan.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow_schema::DataType;
use headrace_features::{
    ApplyCounts, EncodeOptions, EncodedBatch, KeysRef, LocalStore, OpenMode, Plan, REFUSED_FUTURE,
    REFUSED_NULL_EVENT_TS, REFUSED_NULL_KEY, StoreOptions, encode_rows,
};
use headrace_types::{Batch, Column, ColumnData, EVENT_TS_ALWAYS, ErrorCode, FeatureStatus, Field, RowVersion, Value};
use serde_json::json;

const OPTIONS: StoreOptions = StoreOptions { bytes_max: 256 << 20, huge_pages: false };
const HOUR_US: i64 = 3_600_000_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("headrace-online-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn times(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

fn strings(values: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn floats(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn weather(origins: Vec<Option<&str>>, hours: Vec<Option<i64>>, temps: Vec<Option<f64>>) -> RecordBatch {
    let count = origins.len();
    batch(vec![
        ("origin", strings(origins)),
        ("__event_ts", times(hours.into_iter().map(|hour| hour.map(|hour| hour * HOUR_US)).collect())),
        ("temp", floats(temps)),
        ("wind_dir", floats(vec![Some(270.0); count])),
        ("wind_speed", floats(vec![None; count])),
    ])
}

fn apply(store: &LocalStore, plan: &Plan, view: &str, rows: &RecordBatch, first_sequence: u64) -> ApplyCounts {
    let encoded =
        encode_rows(plan.view(view).unwrap(), rows, &EncodeOptions::new(first_sequence, i64::MAX, 0)).unwrap();
    store.apply(&encoded.bytes).unwrap()
}

fn text_keys(name: &str, values: &[Option<&str>]) -> (String, Column) {
    let values = values.iter().map(|value| value.map_or(Value::Null, |text| Value::String(text.into())));
    (name.into(), Column::from_values("string".parse().unwrap(), values).unwrap())
}

fn flight_keys(origin: &str, tailnum: &str, carrier: &str) -> Batch {
    Batch::new(vec![
        text_keys("carrier", &[Some(carrier)]),
        text_keys("tailnum", &[Some(tailnum)]),
        text_keys("origin", &[Some(origin)]),
    ])
    .unwrap()
}

/// The value and status of one stored feature of a service, for one flight.
fn read(store: &LocalStore, plan: &Plan, keys: &Batch, feature: &str, now_us: i64) -> (Value, FeatureStatus) {
    let online = store.online_plan(plan, "departure_risk").unwrap();
    let found = online.read_columns(keys, now_us).unwrap();
    let at = online.stored().iter().position(|stored| stored.field == feature).unwrap();
    (found.columns[at].value(0), FeatureStatus::ALL[found.status[at] as usize])
}

#[test]
fn every_table_of_a_service_is_read_into_its_place() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    apply(&store, &plan, "weather", &weather(vec![Some("JFK")], vec![Some(10)], vec![Some(39.5)]), 0);
    let plane = batch(vec![
        ("tailnum", strings(vec![Some("N1")])),
        ("year", Arc::new(Int32Array::from(vec![1999]))),
        ("model", strings(vec![Some("A320")])),
    ]);
    apply(&store, &plan, "plane", &plane, 0);
    let online = store.online_plan(&plan, "departure_risk").unwrap();
    assert_eq!(online.width(), plan.service("departure_risk").unwrap().stored.len());

    let now_us = 11 * HOUR_US;
    let keys = flight_keys("JFK", "N1", "UA");
    let found = |feature| read(&store, &plan, &keys, feature, now_us);
    assert_eq!(found("temp"), (Value::Float64(39.5), FeatureStatus::Present));
    assert_eq!(found("wind_speed"), (Value::Null, FeatureStatus::NullValue));
    assert_eq!(found("year"), (Value::Int(1999), FeatureStatus::Present));
    assert_eq!(found("carrier_last_delay"), (Value::Null, FeatureStatus::NotFound));

    let mut buffers = Vec::new();
    let encoded = online.encode_keys(&keys, &mut buffers).unwrap();
    let (mut out, mut status) = (vec![-1f64; online.width()], vec![99; online.width()]);
    online.read_f64(&encoded, now_us, &mut out, Some(&mut status)).unwrap();
    for (at, stored) in online.stored().iter().enumerate() {
        match read(&store, &plan, &keys, &stored.field, now_us) {
            (Value::Float64(value), FeatureStatus::Present) => assert_eq!(out[at], value),
            (Value::Int(value), FeatureStatus::Present) => assert_eq!(out[at], value as f64),
            (_, found) => assert!(out[at].is_nan() && status[at] == found as u8),
        }
    }
}

#[test]
fn ttl_is_inclusive_at_its_end() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    apply(&store, &plan, "weather", &weather(vec![Some("JFK")], vec![Some(10)], vec![Some(1.0)]), 0);
    let keys = flight_keys("JFK", "", "");
    let at = |now_us| read(&store, &plan, &keys, "temp", now_us);
    assert_eq!(at(13 * HOUR_US), (Value::Float64(1.0), FeatureStatus::Present));
    assert_eq!(at(13 * HOUR_US + 1), (Value::Null, FeatureStatus::OutsideMaxAge));
    assert_eq!(at(i64::MAX), (Value::Null, FeatureStatus::OutsideMaxAge));
    assert_eq!(at(i64::MIN).1, FeatureStatus::Present);
}

#[test]
fn rows_that_no_store_may_take_are_counted_by_reason() {
    let plan = common::plan(&common::flights());
    let rows = weather(
        vec![Some("A"), None, Some("C"), Some("D"), Some("E")],
        vec![Some(1), Some(1), None, Some(9), Some(2)],
        vec![Some(1.0); 5],
    );
    let encoded =
        encode_rows(plan.view("weather").unwrap(), &rows, &EncodeOptions::new(40, 7 * HOUR_US, HOUR_US)).unwrap();
    assert_eq!(encoded.rows, 2);
    let expected = [(REFUSED_FUTURE, 1), (REFUSED_NULL_EVENT_TS, 1), (REFUSED_NULL_KEY, 1)];
    assert_eq!(encoded.refused, expected.into());
    let batch = EncodedBatch::decode(&encoded.bytes).unwrap();
    assert_eq!(batch.version(1).event_ts, 2 * HOUR_US);
    assert_eq!(batch.version(1).sequence, 41);
}

#[test]
fn a_row_exactly_at_the_bound_of_the_future_is_taken() {
    let plan = common::plan(&common::flights());
    let rows = weather(vec![Some("A")], vec![Some(8)], vec![Some(1.0)]);
    let view = plan.view("weather").unwrap();
    assert_eq!(encode_rows(view, &rows, &EncodeOptions::new(0, 7 * HOUR_US, HOUR_US)).unwrap().rows, 1);
    assert_eq!(encode_rows(view, &rows, &EncodeOptions::new(0, 7 * HOUR_US, HOUR_US - 1)).unwrap().rows, 0);
}

#[test]
fn a_null_creation_time_is_stamped_as_the_source_declares() {
    let now_us = 100 * HOUR_US;
    let version = |source: serde_json::Value, created: Option<i64>| {
        let plan = common::plan(&common::changed(|plan| {
            for (name, value) in source.as_object().unwrap() {
                plan["views"]["weather"]["source"][name] = value.clone();
            }
        }));
        let rows = weather(vec![Some("A")], vec![Some(1)], vec![None]);
        let mut columns: Vec<(&str, ArrayRef)> =
            vec![("__created_ts", times(vec![created])), ("__event_ts", times(vec![Some(HOUR_US)]))];
        for name in ["origin", "temp", "wind_dir", "wind_speed"] {
            columns.push((name, rows.column_by_name(name).unwrap().clone()));
        }
        let encoded =
            encode_rows(plan.view("weather").unwrap(), &batch(columns), &EncodeOptions::new(0, now_us, 0)).unwrap();
        EncodedBatch::decode(&encoded.bytes).unwrap().version(0)
    };
    assert_eq!(version(json!({}), None).created_ts, HOUR_US);
    assert_eq!(version(json!({"available_after_us": 7}), None).created_ts, HOUR_US + 7);
    assert_eq!(version(json!({"created_ts": "known"}), None).created_ts, now_us);
    assert_eq!(version(json!({"kind": "push", "path": null, "format": null}), None).created_ts, now_us);
    assert_eq!(version(json!({"available_after_us": 7}), Some(3)).created_ts, 3);
}

#[test]
fn static_rows_have_no_times() {
    let plan = common::plan(&common::flights());
    let rows = batch(vec![
        ("tailnum", strings(vec![Some("N1")])),
        ("__event_ts", new_null_array(&DataType::Null, 1)),
        ("year", Arc::new(Int32Array::from(vec![None]))),
        ("model", strings(vec![None])),
    ]);
    let encoded = encode_rows(plan.view("plane").unwrap(), &rows, &EncodeOptions::new(5, 0, 0)).unwrap();
    let version = EncodedBatch::decode(&encoded.bytes).unwrap().version(0);
    assert_eq!(version, RowVersion { event_ts: EVENT_TS_ALWAYS, created_ts: i64::MIN, sequence: 5 });
}

/// Rows are encoded in blocks, without gaps, with refused rows between them, and with deletions among them.
#[test]
fn rows_are_encoded_together_as_they_are_alone() {
    let plan = common::plan(&common::flights());
    let view = plan.view("weather").unwrap();
    let options = EncodeOptions::new(0, i64::MAX, 0);
    let names: Vec<String> = (0..300).map(|i| format!("origin {i}")).collect();
    for (refused_every, deleted_every) in [(1000, 1000), (67, 1000), (1000, 150), (3, 5)] {
        let origin = |i: usize| (i % refused_every != refused_every - 1).then_some(names[i].as_str());
        let rows = weather(
            (0..300).map(origin).collect(),
            (0..300).map(|i| Some(i as i64)).collect(),
            (0..300).map(|i| (i % 10 != 3).then_some(i as f64 / 3.0)).collect(),
        );
        let deleted = (0..300).map(|i| Some(i % deleted_every == deleted_every - 1)).collect::<BooleanArray>();
        let fields = rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let mut columns: Vec<(&str, ArrayRef)> =
            fields.iter().map(String::as_str).zip(rows.columns().iter().cloned()).collect();
        columns.push(("__deleted", Arc::new(deleted)));
        let rows = batch(columns);
        let together = encode_rows(view, &rows, &options).unwrap();
        let together_batch = EncodedBatch::decode(&together.bytes).unwrap();
        let mut taken = 0;
        for row in 0..300 {
            let alone = encode_rows(view, &rows.slice(row, 1), &options).unwrap();
            let alone_batch = EncodedBatch::decode(&alone.bytes).unwrap();
            if alone.rows == 1 {
                assert_eq!(together_batch.key(taken).unwrap(), alone_batch.key(0).unwrap());
                assert_eq!(together_batch.image(taken).unwrap(), alone_batch.image(0).unwrap(), "row {row}");
                assert_eq!(together_batch.is_tombstone(taken), alone_batch.is_tombstone(0));
                taken += 1;
            }
        }
        assert_eq!((together.rows, together_batch.rows()), (taken, taken));
    }
}

#[test]
fn applying_twice_changes_nothing_and_late_rows_lose() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    let rows = weather(vec![Some("A"), Some("A"), Some("B")], vec![Some(2), Some(1), Some(1)], vec![Some(1.0); 3]);
    let counts = apply(&store, &plan, "weather", &rows, 0);
    assert_eq!(counts, ApplyCounts { inserted: 2, stale: 1, ..ApplyCounts::default() });
    let counts = apply(&store, &plan, "weather", &rows, 0);
    assert_eq!(counts, ApplyCounts { stale: 3, ..ApplyCounts::default() });
    // The same event and creation time with a later sequence is a correction.
    let correction = weather(vec![Some("A")], vec![Some(2)], vec![Some(5.0)]);
    assert_eq!(apply(&store, &plan, "weather", &correction, 3).replaced, 1);
    let found = read(&store, &plan, &flight_keys("A", "", ""), "temp", 2 * HOUR_US);
    assert_eq!(found, (Value::Float64(5.0), FeatureStatus::Present));
}

#[test]
fn a_deleted_row_is_not_found_and_stays_deleted() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    let keys = flight_keys("A", "", "");
    let at = || read(&store, &plan, &keys, "temp", 9 * HOUR_US).1;
    // A delete may come before any row, and needs no values.
    let delete = batch(vec![
        ("origin", strings(vec![Some("A")])),
        ("__event_ts", times(vec![Some(8 * HOUR_US)])),
        ("__deleted", Arc::new(BooleanArray::from(vec![true]))),
    ]);
    assert_eq!(apply(&store, &plan, "weather", &delete, 0).deleted, 1);
    assert_eq!(at(), FeatureStatus::NotFound);
    let late = weather(vec![Some("A")], vec![Some(7)], vec![Some(1.0)]);
    assert_eq!(apply(&store, &plan, "weather", &late, 1).stale, 1);
    assert_eq!(at(), FeatureStatus::NotFound);
    let newer = weather(vec![Some("A")], vec![Some(9)], vec![Some(1.0)]);
    assert_eq!(apply(&store, &plan, "weather", &newer, 2).replaced, 1);
    assert_eq!(at(), FeatureStatus::Present);
}

fn all_types_plan() -> Plan {
    let field = |name: &str, dtype: &str| json!({"name": name, "dtype": dtype});
    let view = json!({
        "entities": ["thing", "part"], "online": true, "ttl_us": null,
        "fields": [field("b", "bool"), field("u", "uint64"), field("f", "float32"), field("s", "string"),
                   field("y", "bytes"), field("t", "timestamp"), field("l", "list<int64>"), field("lf", "list<float32>")],
        "source": {"kind": "push", "event_ts": "at"},
    });
    let global = json!({"entities": [], "fields": [field("rate", "float64")], "ttl_us": null, "source": {"kind": "push", "event_ts": "at"}});
    let feature = |view: &str, name: &str| json!({"view": view, "feature": name, "name": name});
    let names = ["lf", "l", "t", "y", "s", "f", "u", "b"];
    let features: Vec<_> = names.iter().map(|name| feature("v", name)).chain([feature("g", "rate")]).collect();
    common::plan(&json!({
        "format": 1, "project": "types",
        "entities": {"thing": {"join_keys": [{"name": "id", "dtype": "int64"}]},
                     "part": {"join_keys": [{"name": "code", "dtype": "bytes"}]}},
        "views": {"v": view, "g": global},
        "services": {"s": {"features": features}},
    }))
}

#[test]
fn values_of_every_type_come_back_and_nulls_stay_null() {
    let plan = all_types_plan();
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    let long = "a text that is longer than the slot of a row";
    let large = (1i64 << 53) + 1;
    let rows = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![large, large - 1]))),
        ("code", Arc::new(BinaryArray::from(vec![&b"x"[..], &b""[..]]))),
        ("__event_ts", times(vec![Some(1), Some(1)])),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("u", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("f", Arc::new(Float32Array::from(vec![Some(f32::NAN), None]))),
        ("s", strings(vec![Some(long), None])),
        ("y", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None]))),
        ("t", times(vec![Some(-5), None])),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]))),
        ("lf", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![]), None]))),
    ]);
    assert_eq!(apply(&store, &plan, "v", &rows, 0).inserted, 2);
    let global = batch(vec![("__event_ts", times(vec![Some(1)])), ("rate", floats(vec![Some(0.25)]))]);
    assert_eq!(apply(&store, &plan, "g", &global, 0).inserted, 1);

    let keys = Batch::new(vec![
        ("id".into(), Column::new(ColumnData::Int64(vec![large, large - 1, large]))),
        ("code".into(), Column::new(ColumnData::Bytes(vec![b"x".to_vec(), vec![], vec![]]))),
    ])
    .unwrap();
    let online = store.online_plan(&plan, "s").unwrap();
    let found = online.read_columns(&keys, 2).unwrap();
    let row = |row: usize| found.columns[..8].iter().map(|column| column.value(row)).collect::<Vec<_>>();
    let first = row(0);
    assert_eq!(first[0], Value::List(vec![]));
    assert_eq!(first[1], Value::List(vec![Value::Int(1), Value::Null]));
    assert_eq!(first[2], Value::Timestamp(-5));
    assert_eq!(first[3], Value::Bytes(vec![0, 255]));
    assert_eq!(first[4], Value::String(long.into()));
    assert!(matches!(first[5], Value::Float32(value) if value.is_nan()));
    assert_eq!(first[6..], [Value::UInt(u64::MAX), Value::Bool(true)]);
    assert_eq!(found.status[..9], [FeatureStatus::Present as u8; 9]);
    assert!(row(1).iter().all(Value::is_null));
    assert_eq!(found.status[9..17], [FeatureStatus::NullValue as u8; 8]);
    assert!(row(2).iter().all(Value::is_null));
    assert_eq!(found.status[18..26], [FeatureStatus::NotFound as u8; 8]);
    assert!((0..3).all(|row| found.columns[8].value(row) == Value::Float64(0.25)), "a global row is every row's");

    let mut buffers = Vec::new();
    let encoded = online.encode_keys(&keys, &mut buffers).unwrap();
    let error = online.read_f32(&encoded, 2, &mut [0.0; 27], None).unwrap_err();
    assert_eq!(error.code, ErrorCode::TypeMismatch, "{error}");
}

#[test]
fn a_snapshot_brings_every_row_back() {
    let folder = Folder::new("snapshot");
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    apply(&store, &plan, "weather", &weather(vec![Some("A")], vec![Some(1)], vec![Some(1.0)]), 0);
    store.write_snapshot(&folder.0).unwrap();
    apply(&store, &plan, "weather", &weather(vec![Some("B")], vec![Some(1)], vec![Some(2.0)]), 1);
    store.write_snapshot(&folder.0).unwrap();
    let files = std::fs::read_dir(&folder.0).unwrap().count();
    assert_eq!(files, plan.tables().len() + 1, "the first snapshot's files are gone");
    for mode in [OpenMode::Private, OpenMode::ReadOnlyShared] {
        let opened = LocalStore::open_snapshot(&plan, &folder.0, mode, OPTIONS).unwrap();
        assert_eq!(opened.len(), store.len());
        for (origin, temp) in [("A", 1.0), ("B", 2.0)] {
            let found = read(&opened, &plan, &flight_keys(origin, "", ""), "temp", HOUR_US);
            assert_eq!(found, (Value::Float64(temp), FeatureStatus::Present));
        }
        let rows = weather(vec![Some("B")], vec![Some(2)], vec![Some(3.0)]);
        let encoded = encode_rows(plan.view("weather").unwrap(), &rows, &EncodeOptions::new(2, i64::MAX, 0)).unwrap();
        match mode {
            OpenMode::Private => assert_eq!(opened.apply(&encoded.bytes).unwrap().replaced, 1),
            OpenMode::ReadOnlyShared => assert_eq!(opened.apply(&encoded.bytes).unwrap_err().code, ErrorCode::ReadOnly),
        }
    }
}

#[test]
fn a_folder_without_a_snapshot_or_with_a_damaged_one_is_named() {
    let folder = Folder::new("damaged");
    let plan = common::plan(&common::flights());
    let open = || LocalStore::open_snapshot(&plan, &folder.0, OpenMode::Private, OPTIONS).unwrap_err();
    assert_eq!(open().code, ErrorCode::NotFound);
    LocalStore::create(&plan, OPTIONS).unwrap().write_snapshot(&folder.0).unwrap();
    let manifest = folder.0.join("manifest.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    let table = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path());
    let table = table.into_iter().find(|path| path.extension().is_some_and(|suffix| suffix == "table")).unwrap();
    for bad in ["", "{", "{\"format\":1,\"tables\":[{\"name\":\"origin\",\"file\":\"../../etc/passwd\"}]}"] {
        std::fs::write(&manifest, bad).unwrap();
        assert_eq!(open().code, ErrorCode::CorruptStore, "{bad}");
    }
    std::fs::write(&manifest, good.replace("\"format\":1", "\"format\":2")).unwrap();
    assert_eq!(open().code, ErrorCode::NewerFormat);
    std::fs::write(&manifest, &good).unwrap();
    std::fs::write(&table, b"not a table").unwrap();
    let error = open();
    assert_eq!(error.code, ErrorCode::CorruptStore);
    assert!(error.message.contains(table.file_name().unwrap().to_str().unwrap()), "{error}");
}

/// The weather view with `wind_speed` gone, `temp` moved to the end and `humid` new.
fn changed_plan() -> Plan {
    common::plan(&common::changed(|plan| {
        plan["views"]["weather"]["fields"] = json!([
            {"name": "wind_dir", "dtype": "float64"}, {"name": "humid", "dtype": "float64"}, {"name": "temp", "dtype": "float64"},
        ]);
        plan["on_demand_views"] = json!({});
        plan["services"]["departure_risk"]["features"] = json!([
            {"view": "weather", "feature": "humid", "name": "humid"}, {"view": "weather", "feature": "temp", "name": "temp"},
        ]);
        plan["views"].as_object_mut().unwrap().remove("carrier_delay");
    }))
}

fn assert_changed(store: &LocalStore, plan: &Plan) {
    let keys = Batch::new(vec![text_keys("origin", &[Some("A")])]).unwrap();
    assert_eq!(read(store, plan, &keys, "temp", HOUR_US), (Value::Float64(1.5), FeatureStatus::Present));
    assert_eq!(read(store, plan, &keys, "humid", HOUR_US), (Value::Null, FeatureStatus::NullValue));
}

#[test]
fn rows_outlive_a_change_of_their_view() {
    let folder = Folder::new("changed");
    let old_plan = common::plan(&common::flights());
    let old = LocalStore::create(&old_plan, OPTIONS).unwrap();
    let rows = weather(vec![Some("A")], vec![Some(1)], vec![Some(1.5)]);
    apply(&old, &old_plan, "weather", &rows, 0);
    old.write_snapshot(&folder.0).unwrap();
    let plan = changed_plan();
    for mode in [OpenMode::Private, OpenMode::ReadOnlyShared] {
        assert_changed(&LocalStore::open_snapshot(&plan, &folder.0, mode, OPTIONS).unwrap(), &plan);
    }
    assert_changed(&old.with_plan(&plan).unwrap(), &plan);

    // A log of the old view is read by the new plan, and rows of a removed view are passed over.
    let fresh = LocalStore::create(&plan, OPTIONS).unwrap();
    apply(&fresh, &old_plan, "weather", &rows, 0);
    assert_changed(&fresh, &plan);
    let delays = batch(vec![
        ("carrier", strings(vec![Some("UA")])),
        ("__event_ts", times(vec![Some(1)])),
        ("carrier_last_delay", floats(vec![Some(1.0)])),
    ]);
    assert_eq!(apply(&fresh, &old_plan, "carrier_delay", &delays, 0).skipped, 1);
}

#[test]
fn a_new_plan_shares_the_tables_that_stay() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    let next = store.with_plan(&plan).unwrap();
    apply(&store, &plan, "weather", &weather(vec![Some("A")], vec![Some(1)], vec![Some(1.0)]), 0);
    assert_eq!(next.len(), 1);
}

#[test]
fn what_is_wrong_with_a_call_is_named() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    assert_eq!(store.online_plan(&plan, "nothing").unwrap_err().code, ErrorCode::UnknownFeatureService);
    let online = store.online_plan(&plan, "departure_risk").unwrap();
    let keys = Batch::new(vec![text_keys("origin", &[Some("A")])]).unwrap();
    let error = online.read_columns(&keys, 0).unwrap_err();
    assert_eq!(error.code, ErrorCode::MissingColumn);
    assert!(error.hint.contains("tailnum"), "{error}");
    let mut wrong = flight_keys("A", "B", "C");
    wrong.columns[2].1 = Column::new(ColumnData::Int64(vec![1]));
    assert_eq!(online.read_columns(&wrong, 0).unwrap_err().code, ErrorCode::TypeMismatch);
    let error = online.read_f32(&[KeysRef::Int64(&[1])], 0, &mut [], None).unwrap_err();
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    assert_eq!(store.apply(b"nonsense").unwrap_err().code, ErrorCode::CorruptStore);
    let no_temp = batch(vec![("origin", strings(vec![Some("A")])), ("__event_ts", times(vec![Some(1)]))]);
    let error = encode_rows(plan.view("weather").unwrap(), &no_temp, &EncodeOptions::new(0, 1, 0)).unwrap_err();
    assert_eq!(error.code, ErrorCode::MissingColumn);
    assert!(error.message.contains("weather") && error.message.contains("temp"), "{error}");

    let offline = common::plan(&common::changed(|plan| plan["views"]["weather"]["online"] = json!(false)));
    let store = LocalStore::create(&offline, OPTIONS).unwrap();
    let error = store.online_plan(&offline, "departure_risk").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidDefinition);
    assert!(error.message.contains("weather"), "{error}");
}

#[test]
fn null_keys_and_empty_frames_are_no_trouble() {
    let plan = common::plan(&common::flights());
    let store = LocalStore::create(&plan, OPTIONS).unwrap();
    apply(&store, &plan, "weather", &weather(vec![], vec![], vec![]), 0);
    apply(&store, &plan, "weather", &weather(vec![Some("")], vec![Some(1)], vec![Some(4.0)]), 0);
    let online = store.online_plan(&plan, "departure_risk").unwrap();
    let temp = online.stored().iter().position(|stored| stored.field == "temp").unwrap();
    let keys = |origins: &[Option<&str>]| {
        let others = vec![Some("x"); origins.len()];
        Batch::new(vec![text_keys("origin", origins), text_keys("tailnum", &others), text_keys("carrier", &others)])
            .unwrap()
    };
    let found = online.read_columns(&keys(&[None, Some("")]), HOUR_US).unwrap();
    assert_eq!(found.status[temp], FeatureStatus::NotFound as u8);
    assert_eq!(found.columns[temp].value(1), Value::Float64(4.0));
    let none = online.read_columns(&keys(&[]), HOUR_US).unwrap();
    assert!(none.status.is_empty() && none.columns.iter().all(Column::is_empty));
    assert_eq!(online.join_keys().len(), 3);
    assert!(
        online.tables().all(|table| table.join_keys.len() == 1
            && table.join_keys[0] == Field::new(&table.name, "string".parse().unwrap()))
    );
}
