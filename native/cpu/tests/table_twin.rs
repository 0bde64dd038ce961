//! The row table and its plain twin give the same answers to any history of writes.
#![allow(clippy::unwrap_used)]

use headrace_cpu::{
    EncodedKeys, GatherFeature, ImageLayout, KeyEncoder, KeysRef, PlainPlan, PlainTable, RowTable, RowValues,
    TableOptions, TableSchema, ViewSchema,
};
use headrace_types::{Column, ColumnData, DType, Field, RowVersion, ScalarType, Value};
use proptest::prelude::*;

const KEYS: usize = 6;

/// One write. Small ranges, so that ties and late rows are common.
#[derive(Debug, Clone)]
struct Write {
    view: usize,
    key: usize,
    version: RowVersion,
    /// `None` for a tombstone; otherwise picks the values.
    values: Option<u64>,
}

fn write(views: usize) -> impl Strategy<Value = Write> {
    let event_ts = prop_oneof![8 => -3i64..4, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    let values = prop_oneof![1 => Just(None), 4 => any::<u64>().prop_map(Some)];
    (0..views, 0..KEYS, event_ts, 0i64..3, 0u64..4, values).prop_map(
        |(view, key, event_ts, created_ts, sequence, values)| Write {
            view,
            key,
            version: RowVersion { event_ts, created_ts, sequence },
            values,
        },
    )
}

#[derive(Debug, Clone)]
struct Case {
    schema: TableSchema,
    ttl_us: Vec<Option<i64>>,
    writes: Vec<Write>,
    nows: Vec<i64>,
    /// Shuffles and thins the features that are read.
    pick: u64,
}

fn dtype() -> impl Strategy<Value = DType> {
    let scalar = proptest::sample::select(ScalarType::ALL.to_vec());
    prop_oneof![
        4 => Just(DType::FLOAT32),
        4 => scalar.clone().prop_map(DType::Scalar),
        1 => scalar.prop_map(DType::List),
    ]
}

fn case(dtype: impl Strategy<Value = DType> + Clone) -> impl Strategy<Value = Case> {
    let keys = prop_oneof![
        Just(vec![DType::INT64]),
        Just(vec![DType::STRING]),
        Just(vec![DType::STRING, DType::INT64, DType::BYTES]),
        Just(vec![]),
    ];
    let views = prop::collection::vec(prop::collection::vec(dtype, 1..8), 1..5);
    (keys, views, any::<u64>()).prop_flat_map(|(keys, views, pick)| {
        let count = views.len();
        let named = |(i, dtype): (usize, &DType)| Field::new(format!("f{i}"), *dtype);
        let schema = TableSchema {
            keys: keys.iter().enumerate().map(named).collect(),
            views: views
                .iter()
                .enumerate()
                .map(|(v, dtypes)| ViewSchema {
                    name: format!("v{v}"),
                    fields: dtypes.iter().enumerate().map(named).collect(),
                })
                .collect(),
        };
        let ttl = prop_oneof![Just(None), (0i64..5).prop_map(Some)];
        let now = prop_oneof![6 => -4i64..9, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
        (
            prop::collection::vec(ttl, count),
            prop::collection::vec(write(count), 0..80),
            prop::collection::vec(now, 1..4),
        )
            .prop_map(move |(ttl_us, writes, nows)| Case {
                schema: schema.clone(),
                ttl_us,
                writes,
                nows,
                pick,
            })
    })
}

/// A small generator of values: the same seed, the same value.
fn value(dtype: DType, seed: u64) -> Value {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
    if mixed.is_multiple_of(5) {
        return Value::Null;
    }
    match dtype {
        DType::List(element) => {
            let count = mixed % 4;
            Value::List((0..count).map(|i| value(DType::Scalar(element), mixed + i)).collect())
        }
        DType::Scalar(scalar) => match scalar {
            ScalarType::Bool => Value::Bool(mixed & 1 == 1),
            ScalarType::Int8 => Value::Int(i64::from(mixed as i8)),
            ScalarType::Int16 => Value::Int(i64::from(mixed as i16)),
            ScalarType::Int32 => Value::Int(i64::from(mixed as i32)),
            ScalarType::Int64 => Value::Int((mixed as i64).wrapping_mul(1 << 11 | 1)),
            ScalarType::UInt8 => Value::UInt(u64::from(mixed as u8)),
            ScalarType::UInt16 => Value::UInt(u64::from(mixed as u16)),
            ScalarType::UInt32 => Value::UInt(u64::from(mixed as u32)),
            ScalarType::UInt64 => Value::UInt(u64::MAX - mixed),
            ScalarType::Float32 => Value::Float32(if mixed.is_multiple_of(7) { f32::NAN } else { mixed as f32 / 3.0 }),
            ScalarType::Float64 => Value::Float64(if mixed.is_multiple_of(7) { f64::NAN } else { mixed as f64 / 3.0 }),
            ScalarType::String => Value::String("añb".repeat(mixed as usize % 9)),
            ScalarType::Bytes => Value::Bytes(vec![mixed as u8; mixed as usize % 40]),
            ScalarType::Timestamp => Value::Timestamp(mixed as i64),
        },
    }
}

/// Six keys, among them ones that concatenate alike, an empty one and a long one; the row after them is a null key, and the
/// last row is a key that nobody writes.
fn keys(fields: &[Field]) -> EncodedKeys {
    let texts = ["1", "12", "", "123456789", "a key longer than its slot in the row", "x", "nobody's"];
    let numbers = [0, (1 << 53) + 1, 1 << 53, -1, i64::MAX, i64::MIN, 77];
    let bytes = ["23", "3", "", "123", "9", "y", "z"];
    let column = |field: &Field| {
        let pick = |i: usize| match field.dtype {
            DType::INT64 => Value::Int(numbers[i]),
            DType::STRING => Value::String(texts[i].into()),
            _ => Value::Bytes(bytes[i].into()),
        };
        let rows = (0..KEYS).map(pick).chain([Value::Null, pick(KEYS)]);
        Column::from_values(field.dtype, rows).unwrap()
    };
    let columns: Vec<Column> = fields.iter().map(column).collect();
    let mut encoded = EncodedKeys::default();
    KeyEncoder::new(fields).keys(&columns.iter().collect::<Vec<_>>(), KEYS + 2, &mut encoded).unwrap();
    encoded
}

fn same_f64(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

fn same_f32(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

fn tables(case: &Case) -> (RowTable, PlainTable, EncodedKeys) {
    let table = RowTable::create(case.schema.clone(), &TableOptions::new(64 << 20)).unwrap();
    let mut plain = PlainTable::create(case.schema.clone());
    let encoded = keys(&case.schema.keys);
    for write in &case.writes {
        let Some(key) = encoded.key(write.key) else { continue };
        let mut image = Vec::new();
        let values = match write.values {
            None => RowValues::Tombstone,
            Some(seed) => {
                let fields = &case.schema.views[write.view].fields;
                let values: Vec<Value> = fields
                    .iter()
                    .enumerate()
                    .map(|(i, field)| value(field.dtype, seed.wrapping_add(i as u64)))
                    .collect();
                ImageLayout::new(fields).encode(&values, &mut image).unwrap();
                RowValues::Live(&image)
            }
        };
        let outcome = table.upsert(write.view, key, write.version, values).unwrap();
        assert_eq!(outcome, plain.upsert(write.view, key, write.version, values).unwrap(), "{write:?}");
    }
    assert_eq!(table.len(), plain.len());
    (table, plain, encoded)
}

/// Some of the table's features, in some order.
fn features(case: &Case) -> Vec<GatherFeature> {
    let all = case.schema.views.iter().enumerate().flat_map(|(view, schema)| {
        (0..schema.fields.len()).map(move |field| GatherFeature { view, field, position: 0 })
    });
    let mut picked: Vec<(u64, GatherFeature)> = all
        .enumerate()
        .map(|(i, feature)| (case.pick.rotate_left(i as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15), feature))
        .filter(|(order, _)| !order.is_multiple_of(4))
        .collect();
    if case.pick.is_multiple_of(2) {
        picked.sort_by_key(|(order, _)| *order);
    }
    picked.into_iter().enumerate().map(|(position, (_, feature))| GatherFeature { position, ..feature }).collect()
}

fn compare_columns(case: &Case) {
    let (table, plain, encoded) = tables(case);
    let features = features(case);
    let width = features.len();
    let plain_plan = PlainPlan { features: features.clone(), ttl_us: case.ttl_us.clone(), width };
    let plan = table.gather_plan(&features, &case.ttl_us, width).unwrap();
    let rows = KEYS + 2;
    let mut columns = vec![Column::new(ColumnData::Bool(Vec::new())); width];
    for &now_us in &case.nows {
        let (mut status, mut plain_status) = (vec![99; rows * width], vec![98; rows * width]);
        table.gather_columns(&plan, encoded.as_ref(), now_us, &mut columns, &mut status).unwrap();
        let expected = plain.gather_columns(&plain_plan, encoded.as_ref(), now_us, &mut plain_status).unwrap();
        assert_eq!(status, plain_status);
        for (column, expected) in columns.iter().zip(&expected) {
            for row in 0..rows {
                assert_eq!(format!("{:?}", column.value(row)), format!("{:?}", expected.value(row)));
            }
        }
    }
}

fn compare_floats(case: &Case) {
    let (table, plain, encoded) = tables(case);
    let features = features(case);
    let width = features.len();
    let plain_plan = PlainPlan { features: features.clone(), ttl_us: case.ttl_us.clone(), width };
    let plan = table.gather_plan(&features, &case.ttl_us, width).unwrap();
    let rows = KEYS + 2;
    for &now_us in &case.nows {
        let (mut status, mut plain_status) = (vec![99; rows * width], vec![98; rows * width]);
        let (mut f32s, mut plain_f32s) = (vec![-1f32; rows * width], vec![-2f32; rows * width]);
        table.gather_f32(&plan, encoded.as_ref(), now_us, &mut f32s, Some(&mut status)).unwrap();
        plain.gather_f32(&plain_plan, encoded.as_ref(), now_us, &mut plain_f32s, &mut plain_status);
        assert_eq!(status, plain_status);
        assert!(same_f32(&f32s, &plain_f32s), "{f32s:?} {plain_f32s:?}");

        let (mut f64s, mut plain_f64s) = (vec![-1f64; rows * width], vec![-2f64; rows * width]);
        table.gather_f64(&plan, encoded.as_ref(), now_us, &mut f64s, None).unwrap();
        plain.gather_f64(&plain_plan, encoded.as_ref(), now_us, &mut plain_f64s, &mut plain_status);
        assert!(same_f64(&f64s, &plain_f64s), "{f64s:?} {plain_f64s:?}");
    }
}

fn numeric_dtype() -> impl Strategy<Value = DType> + Clone {
    let numeric: Vec<DType> =
        ScalarType::ALL.into_iter().filter(|scalar| scalar.is_numeric()).map(DType::Scalar).collect();
    let numeric = proptest::sample::select(numeric);
    prop_oneof![Just(DType::FLOAT32), numeric].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn columns_of_all_types_agree(case in case(dtype().boxed())) {
        compare_columns(&case);
    }

    #[test]
    fn floats_of_all_numeric_types_agree(case in case(numeric_dtype())) {
        compare_floats(&case);
    }

    #[test]
    fn floats_of_one_type_agree(case in case(Just(DType::FLOAT32))) {
        compare_floats(&case);
    }
}

/// Many keys, so that indexes double and lines overflow.
#[test]
fn a_hundred_thousand_keys_are_found_and_no_others() {
    let schema = TableSchema {
        keys: vec![Field::new("id", DType::INT64)],
        views: vec![ViewSchema { name: "v".into(), fields: vec![Field::new("f", DType::INT64)] }],
    };
    let table = RowTable::create(schema.clone(), &TableOptions::new(1 << 30)).unwrap();
    let layout = ImageLayout::new(&schema.views[0].fields);
    let count = 100_000i64;
    let mut writer = table.writer().unwrap();
    for key in 0..count {
        let mut image = Vec::new();
        layout.encode(&[Value::Int(key * 3)], &mut image).unwrap();
        let version = RowVersion { event_ts: 0, created_ts: 0, sequence: 0 };
        writer.upsert(0, &(key * 2).to_le_bytes(), version, RowValues::Live(&image)).unwrap();
    }
    drop(writer);
    assert_eq!(table.len(), count as usize);
    let plan = table.gather_plan(&[GatherFeature { view: 0, field: 0, position: 0 }], &[None], 1).unwrap();
    let keys: Vec<i64> = (0..2 * count).collect();
    let mut out = vec![0f64; keys.len()];
    table.gather_f64(&plan, KeysRef::Int64(&keys), 0, &mut out, None).unwrap();
    for (&key, &found) in keys.iter().zip(&out) {
        if key % 2 == 0 {
            assert_eq!(found, (key / 2 * 3) as f64);
        } else {
            assert!(found.is_nan());
        }
    }
}
