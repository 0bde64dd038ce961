//! Files that somebody made: the checksum is right, and anything else may be wrong. Then answers may be wrong, but nothing
//! faults and nothing hangs. For the tests here and for the fuzzer, never for anything that serves.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use headrace_types::{Column, ColumnData, DType, Field, RowVersion, ScalarType, Value};

use super::index::LINE_BYTES;
use super::key::{EncodedKeys, KeyEncoder};
use super::snapshot::{OpenMode, set_checksum, set_len};
use super::{GatherFeature, ImageLayout, RowTable, RowValues, TableOptions, TableSchema, ViewSchema};

pub(super) const KEYS: usize = 40;

pub(super) fn schema() -> TableSchema {
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

pub(super) fn options() -> TableOptions {
    TableOptions::new(32 << 20)
}

/// Short keys and long ones, stored and not.
pub(super) fn keys() -> EncodedKeys {
    let texts = (0..2 * KEYS)
        .map(|i| if i.is_multiple_of(3) { format!("a rather long key, number {i}") } else { format!("k{i}") });
    let column = Column::new(ColumnData::String(texts.collect()));
    let mut encoded = EncodedKeys::default();
    KeyEncoder::new(&schema().keys).keys(&[&column], 2 * KEYS, &mut encoded).unwrap();
    encoded
}

pub(super) fn write(table: &RowTable, count: usize, event_ts: i64, keys: &EncodedKeys) -> headrace_types::Result<()> {
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

/// A small table of all kinds of fields, as a file.
pub fn write_sample_snapshot(path: &Path) -> headrace_types::Result<()> {
    let table = RowTable::create(schema(), &options())?;
    write(&table, KEYS, 1, &keys())?;
    table.write_snapshot(path)
}

/// Writes `bytes` as a file whose length and checksum are right, and uses the table that it holds in every way; says in how
/// many modes it could be opened.
pub fn use_forged_snapshot(bytes: &[u8], path: &Path) -> std::io::Result<usize> {
    let mut forged = bytes.to_vec();
    forged.resize(forged.len().next_multiple_of(LINE_BYTES), 0);
    set_len(&mut forged);
    set_checksum(&mut forged);
    std::fs::write(path, &forged)?;
    let keys = keys();
    let modes = [OpenMode::Private, OpenMode::ReadOnlyShared];
    Ok(modes
        .into_iter()
        .filter_map(|mode| RowTable::open_snapshot(path, mode, &options()).ok())
        .map(|table| exercise(&table, &keys))
        .count())
}
