//! Online equals offline: what a lookup finds at a moment is what the point-in-time join finds as known at that moment.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headrace_features::{
    AsKnownAt, EncodeOptions, JoinOptions, LocalStore, SourceRows, StoreOptions, encode_rows, point_in_time_join,
};
use headrace_types::{Batch, Column, DType, FeatureStatus, Value};
use proptest::prelude::*;
use serde_json::json;

const KEYS: [(i64, &str); 4] = [(1, "23"), (12, "3"), ((1 << 53) + 1, ""), (1 << 53, "")];
const LAST: i64 = 10;

#[derive(Debug, Clone)]
struct Row {
    key: usize,
    event_ts: i64,
    /// A row is known at or after its event.
    delay: i64,
    deleted: bool,
    value: Option<f64>,
}

fn row() -> impl Strategy<Value = Row> {
    let value =
        prop_oneof![1 => Just(None), 1 => Just(Some(f64::NAN)), 6 => (0i32..1000).prop_map(|v| Some(f64::from(v)))];
    (0..KEYS.len(), 0i64..8, 0i64..4, prop::bool::weighted(0.2), value)
        .prop_map(|(key, event_ts, delay, deleted, value)| Row { key, event_ts, delay, deleted, value })
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<TimestampMicrosecondArray>())
}

fn key_columns(keys: impl Iterator<Item = usize> + Clone) -> [(&'static str, ArrayRef); 2] {
    [
        ("id", Arc::new(keys.clone().map(|key| Some(KEYS[key].0)).collect::<Int64Array>())),
        ("code", Arc::new(keys.map(|key| Some(KEYS[key].1)).collect::<StringArray>())),
    ]
}

fn source_batch(rows: &[&Row]) -> RecordBatch {
    let [id, code] = key_columns(rows.iter().map(|row| row.key));
    batch(vec![
        id,
        code,
        ("__event_ts", times(rows.iter().map(|row| row.event_ts))),
        ("__created_ts", times(rows.iter().map(|row| row.event_ts + row.delay))),
        ("__deleted", Arc::new(rows.iter().map(|row| Some(row.deleted)).collect::<BooleanArray>())),
        ("x", Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>())),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_lookup_at_a_moment_is_the_join_as_known_at_it(
        rows in prop::collection::vec(row(), 0..50),
        ttl_us in prop::option::of(1i64..6),
    ) {
        let plan = common::plan(&json!({
            "format": 1, "project": "p",
            "entities": {"e": {"join_keys": [{"name": "id", "dtype": "int64"}, {"name": "code", "dtype": "string"}]}},
            "views": {"v": {"entities": ["e"], "ttl_us": ttl_us, "fields": [{"name": "x", "dtype": "float64"}],
                            "source": {"kind": "push", "event_ts": "event_ts"}}},
            "services": {"svc": {"features": [{"view": "v", "feature": "x", "name": "x"}]}},
        }));
        let source = SourceRows { batches: vec![source_batch(&rows.iter().collect::<Vec<_>>())] };
        let asked = || (0..=LAST).flat_map(|_| 0..KEYS.len());
        let [id, code] = key_columns(asked());
        let at = times((0..=LAST).flat_map(|at| KEYS.map(|_| at)));
        let options = JoinOptions {
            event_ts_column: "at".into(),
            as_known_at: AsKnownAt::EventTime,
            threads: 1,
            statuses: true,
            held_bytes_max: 0,
            cancel: None,
        };
        let sources = BTreeMap::from([("v".into(), source)]);
        let joined = point_in_time_join(&plan, "svc", &batch(vec![id, code, ("at", at)]), &options, &sources).unwrap();
        let values = joined.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>();
        let statuses = joined.batch.column_by_name("x__status").unwrap().as_dictionary::<Int8Type>();
        let names = statuses.values().as_string::<i32>();

        // The rows become known in the order of time.
        let options = StoreOptions { bytes_max: 16 << 20, huge_pages: false };
        let store = LocalStore::create(&plan, options).unwrap();
        let online = store.online_plan(&plan, "svc").unwrap();
        let keys = Batch::new(vec![
            ("id".into(), Column::from_values(DType::INT64, KEYS.map(|key| Value::Int(key.0))).unwrap()),
            ("code".into(), Column::from_values(DType::STRING, KEYS.map(|key| Value::String(key.1.into()))).unwrap()),
        ])
        .unwrap();
        for now_us in 0..=LAST {
            // One batch a row, so that each has the sequence that it has in the source.
            for (sequence, row) in rows.iter().enumerate() {
                if row.event_ts + row.delay == now_us {
                    let view = plan.view("v").unwrap();
                    let encoded = encode_rows(view, &source_batch(&[row]), &EncodeOptions::new(sequence as u64, now_us, 0)).unwrap();
                    store.apply(&encoded.bytes).unwrap();
                }
            }
            let found = online.read_columns(&keys, now_us).unwrap();
            for (key, pair) in KEYS.iter().enumerate() {
                let at = now_us as usize * KEYS.len() + key;
                let offline = values.is_valid(at).then(|| values.value(at).to_bits());
                let status = names.value(usize::try_from(statuses.keys().value(at)).unwrap());
                let online = match found.columns[0].value(key) {
                    Value::Float64(value) => Some(value.to_bits()),
                    _ => None,
                };
                let online_status = FeatureStatus::ALL[found.status[key] as usize].name();
                prop_assert_eq!((online, online_status), (offline, status), "{:?} at {}", pair, now_us);
            }
        }
    }
}
