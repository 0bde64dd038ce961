//! The online table without Python, for `headrace bench online`: lookups of plain and of mixed columns, and lookups while a
//! writer applies 100,000 rows a second.
//!
//! `online KEYS BLOCKS` prints one line of JSON: case -> median and 99th percentile of a call, in microseconds.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headrace_cpu::{GatherFeature, ImageLayout, KeysRef, RowTable, RowValues, TableOptions, TableSchema, ViewSchema};
use headrace_micro::Random;
use headrace_types::{Column, ColumnData, DType, Field, RowVersion, Value};

const FIELDS: usize = 50;
/// Every tenth field of the mixed table is a string.
const STRING_EVERY: usize = 10;
const ROWS: usize = 100;
const MISSES_IN_TEN: usize = 2;
const ZIPF_EXPONENT: f64 = 1.1;
const BYTES_MAX: u64 = 8 << 30;
const NOW_US: i64 = 1_700_000_000_000_000;
const TTL_US: i64 = 86_400_000_000;
const DRAWS: usize = 1 << 19;
const BLOCK: Duration = Duration::from_millis(200);
const WRITES_PER_S: f64 = 100_000.0;
const WRITES_AT_ONCE: usize = 100;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let keys: usize = arguments.next().ok_or("KEYS is missing")?.parse()?;
    let blocks: usize = arguments.next().ok_or("BLOCKS is missing")?.parse()?;
    let mut random = Random::new(7);
    let known: Vec<i64> = (0..keys).map(|_| (random.next_u64() >> 1).cast_signed()).collect();
    let plain = Table::filled(&known, |_| DType::FLOAT32, &mut random)?;
    let is_string = |field: usize| field % STRING_EVERY == STRING_EVERY - 1;
    let mixed =
        Table::filled(&known, |field| if is_string(field) { DType::STRING } else { DType::FLOAT32 }, &mut random)?;
    let uniform: Vec<i64> = (0..DRAWS).map(|_| known[random.below(keys)]).collect();
    let skewed = zipf(&known, &mut random);

    let mut took = [const { Vec::new() }; 4];
    for _ in 0..blocks {
        plain.time_columns(&uniform, &mut took[0])?;
        mixed.time_columns(&skewed, &mut took[1])?;
    }
    let mut written = 0;
    for _ in 0..blocks {
        plain.time_floats(&uniform, &mut took[2])?;
        written += plain.time_floats_while_writing(&known, &uniform, &mut took[3])?;
    }
    let per_s = written as f64 / (blocks as f64 * BLOCK.as_secs_f64());
    let names = ["columns-plain", "columns-mixed", "floats-quiet", "floats-while-writing"];
    let cases = names.iter().zip(&mut took).map(|(name, took)| format!("\"{name}\": {}", summary(took)));
    let cases = cases.collect::<Vec<_>>().join(", ");
    #[allow(clippy::print_stdout)] // what the harness reads
    {
        println!("{{\"cases\": {{{cases}}}, \"written_rows_per_s\": {per_s:.0}}}");
    }
    Ok(())
}

/// The median of the blocks' medians, and the 99th percentile of all calls.
fn summary(blocks: &mut [Vec<u64>]) -> String {
    let at = |values: &mut Vec<u64>, part: f64| {
        values.sort_unstable();
        values[((values.len() - 1) as f64 * part) as usize] as f64 / 1000.0
    };
    let mut medians: Vec<u64> = blocks.iter_mut().map(|block| (at(block, 0.5) * 1000.0) as u64).collect();
    let mut all: Vec<u64> = blocks.concat();
    format!("{{\"median_us\": {:.4}, \"p99_us\": {:.4}}}", at(&mut medians, 0.5), at(&mut all, 0.99))
}

/// Keys as a shop sees them: few are asked for most of the time, and some are not known.
fn zipf(known: &[i64], random: &mut Random) -> Vec<i64> {
    let mut sums = Vec::with_capacity(known.len());
    let mut sum = 0.0;
    for rank in 1..=known.len() {
        sum += (rank as f64).powf(-ZIPF_EXPONENT);
        sums.push(sum);
    }
    (0..DRAWS)
        .map(|_| {
            if random.below(10) < MISSES_IN_TEN {
                return -1 - (random.next_u64() >> 1).cast_signed();
            }
            let drawn = random.next_u64() as f64 / u64::MAX as f64 * sum;
            known[sums.partition_point(|sum| *sum < drawn).min(known.len() - 1)]
        })
        .collect()
}

struct Table {
    rows: RowTable,
    layout: ImageLayout,
    features: Vec<GatherFeature>,
    sequence: AtomicU64,
}

impl Table {
    fn filled(keys: &[i64], dtype: impl Fn(usize) -> DType, random: &mut Random) -> Outcome<Self> {
        let fields: Vec<Field> = (0..FIELDS).map(|field| Field::new(format!("f{field}"), dtype(field))).collect();
        let schema = TableSchema {
            keys: vec![Field::new("id", DType::INT64)],
            views: vec![ViewSchema { name: "v".into(), fields: fields.clone() }],
        };
        let table = Self {
            rows: RowTable::create(schema, &TableOptions::new(BYTES_MAX))?,
            layout: ImageLayout::new(&fields),
            features: (0..FIELDS).map(|field| GatherFeature { view: 0, field, position: field }).collect(),
            sequence: AtomicU64::new(0),
        };
        let mut writer = table.rows.writer()?;
        let mut image = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let value = |field: &Field| match field.dtype {
                DType::STRING => Value::String(format!("code{}", random.below(100_000))),
                _ => Value::Float32(number as f32),
            };
            let values: Vec<Value> = fields.iter().map(value).collect();
            image.clear();
            table.layout.encode(&values, &mut image)?;
            writer.upsert(0, &key.to_le_bytes(), table.version(), RowValues::Live(&image))?;
        }
        drop(writer);
        Ok(table)
    }

    fn version(&self) -> RowVersion {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        RowVersion { event_ts: NOW_US, created_ts: NOW_US, sequence }
    }

    fn time_columns(&self, asked: &[i64], took: &mut Vec<Vec<u64>>) -> Outcome<()> {
        let plan = self.rows.gather_plan(&self.features, &[Some(TTL_US)], FIELDS)?;
        let mut columns = vec![Column::new(ColumnData::Bool(Vec::new())); FIELDS];
        let mut status = vec![0; ROWS * FIELDS];
        took.push(timed(asked, |keys| {
            self.rows.gather_columns(&plan, KeysRef::Int64(keys), NOW_US, &mut columns, &mut status)?;
            black_box(&columns);
            Ok(())
        })?);
        Ok(())
    }

    fn time_floats(&self, asked: &[i64], took: &mut Vec<Vec<u64>>) -> Outcome<()> {
        let plan = self.rows.gather_plan(&self.features, &[Some(TTL_US)], FIELDS)?;
        let mut out = vec![0.0; ROWS * FIELDS];
        took.push(timed(asked, |keys| {
            self.rows.gather_f32(&plan, KeysRef::Int64(keys), NOW_US, &mut out, None)?;
            black_box(&out);
            Ok(())
        })?);
        Ok(())
    }

    /// Returns the number of rows that were written meanwhile.
    fn time_floats_while_writing(&self, known: &[i64], asked: &[i64], took: &mut Vec<Vec<u64>>) -> Outcome<usize> {
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| self.write_until(known, &is_done).map_err(|error| error.to_string()));
            let read = self.time_floats(asked, took);
            is_done.store(true, Ordering::Relaxed);
            let written = writing.join().map_err(|_| "the writer panicked")??;
            read.map(|()| written)
        })
    }

    fn write_until(&self, known: &[i64], is_done: &AtomicBool) -> Outcome<usize> {
        let mut image = Vec::new();
        self.layout.encode(&vec![Value::Float32(1.0); FIELDS], &mut image)?;
        let mut random = Random::new(self.sequence.load(Ordering::Relaxed));
        let started = Instant::now();
        let mut written = 0;
        while !is_done.load(Ordering::Relaxed) {
            let due = (started.elapsed().as_secs_f64() * WRITES_PER_S) as usize;
            if written + WRITES_AT_ONCE > due {
                std::thread::sleep(Duration::from_micros(500));
                continue;
            }
            let mut writer = self.rows.writer()?;
            for _ in 0..WRITES_AT_ONCE {
                let key = known[random.below(known.len())];
                writer.upsert(0, &key.to_le_bytes(), self.version(), RowValues::Live(&image))?;
            }
            written += WRITES_AT_ONCE;
        }
        Ok(written)
    }
}

/// Nanoseconds of each call of one block, with other keys in every call.
fn timed(asked: &[i64], mut call: impl FnMut(&[i64]) -> Outcome<()>) -> Outcome<Vec<u64>> {
    let mut took = Vec::new();
    let block = Instant::now();
    let mut windows = asked.chunks_exact(ROWS).cycle();
    while block.elapsed() < BLOCK {
        let keys = windows.next().ok_or("there are fewer keys than a call takes")?;
        let start = Instant::now();
        call(keys)?;
        took.push(start.elapsed().as_nanos() as u64);
    }
    Ok(took)
}
