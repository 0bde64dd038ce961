//! The row table's gather, beside a plain copy of rows whose place is known: what the lookup itself costs.

use std::error::Error;
use std::hint::black_box;

use headrace_cpu::{GatherFeature, ImageLayout, KeysRef, RowTable, RowValues, TableOptions, TableSchema, ViewSchema};
use headrace_micro::{Random, Timed, print_table, time_in_turns};
use headrace_types::{DType, Field, RowVersion, Value};

const KEYS: usize = 1_000_000;
const VIEWS: usize = 5;
const FIELDS: usize = 50;
const WIDTH: usize = VIEWS * FIELDS;
const BYTES_MAX: u64 = 8 << 30;
const NOW_US: i64 = 1_700_000_000_000_000;
const TTL_US: i64 = 86_400_000_000;
const DRAWS: usize = 1 << 20;
const ROWS_PER_CALL: [usize; 4] = [1, 10, 100, 1000];

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Random::new(7);
    let keys: Vec<i64> = (0..KEYS).map(|_| random.next_u64().cast_signed()).collect();
    let rows: Vec<f32> = (0..KEYS * WIDTH).map(|_| random.next_f32()).collect();
    let table = filled_table(&keys, &rows)?;
    let features: Vec<GatherFeature> = (0..WIDTH)
        .map(|position| GatherFeature { view: position / FIELDS, field: position % FIELDS, position })
        .collect();
    let plan = table.gather_plan(&features, &[Some(TTL_US); VIEWS], WIDTH)?;
    let numbers: Vec<usize> = (0..DRAWS).map(|_| random.below(KEYS)).collect();
    let drawn: Vec<i64> = numbers.iter().map(|&number| keys[number]).collect();

    for count in ROWS_PER_CALL {
        let window = |call: usize| {
            let start = call * count % (DRAWS - count + 1);
            start..start + count
        };
        let mut ours = vec![0.0_f32; count * WIDTH];
        let mut copied = vec![0.0_f32; count * WIDTH];
        table.gather_f32(&plan, KeysRef::Int64(&drawn[window(3)]), NOW_US, &mut ours, None)?;
        copy_rows(&rows, &numbers[window(3)], &mut copied);
        assert_eq!(ours, copied, "the table gives other values than were stored");
        let mut functions = [
            Timed::new("gather_f32", count, |call| {
                let keys = KeysRef::Int64(&drawn[window(call)]);
                table.gather_f32(&plan, keys, NOW_US, &mut ours, None).expect("keys and buffer fit the plan");
                black_box(&ours);
            }),
            Timed::new("copy of known rows", count, |call| {
                copy_rows(&rows, &numbers[window(call)], &mut copied);
                black_box(&copied);
            }),
        ];
        time_in_turns(&mut functions);
        print_table(&format!("{KEYS} keys x {WIDTH} float32, {count} random keys a call"), &functions)?;
    }
    Ok(())
}

fn copy_rows(rows: &[f32], numbers: &[usize], out: &mut [f32]) {
    for (number, target) in numbers.iter().zip(out.chunks_exact_mut(WIDTH)) {
        target.copy_from_slice(&rows[number * WIDTH..(number + 1) * WIDTH]);
    }
}

fn filled_table(keys: &[i64], rows: &[f32]) -> Result<RowTable, Box<dyn Error>> {
    let view = |view: usize| ViewSchema {
        name: format!("view{view}"),
        fields: (0..FIELDS).map(|field| Field::new(format!("v{view}_{field}"), DType::FLOAT32)).collect(),
    };
    let views: Vec<ViewSchema> = (0..VIEWS).map(view).collect();
    let layouts: Vec<ImageLayout> = views.iter().map(|view| ImageLayout::new(&view.fields)).collect();
    let schema = TableSchema { keys: vec![Field::new("id", DType::INT64)], views };
    let table = RowTable::create(schema, &TableOptions::new(BYTES_MAX))?;
    let mut writer = table.writer()?;
    let mut image = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let version = RowVersion { event_ts: NOW_US, created_ts: NOW_US, sequence: number as u64 };
        for (view, layout) in layouts.iter().enumerate() {
            let first = number * WIDTH + view * FIELDS;
            let values: Vec<Value> = rows[first..first + FIELDS].iter().map(|&value| Value::Float32(value)).collect();
            image.clear();
            layout.encode(&values, &mut image)?;
            writer.upsert(view, &key.to_le_bytes(), version, RowValues::Live(&image))?;
        }
    }
    drop(writer);
    Ok(table)
}
