//! Snapshots: nothing is lost, and no file, however made, does harm.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use headrace_cpu::{
    ImageLayout, MemoryBudget, OpenMode, RowTable, RowValues, TableOptions, TableSchema, UpsertOutcome, ViewSchema,
};
use headrace_types::{DType, ErrorCode, Field, RowVersion, ScalarType, Value};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headrace-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options() -> TableOptions {
    TableOptions::new(64 << 20)
}

fn schema() -> TableSchema {
    TableSchema {
        keys: vec![Field::new("id", DType::STRING)],
        views: vec![
            ViewSchema {
                name: "a".into(),
                fields: vec![Field::new("x", DType::FLOAT32), Field::new("s", DType::STRING)],
            },
            ViewSchema { name: "b".into(), fields: vec![Field::new("l", DType::List(ScalarType::Int64))] },
        ],
    }
}

fn key(i: usize) -> Vec<u8> {
    let text = if i.is_multiple_of(3) { format!("a rather long key, number {i}") } else { format!("k{i}") };
    let mut key = (text.len() as u32).to_le_bytes().to_vec();
    key.extend_from_slice(text.as_bytes());
    key
}

fn version(event_ts: i64) -> RowVersion {
    RowVersion { event_ts, created_ts: 5, sequence: 9 }
}

fn fill(table: &RowTable, rows: usize, event_ts: i64) {
    let schema = schema();
    for i in 0..rows {
        let text = "long enough for a block ".repeat(i % 4);
        let a = [Value::Float32(i as f32), if i.is_multiple_of(7) { Value::Null } else { Value::String(text) }];
        let b = [Value::List(vec![Value::Int(i as i64), Value::Null])];
        for (view, values) in [(0, &a[..]), (1, &b[..])] {
            let mut image = Vec::new();
            ImageLayout::new(&schema.views[view].fields).encode(values, &mut image).unwrap();
            let values = if i % 5 == 4 && view == 1 { RowValues::Tombstone } else { RowValues::Live(&image) };
            table.upsert(view, &key(i), version(event_ts), values).unwrap();
        }
    }
}

/// Key, view, version and values.
type Stored = (Vec<u8>, usize, RowVersion, Option<Vec<Value>>);

/// Everything that is stored, in order.
fn content(table: &RowTable) -> Vec<Stored> {
    let schema = table.schema().clone();
    let mut rows = Vec::new();
    table
        .scan(|key, view, version, values| {
            let values = match values {
                RowValues::Live(image) => Some(ImageLayout::new(&schema.views[view].fields).decode(image)?),
                RowValues::Tombstone => None,
            };
            rows.push((key.to_vec(), view, version, values));
            Ok(())
        })
        .unwrap();
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    rows
}

fn open(path: &Path) -> Vec<headrace_types::Result<RowTable>> {
    [OpenMode::Private, OpenMode::ReadOnlyShared].map(|mode| RowTable::open_snapshot(path, mode, &options())).into()
}

#[test]
fn a_snapshot_holds_every_row_and_can_be_written_on() {
    let folder = Folder::new("round-trip");
    let path = folder.file("t.table");
    let table = RowTable::create(schema(), &options()).unwrap();
    fill(&table, 1000, 1);
    fill(&table, 300, 2);
    table.write_snapshot(&path).unwrap();
    for opened in open(&path) {
        let opened = opened.unwrap();
        assert_eq!(content(&opened), content(&table));
        assert_eq!(opened.schema(), table.schema());
    }
    let private = RowTable::open_snapshot(&path, OpenMode::Private, &options()).unwrap();
    fill(&private, 2000, 3);
    fill(&table, 2000, 3);
    assert_eq!(content(&private), content(&table));
    private.write_snapshot(&path).unwrap();
    assert_eq!(
        content(&RowTable::open_snapshot(&path, OpenMode::ReadOnlyShared, &options()).unwrap()),
        content(&table)
    );
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_read_only_table_refuses_writes() {
    let folder = Folder::new("read-only");
    let path = folder.file("t.table");
    RowTable::create(schema(), &options()).unwrap().write_snapshot(&path).unwrap();
    let table = RowTable::open_snapshot(&path, OpenMode::ReadOnlyShared, &options()).unwrap();
    let error = table.upsert(0, &key(1), version(1), RowValues::Tombstone).unwrap_err();
    assert_eq!(error.code, ErrorCode::ReadOnly);
    assert!(table.is_empty());
}

#[test]
fn a_cut_file_is_refused() {
    let folder = Folder::new("cut");
    let path = folder.file("t.table");
    let table = RowTable::create(schema(), &options()).unwrap();
    fill(&table, 50, 1);
    table.write_snapshot(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for len in (0..bytes.len()).step_by(509).chain([bytes.len() - 1, bytes.len() + 64]) {
        let mut cut = bytes.clone();
        cut.resize(len, 0);
        std::fs::write(&path, &cut).unwrap();
        for opened in open(&path) {
            assert_eq!(opened.unwrap_err().code, ErrorCode::CorruptStore, "cut at {len}");
        }
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let folder = Folder::new("flip");
    let path = folder.file("t.table");
    let table = RowTable::create(schema(), &options()).unwrap();
    fill(&table, 50, 1);
    table.write_snapshot(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..600).chain((600..bytes.len()).step_by(97)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, &changed).unwrap();
        for opened in open(&path) {
            let code = opened.unwrap_err().code;
            let is_version = (8..16).contains(&at);
            assert_eq!(code, if is_version { ErrorCode::NewerFormat } else { ErrorCode::CorruptStore }, "byte {at}");
        }
    }
}

#[test]
fn a_full_store_says_so_and_can_be_read() {
    let budget = MemoryBudget::new(1 << 20);
    let options = TableOptions { budget: budget.clone(), huge_pages: false };
    let table = RowTable::create(schema(), &options).unwrap();
    let mut image = Vec::new();
    let values = [Value::Float32(1.0), Value::String("text of more than twelve bytes".into())];
    ImageLayout::new(&schema().views[0].fields).encode(&values, &mut image).unwrap();
    let mut stored = 0;
    let error = loop {
        match table.upsert(0, &key(stored), version(1), RowValues::Live(&image)) {
            Ok(outcome) => assert_eq!(outcome, UpsertOutcome::Inserted),
            Err(error) => break error,
        }
        stored += 1;
    };
    assert_eq!(error.code, ErrorCode::StoreFull);
    assert!(stored > 1000 && table.len() == stored);
    assert_eq!(content(&table).len(), stored);
    assert!(budget.used() <= budget.bytes_max());
    drop(table);
    assert_eq!(budget.used(), 0);
}
