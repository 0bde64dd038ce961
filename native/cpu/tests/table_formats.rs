//! Snapshots of older formats: every row is there, read in place or copied into a table of the present format.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use headrace_cpu::{
    EncodedKeys, GatherFeature, ImageLayout, KeyEncoder, OpenMode, RowTable, RowValues, TableOptions, TableSchema,
    ViewSchema,
};
use headrace_types::{Column, ColumnData, DType, Field, RowVersion, ScalarType, Value};

/// Written by headrace 0.1.0 before format 2: the rows of [`rows`].
const FORMAT_1: &str = "tests/fixtures/format-1.table";
const KEYS: usize = 9;

/// A view of more than 64 fields, one of nothing, one of strings and lists, and so many small ones that there are more than 64.
fn schema() -> TableSchema {
    let fields = |names: &str, dtypes: &[DType]| -> Vec<Field> {
        dtypes.iter().enumerate().map(|(i, &dtype)| Field::new(format!("{names}{i}"), dtype)).collect()
    };
    let dtypes: Vec<DType> = (0..70).map(|i| [DType::FLOAT32, DType::INT64, DType::BOOL][i % 3]).collect();
    let mut views = vec![
        ViewSchema { name: "wide".into(), fields: fields("w", &dtypes) },
        ViewSchema { name: "empty".into(), fields: Vec::new() },
        ViewSchema {
            name: "texts".into(),
            fields: fields("t", &[DType::STRING, DType::List(ScalarType::Float64), DType::FLOAT64]),
        },
    ];
    views.extend(
        (0..63).map(|v| ViewSchema { name: format!("v{v}"), fields: fields("f", &[DType::Scalar(ScalarType::Int8)]) }),
    );
    TableSchema { keys: vec![Field::new("id", DType::STRING)], views }
}

fn value(dtype: DType, n: usize) -> Value {
    match dtype {
        _ if n.is_multiple_of(5) => Value::Null,
        DType::FLOAT32 => Value::Float32(n as f32 / 3.0),
        DType::FLOAT64 => Value::Float64(n as f64 / 3.0),
        DType::BOOL => Value::Bool(n.is_multiple_of(2)),
        DType::STRING => Value::String("long enough for a block ".repeat(n % 4)),
        DType::List(_) => Value::List(vec![Value::Float64(n as f64); n % 5]),
        _ => Value::Int((n % 100) as i64),
    }
}

/// Key, view, version and values, none for a tombstone.
type Stored = (Vec<u8>, usize, RowVersion, Option<Vec<Value>>);

fn text(i: usize) -> String {
    if i.is_multiple_of(3) { format!("a rather long key, number {i}") } else { format!("k{i}") }
}

/// Every row of the file.
fn rows() -> Vec<Stored> {
    let schema = schema();
    let mut rows = Vec::new();
    for i in 0..KEYS {
        let text = text(i);
        let key = [(text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
        for (v, view) in schema.views.iter().enumerate().filter(|(v, _)| *v != 1 && (v + i) % 4 != 0) {
            let version =
                RowVersion { event_ts: 1000 * i as i64 - 2, created_ts: v as i64 + 7, sequence: (99 * i + v) as u64 };
            let values = view.fields.iter().enumerate().map(|(f, field)| value(field.dtype, 1 + f + v + i));
            rows.push((key.clone(), v, version, ((v + i) % 7 != 0).then(|| values.collect())));
        }
    }
    rows
}

fn content(table: &RowTable) -> Vec<Stored> {
    let mut rows = Vec::new();
    table
        .scan(|key, view, version, values| {
            let values = match values {
                RowValues::Live(image) => Some(ImageLayout::new(&schema().views[view].fields).decode(image)?),
                RowValues::Tombstone => None,
            };
            rows.push((key.to_vec(), view, version, values));
            Ok(())
        })
        .unwrap();
    rows
}

fn sorted(mut rows: Vec<Stored>) -> Vec<Stored> {
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    rows
}

fn options() -> TableOptions {
    TableOptions { huge_pages: false, ..TableOptions::new(64 << 20) }
}

fn open(path: &Path, mode: OpenMode) -> RowTable {
    RowTable::open_snapshot(path, mode, &options()).unwrap()
}

/// The format that a file says it has.
fn format_of(path: &Path) -> u8 {
    std::fs::read(path).unwrap()[8]
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("headrace-{name}-{}.table", std::process::id()))
}

#[test]
fn every_row_of_format_1_is_read() {
    assert_eq!(format_of(FORMAT_1.as_ref()), 1);
    for mode in [OpenMode::Private, OpenMode::ReadOnlyShared] {
        let table = open(FORMAT_1.as_ref(), mode);
        assert_eq!(*table.schema(), schema());
        assert_eq!(table.is_read_only(), mode == OpenMode::ReadOnlyShared);
        assert!(sorted(content(&table)) == sorted(rows()), "{mode:?}");
    }
}

#[test]
fn a_table_of_format_1_is_written_on_in_the_present_one() {
    let path = temporary("from-format-1");
    let table = open(FORMAT_1.as_ref(), OpenMode::Private);
    table.write_snapshot(&path).unwrap();
    assert_eq!(format_of(&path), 2);
    assert!(sorted(content(&open(&path, OpenMode::Private))) == sorted(rows()));
    // A row replaces only a smaller version, so that the log may be applied again from wherever it begins.
    let (key, view, version, _) = rows().swap_remove(0);
    let older = RowVersion { sequence: 0, created_ts: 0, ..version };
    table.upsert(view, &key, older, RowValues::Tombstone).unwrap();
    assert!(sorted(content(&table)) == sorted(rows()));
    open(FORMAT_1.as_ref(), OpenMode::ReadOnlyShared).write_snapshot(&path).unwrap();
    assert_eq!(format_of(&path), 1, "rows that are not copied keep their format");
    assert!(sorted(content(&open(&path, OpenMode::ReadOnlyShared))) == sorted(rows()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn lookups_answer_alike_in_both_formats() {
    let [old, new] = [OpenMode::ReadOnlyShared, OpenMode::Private].map(|mode| open(FORMAT_1.as_ref(), mode));
    let places = schema().views.into_iter().enumerate();
    let features: Vec<GatherFeature> = places
        .flat_map(|(view, schema)| (0..schema.fields.len()).map(move |field| (view, field)))
        .enumerate()
        .map(|(position, (view, field))| GatherFeature { view, field, position })
        .collect();
    let numbers: Vec<GatherFeature> = features.iter().filter(|feature| feature.view != 2).copied().collect();
    let (views, width) = (schema().views.len(), features.len());
    let ttls: Vec<Option<i64>> = (0..views).map(|view| view.is_multiple_of(3).then_some(5000)).collect();
    let mut keys = EncodedKeys::default();
    let column = Column::new(ColumnData::String((0..KEYS + 3).map(text).collect()));
    KeyEncoder::new(&schema().keys).keys(&[&column], KEYS + 3, &mut keys).unwrap();
    let answers = [old, new].map(|table| {
        let plan = table.gather_plan(&numbers, &ttls, width).unwrap();
        let mut floats = vec![0f32; (KEYS + 3) * width];
        let mut status = [vec![9u8; floats.len()], vec![9u8; floats.len()]];
        table.gather_f32(&plan, keys.as_ref(), 7000, &mut floats, Some(&mut status[0])).unwrap();
        let plan = table.gather_plan(&features, &ttls, width).unwrap();
        let mut columns = vec![Column::new(ColumnData::Bool(Vec::new())); width];
        table.gather_columns(&plan, keys.as_ref(), 7000, &mut columns, &mut status[1]).unwrap();
        (floats.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), status, format!("{columns:?}"))
    });
    assert!(answers[0] == answers[1]);
}

/// Null bits of 50 fields begin anywhere in a word and end in the next one.
#[test]
fn a_view_keeps_its_null_bits_when_its_neighbours_change() {
    let fields: Vec<Field> = (0..50).map(|f| Field::new(format!("f{f}"), DType::INT64)).collect();
    let views: Vec<ViewSchema> = (0..5).map(|v| ViewSchema { name: format!("v{v}"), fields: fields.clone() }).collect();
    let schema = TableSchema { keys: vec![Field::new("id", DType::INT64)], views };
    let layout = ImageLayout::new(&fields);
    let table = RowTable::create(schema, &options()).unwrap();
    let mut expected = vec![None; 5];
    let mut random = 1u64;
    for write in 0..500 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (view, nulls) = (write * 3 % 5, [random >> 9, 0u64, u64::MAX][write % 3]);
        let value = |field: u32| if nulls >> field & 1u64 == 1 { Value::Null } else { Value::Int(write as i64) };
        let values: Vec<Value> = (0..50).map(value).collect();
        let mut image = Vec::new();
        layout.encode(&values, &mut image).unwrap();
        // Bits beyond the fields, as a log that is not ours may have them, belong to nobody.
        image[7] |= 0xfc;
        let version = RowVersion { event_ts: write as i64, created_ts: 0, sequence: 0 };
        table.upsert(view, &7i64.to_le_bytes(), version, RowValues::Live(&image)).unwrap();
        expected[view] = Some(values);
        let mut found = vec![None; 5];
        table
            .scan(|_, view, _, values| {
                let RowValues::Live(image) = values else { panic!("no row was deleted") };
                assert_eq!(image[7] & 0xfc, 0);
                found[view] = Some(layout.decode(image)?);
                Ok(())
            })
            .unwrap();
        assert_eq!(found, expected);
    }
}
