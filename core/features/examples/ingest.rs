//! Times the encoding of rows and their application to the local store, on one core.
//!
//! `cargo run --release -p headrace-features --example ingest [rows]`: rows of 50 float32 under random int64 keys, first into
//! an empty store, then over the same keys.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use headrace_features::{EncodeOptions, LocalStore, Plan, StoreOptions, encode_rows};
use serde_json::json;

const FIELDS: usize = 50;
const BATCH_ROWS: usize = 50_000;

fn plan() -> Plan {
    let fields: Vec<_> = (0..FIELDS).map(|i| json!({"name": format!("f{i}"), "dtype": "float32"})).collect();
    let plan = json!({
        "format": 1, "project": "ingest",
        "entities": {"thing": {"join_keys": [{"name": "id", "dtype": "int64"}]}},
        "views": {"v": {"entities": ["thing"], "fields": fields, "ttl_us": null, "source": {"kind": "push", "event_ts": "at"}}},
        "services": {},
    });
    Plan::from_json(&plan.to_string()).unwrap()
}

fn batch(start: usize, event_ts: i64) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> = vec![
        (
            "id".into(),
            Arc::new((start..start + BATCH_ROWS).map(|i| Some((i as i64).wrapping_mul(7_919))).collect::<Int64Array>()),
        ),
        (
            "__event_ts".into(),
            Arc::new(TimestampMicrosecondArray::from(vec![event_ts; BATCH_ROWS]).with_timezone("UTC")),
        ),
    ];
    for field in 0..FIELDS {
        let values = (0..BATCH_ROWS).map(|i| Some((start + i + field) as f32)).collect::<Float32Array>();
        columns.push((format!("f{field}"), Arc::new(values)));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn main() {
    let rows: usize = std::env::args().nth(1).map_or(1_000_000, |arg| arg.parse().unwrap());
    let plan = plan();
    let store = LocalStore::create(&plan, StoreOptions { bytes_max: 8 << 30, huge_pages: true }).unwrap();
    for event_ts in 0..3 {
        let (mut encode, mut apply) = (0.0, 0.0);
        for start in (0..rows).step_by(BATCH_ROWS) {
            let batch = batch(start, event_ts);
            let began = Instant::now();
            let encoded =
                encode_rows(plan.view("v").unwrap(), &batch, &EncodeOptions::new(start as u64, 10, 0)).unwrap();
            encode += began.elapsed().as_secs_f64();
            let began = Instant::now();
            store.apply(&encoded.bytes).unwrap();
            apply += began.elapsed().as_secs_f64();
        }
        let rate = |seconds: f64| rows as f64 / seconds / 1e3;
        println!(
            "pass {event_ts}: encode {:.0}k rows/s, apply {:.0}k rows/s, both {:.0}k rows/s",
            rate(encode),
            rate(apply),
            rate(encode + apply)
        );
    }
}
