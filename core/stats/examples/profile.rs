//! How fast a frame is profiled: 50 columns, one thread, batches of 65,536 rows and of 1,000.
//! `cargo run --release -p headrace-stats --example profile [part of a name]`.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for people

use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use headrace_stats::{Buffers, Profile, hash_word};

const COLUMNS: u64 = 50;
const ROWS: u64 = 65_536;
const SMALL_ROWS: usize = 1_000;
const REPEATS: usize = 25;

fn uniform(place: u64) -> f64 {
    (hash_word(place) >> 11) as f64 / (1u64 << 53) as f64
}

/// The sum of twelve uniform numbers, as good as a normal one here.
fn normal(place: u64) -> f64 {
    (0..12).map(|part| uniform(place * 12 + part)).sum::<f64>() - 6.0
}

fn measure(name: &str, column: impl Fn(u64) -> ArrayRef) {
    if std::env::args().nth(1).is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let columns: Vec<(String, ArrayRef)> = (0..COLUMNS).map(|c| (format!("c{c}"), column(c * ROWS))).collect();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    measure_calls(name, &batch, ROWS as usize);
    measure_calls(name, &batch, SMALL_ROWS);
}

fn measure_calls(name: &str, batch: &RecordBatch, rows: usize) {
    let batches: Vec<RecordBatch> = (0..ROWS as usize / rows).map(|call| batch.slice(call * rows, rows)).collect();
    let mut buffers = Buffers::default();
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let mut profile = Profile::new();
            profile.add_batch_with(batch, &mut buffers).unwrap();
            let start = Instant::now();
            for batch in &batches {
                profile.add_batch_with(batch, &mut buffers).unwrap();
            }
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[REPEATS / 2];
    let counted = (rows * batches.len()) as f64;
    println!(
        "{name:24} calls of {rows:5} rows  {:6.2} M rows/s  {:5.2} ns a value",
        counted / median / 1e6,
        median * 1e9 / counted / COLUMNS as f64
    );
}

fn main() {
    measure("float64, normal", |at| {
        Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| 50.0 + 20.0 * normal(at + row))))
    });
    measure("float32, normal", |at| {
        Arc::new(Float32Array::from_iter_values((0..ROWS).map(|row| (50.0 + 20.0 * normal(at + row)) as f32)))
    });
    measure("float64, 10 % null", |at| {
        Arc::new(Float64Array::from_iter((0..ROWS).map(|row| (uniform(at + row) > 0.1).then(|| normal(at + row)))))
    });
    measure("float64, 5 values", |at| {
        Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| (uniform(at + row) * 5.0).floor())))
    });
    measure("float64, 300 values", |at| {
        Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| (uniform(at + row) * 300.0).floor())))
    });
    measure("int64, distinct", |at| Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (at + row) as i64))));
    measure("string, 100 values", |at| {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("v{}", (uniform(at + row) * 100.0) as u64))))
    });
}
