//! Tests with files that somebody made: the checksum is right, and anything else may be wrong. Then answers may be wrong, but
//! nothing faults and nothing hangs.
#![allow(clippy::unwrap_used)]

use headrace_types::{Column, ColumnData, DType, Field, RowVersion, ScalarType, Value};

use super::key::{EncodedKeys, KeyEncoder};
use super::snapshot::{OpenMode, set_checksum};
use super::{GatherFeature, ImageLayout, RowTable, RowValues, TableOptions, TableSchema, ViewSchema};

const KEYS: usize = 40;

fn schema() -> TableSchema {
    TableSchema {
        keys: vec![Field::new("id", DType::STRING)],
        views: vec![
            ViewSchema {
                name: "a".into(),
                fields: vec![Field::new("x", DType::FLOAT32), Field::new("s", DType::STRING)],
            },
            ViewSchema { name: "b".into(), fields: vec![Field::new("l", DType::List(ScalarType::Int64))] },
            ViewSchema { name: "c".into(), fields: vec![Field::new("n", DType::INT64)] },
        ],
    }
}

fn options() -> TableOptions {
    TableOptions::new(32 << 20)
}

/// Short keys and long ones, stored and not.
fn keys() -> EncodedKeys {
    let texts = (0..2 * KEYS)
        .map(|i| if i.is_multiple_of(3) { format!("a rather long key, number {i}") } else { format!("k{i}") });
    let column = Column::new(ColumnData::String(texts.collect()));
    let mut encoded = EncodedKeys::default();
    KeyEncoder::new(&schema().keys).keys(&[&column], 2 * KEYS, &mut encoded).unwrap();
    encoded
}

fn write(table: &RowTable, count: usize, event_ts: i64, keys: &EncodedKeys) -> headrace_types::Result<()> {
    for i in 0..count {
        let text = "long enough for a block ".repeat(i % 4);
        let rows = [
            vec![Value::Float32(i as f32), Value::String(text)],
            vec![Value::List(vec![Value::Int(i as i64); i % 5])],
            vec![Value::Null],
        ];
        for (view, values) in rows.iter().enumerate() {
            let mut image = Vec::new();
            ImageLayout::new(&schema().views[view].fields).encode(values, &mut image)?;
            let version = RowVersion { event_ts, created_ts: 0, sequence: 0 };
            table.upsert(view, keys.key(i).unwrap(), version, RowValues::Live(&image))?;
        }
    }
    Ok(())
}

/// Uses a table in every way, so that whatever is wrong with it has its chance.
fn exercise(table: &RowTable, keys: &EncodedKeys) {
    let schema = table.schema().clone();
    let features: Vec<GatherFeature> = (0..schema.views.len())
        .flat_map(|view| (0..schema.views[view].fields.len()).map(move |field| (view, field)))
        .enumerate()
        .map(|(position, (view, field))| GatherFeature { view, field, position })
        .collect();
    let width = features.len();
    let ttl_us = vec![Some(10); schema.views.len()];
    let plan = table.gather_plan(&features, &ttl_us, width).unwrap();
    let mut columns = vec![Column::new(ColumnData::Bool(Vec::new())); width];
    let mut status = vec![0; 2 * KEYS * width];
    let _ = table.gather_columns(&plan, keys.as_ref(), 3, &mut columns, &mut status);
    let numbers = [GatherFeature { view: 0, field: 0, position: 0 }];
    if let Ok(plan) = table.gather_plan(&numbers, &ttl_us, 1) {
        let _ = table.gather_f32(&plan, keys.as_ref(), 3, &mut [0.0; 2 * KEYS], Some(&mut [0; 2 * KEYS]));
    }
    let _ = table.scan(|_, _, _, _| Ok(()));
    let _ = (table.len(), table.stats());
    if !table.is_read_only() && schema == self::schema() {
        let _ = write(table, 2 * KEYS, 100, keys);
        let _ = table.scan(|_, _, _, _| Ok(()));
    }
}

#[test]
fn a_forged_file_does_no_harm() {
    let path = std::env::temp_dir().join(format!("headrace-forged-{}.table", std::process::id()));
    let table = RowTable::create(schema(), &options()).unwrap();
    let keys = keys();
    write(&table, KEYS, 1, &keys).unwrap();
    table.write_snapshot(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut state = 12_345u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let extremes = [0, 1, 64, 0xff, u64::MAX, u64::MAX << 6, 1 << 40, bytes.len() as u64, bytes.len() as u64 - 8];
    let mut opened_count = 0;
    for round in 0..1500 {
        let mut forged = bytes.clone();
        for _ in 0..1 + round % 4 {
            let word = match round % 3 {
                0 => 10 + random(640),
                _ => random(forged.len() / 8),
            };
            let value = match random(3) {
                0 => extremes[random(extremes.len())],
                1 => random(forged.len()) as u64,
                _ => random(usize::MAX) as u64,
            };
            forged[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        set_checksum(&mut forged);
        std::fs::write(&path, &forged).unwrap();
        for mode in [OpenMode::Private, OpenMode::ReadOnlyShared] {
            if let Ok(opened) = RowTable::open_snapshot(&path, mode, &options()) {
                opened_count += 1;
                exercise(&opened, &keys);
            }
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(opened_count > 500, "only {opened_count} forged files could be opened");
}
