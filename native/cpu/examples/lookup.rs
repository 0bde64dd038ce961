//! Times random lookups of the row table beside a plain gather of the same rows from one big vector.
//!
//! `cargo run --release -p headrace-cpu --example lookup [keys] [calls]`: five views of 50 float32 a key. Every call looks up
//! other random keys; the engines alternate in blocks; medians over all calls are printed.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use headrace_cpu::{GatherFeature, ImageLayout, KeysRef, RowTable, RowValues, TableOptions, TableSchema, ViewSchema};
use headrace_types::{DType, Field, RowVersion};

const VIEWS: usize = 5;
const FIELDS: usize = 50;
const WIDTH: usize = VIEWS * FIELDS;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}

fn schema() -> TableSchema {
    let fields: Vec<Field> = (0..FIELDS).map(|f| Field::new(format!("f{f}"), DType::FLOAT32)).collect();
    TableSchema {
        keys: vec![Field::new("id", DType::INT64)],
        views: (0..VIEWS).map(|v| ViewSchema { name: format!("v{v}"), fields: fields.clone() }).collect(),
    }
}

fn value(row: usize, column: usize) -> f32 {
    (row % 1000) as f32 + column as f32 / 1000.0
}

fn key(row: usize) -> i64 {
    (row as i64).wrapping_mul(7_919) + 13
}

fn fill(table: &RowTable, keys: usize) {
    let mut writer = table.writer().unwrap();
    let layout = ImageLayout::new(&schema().views[0].fields);
    let mut image = vec![0; layout.fixed_bytes()];
    for view in 0..VIEWS {
        for row in 0..keys {
            for field in 0..FIELDS {
                let at = layout.value_offset(field);
                image[at..at + 4].copy_from_slice(&value(row, view * FIELDS + field).to_le_bytes());
            }
            let version = RowVersion { event_ts: 1_000_000, created_ts: 0, sequence: row as u64 };
            writer.upsert(view, &key(row).to_le_bytes(), version, RowValues::Live(&image)).unwrap();
        }
    }
}

/// The rows in one vector that, like numpy's, begins on huge pages.
fn plain_rows(keys: usize) -> memmap2::MmapMut {
    let mut map = memmap2::MmapMut::map_anon(keys * WIDTH * 4).unwrap();
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::HugePage).unwrap();
    for (row, bytes) in map.chunks_exact_mut(WIDTH * 4).enumerate() {
        for (column, bytes) in bytes.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&value(row, column).to_le_bytes());
        }
    }
    map
}

fn take(rows: &[u8], wanted: &[usize], out: &mut [u8]) {
    for (out, &row) in out.chunks_exact_mut(WIDTH * 4).zip(wanted) {
        out.copy_from_slice(&rows[row * WIDTH * 4..][..WIDTH * 4]);
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let arg = |i: usize, default: usize| std::env::args().nth(i).map_or(default, |arg| arg.parse().unwrap());
    let (keys, calls) = (arg(1, 1_000_000), arg(2, 400));
    let table = RowTable::create(schema(), &TableOptions::new(8 << 30)).unwrap();
    let start = Instant::now();
    fill(&table, keys);
    let seconds = start.elapsed().as_secs_f64();
    println!("upserts: {:.0} rows of {FIELDS} float32 a second; {:?}", (keys * VIEWS) as f64 / seconds, table.stats());

    let features: Vec<GatherFeature> =
        (0..WIDTH).map(|i| GatherFeature { view: i / FIELDS, field: i % FIELDS, position: i }).collect();
    let plan = table.gather_plan(&features, &[Some(3_600_000_000); VIEWS], WIDTH).unwrap();
    let rows = plain_rows(keys);
    let mut random = Random(88_172_645_463_325_252);
    println!(
        "{:>6} {:>12} {:>12} {:>12} {:>7} {:>9}",
        "keys", "take us", "gather us", "+status us", "ratio", "ns a key"
    );
    for count in [1usize, 10, 100, 1000] {
        let calls = (calls * 100 / count.max(10)).clamp(50, 5000);
        let mut out = vec![0f32; count * WIDTH];
        let mut bytes = vec![0u8; count * WIDTH * 4];
        let mut status = vec![0u8; count * WIDTH];
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for block in 0..calls * 3 {
            let wanted: Vec<usize> = (0..count).map(|_| random.below(keys)).collect();
            let wanted_keys: Vec<i64> = wanted.iter().map(|&row| key(row)).collect();
            let engine = block / 10 % 3;
            let start = Instant::now();
            match engine {
                0 => take(&rows, &wanted, &mut bytes),
                1 => table.gather_f32(&plan, KeysRef::Int64(&wanted_keys), 2_000_000, &mut out, None).unwrap(),
                _ => table
                    .gather_f32(&plan, KeysRef::Int64(&wanted_keys), 2_000_000, &mut out, Some(&mut status))
                    .unwrap(),
            }
            times[engine].push(start.elapsed().as_secs_f64() * 1e6);
            if engine > 0 {
                assert!((0..count).all(|i| out[i * WIDTH + 249] == value(wanted[i], 249)), "a row is wrong");
            }
        }
        let [take, gather, with_status] = times.each_mut().map(|times| median(times));
        let ratio = gather / take;
        println!(
            "{count:>6} {take:>12.2} {gather:>12.2} {with_status:>12.2} {ratio:>7.2} {:>9.0}",
            gather * 1e3 / count as f64
        );
    }
}
