//! Readers and a writer at once: every row that is read is wholly one version.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use headrace_cpu::{
    GatherFeature, ImageLayout, KeysRef, RowTable, RowValues, TableOptions, TableSchema, TableSnapshot, ViewSchema,
};
use headrace_types::{Column, ColumnData, DType, Field, RowVersion, Value};

const KEYS: i64 = 64;
const FLOATS: usize = 60;

/// A version's row: sixty floats and a string, all of them the version.
fn image(layout: &ImageLayout, version: u64) -> Vec<u8> {
    let mut values = vec![Value::Float32(version as f32); FLOATS];
    values.push(Value::String(format!("{version:0>40}")));
    let mut image = Vec::new();
    layout.encode(&values, &mut image).unwrap();
    image
}

/// Ends the other threads when this one ends, be it by a failed assertion.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn schema() -> TableSchema {
    let mut fields: Vec<Field> = (0..FLOATS).map(|i| Field::new(format!("f{i}"), DType::FLOAT32)).collect();
    fields.push(Field::new("s", DType::STRING));
    TableSchema { keys: vec![Field::new("id", DType::INT64)], views: vec![ViewSchema { name: "v".into(), fields }] }
}

#[test]
fn a_row_is_never_of_two_versions() {
    let table = RowTable::create(schema(), &TableOptions::new(1 << 30)).unwrap();
    let layout = ImageLayout::new(&schema().views[0].fields);
    let floats: Vec<GatherFeature> =
        (0..FLOATS).map(|field| GatherFeature { view: 0, field, position: field }).collect();
    let float_plan = table.gather_plan(&floats, &[None], FLOATS).unwrap();
    let both =
        [GatherFeature { view: 0, field: 7, position: 0 }, GatherFeature { view: 0, field: FLOATS, position: 1 }];
    let column_plan = table.gather_plan(&both, &[None], 2).unwrap();
    let is_done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);

    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, is_done, reads) = (&table, &is_done, &reads);
            let (float_plan, column_plan) = (&float_plan, &column_plan);
            scope.spawn(move || {
                let _done = Done(is_done);
                let keys: Vec<i64> = (0..KEYS).map(|key| (key * 7 + reader) % KEYS).collect();
                let mut out = vec![0f32; keys.len() * FLOATS];
                let mut columns = vec![Column::new(ColumnData::Bool(Vec::new())); 2];
                let mut status = vec![0u8; keys.len() * 2];
                let mut newest = vec![0f32; keys.len()];
                while !is_done.load(Ordering::Relaxed) {
                    table.gather_f32(float_plan, KeysRef::Int64(&keys), 0, &mut out, None).unwrap();
                    for (row, newest) in out.chunks_exact(FLOATS).zip(&mut newest) {
                        let is_whole = row.iter().all(|value| value.to_bits() == row[0].to_bits());
                        assert!(is_whole || row.iter().all(|value| value.is_nan()), "{row:?}");
                        if !row[0].is_nan() {
                            assert!(row[0] >= *newest, "a row went back from {newest} to {}", row[0]);
                            *newest = row[0];
                        }
                    }
                    table.gather_columns(column_plan, KeysRef::Int64(&keys), 0, &mut columns, &mut status).unwrap();
                    for row in 0..keys.len() {
                        if let (Value::Float32(number), Value::String(text)) =
                            (columns[0].value(row), columns[1].value(row))
                        {
                            assert_eq!(text.parse::<u64>().unwrap() as f32, number);
                        }
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // New keys all the while, so that indexes double under the readers; tombstones, so that blocks are freed.
        let _done = Done(&is_done);
        let mut version = 0;
        while (reads.load(Ordering::Relaxed) < 400 || version < 20_000) && !is_done.load(Ordering::Relaxed) {
            version += 1;
            let image = image(&layout, version);
            let row_version = RowVersion { event_ts: version as i64, created_ts: 0, sequence: 0 };
            let key = (version as i64 * 13) % KEYS;
            let values = if version % 10 == 0 { RowValues::Tombstone } else { RowValues::Live(&image) };
            table.upsert(0, &key.to_le_bytes(), row_version, values).unwrap();
            if version < 60_000 {
                table.upsert(0, &(KEYS + version as i64).to_le_bytes(), row_version, values).unwrap();
            }
        }
    });
}

#[test]
fn a_snapshot_taken_while_rows_are_written_is_whole() {
    let table = RowTable::create(schema(), &TableOptions::new(1 << 30)).unwrap();
    let layout = ImageLayout::new(&schema().views[0].fields);
    let folder = std::env::temp_dir().join(format!("headrace-table-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("while-writing.table");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 0;
            while !is_done.load(Ordering::Relaxed) {
                version += 1;
                let image = image(&layout, version);
                let row_version = RowVersion { event_ts: version as i64, created_ts: 0, sequence: 0 };
                let key = (version as i64 * 13) % 5000;
                table.upsert(0, &key.to_le_bytes(), row_version, RowValues::Live(&image)).unwrap();
            }
        });
        let _done = Done(&is_done);
        for _ in 0..10 {
            table.write_snapshot(&path).unwrap();
            let opened =
                RowTable::open_snapshot(&path, headrace_cpu::OpenMode::ReadOnlyShared, &TableOptions::new(0)).unwrap();
            opened
                .scan(|_, _, version, values| {
                    let RowValues::Live(image) = values else { panic!("no row was deleted") };
                    let values = layout.decode(image)?;
                    assert_eq!(values[0], Value::Float32(version.event_ts as f32));
                    assert_eq!(values[FLOATS], Value::String(format!("{:0>40}", version.event_ts)));
                    Ok(())
                })
                .unwrap();
        }
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Every row of a table: key, version, and its values or none for a tombstone.
fn rows_of(table: &RowTable, layout: &ImageLayout) -> std::collections::BTreeMap<Vec<u8>, (u64, Option<Vec<Value>>)> {
    let mut rows = std::collections::BTreeMap::new();
    table
        .scan(|key, _, version, values| {
            let values = match values {
                RowValues::Live(image) => Some(layout.decode(image)?),
                RowValues::Tombstone => None,
            };
            rows.insert(key.to_vec(), (version.event_ts as u64, values));
            Ok(())
        })
        .unwrap();
    rows
}

#[test]
fn a_snapshot_holds_what_was_there_when_it_was_begun() {
    let table = RowTable::create(schema(), &TableOptions::new(1 << 30)).unwrap();
    let layout = ImageLayout::new(&schema().views[0].fields);
    let folder = std::env::temp_dir().join(format!("headrace-cut-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cut.table");
    let write = |key: u64, version: u64| {
        let image = image(&layout, version);
        let row_version = RowVersion { event_ts: version as i64, created_ts: 0, sequence: 0 };
        let values = if version.is_multiple_of(7) { RowValues::Tombstone } else { RowValues::Live(&image) };
        table.upsert(0, &key.to_le_bytes(), row_version, values).unwrap();
    };
    (0..20_000).for_each(|key| write(key, 1 + key % 50));
    for round in 1..4 {
        let expected = rows_of(&table, &layout);
        let snapshot = TableSnapshot::begin(&table, &path).unwrap();
        let second = TableSnapshot::begin(&table, &folder.join("second.table"));
        assert_eq!(second.unwrap_err().code, headrace_types::ErrorCode::Unavailable);
        std::thread::scope(|scope| {
            // Replaced and deleted rows, freed and reused strings, new keys and doubled indexes.
            scope.spawn(|| (0..40_000).for_each(|key| write(key * round, 100 * round + key % 50)));
            snapshot.finish().unwrap();
        });
        let opened =
            RowTable::open_snapshot(&path, headrace_cpu::OpenMode::Private, &TableOptions::new(1 << 30)).unwrap();
        assert!(rows_of(&opened, &layout) == expected, "round {round}");
    }
    drop(TableSnapshot::begin(&table, &path).unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "one that is given up leaves nothing");
    std::fs::remove_dir_all(&folder).unwrap();
}
