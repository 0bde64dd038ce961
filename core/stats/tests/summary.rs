//! Summaries of columns of every type: exact where they can be, the same in any division, and bytes that come back.
#![allow(clippy::unwrap_used)] // in a test it is the failure

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int64Array, NullArray,
    RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
};
use headrace_stats::{COUNTERS_MAX, ColumnSummary, Profile};
use headrace_types::{DType, ErrorCode, Value};
use proptest::prelude::*;

fn profile_of(columns: Vec<(&str, ArrayRef)>) -> Profile {
    let mut profile = Profile::new();
    profile
        .add_batch(&RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap())
        .unwrap();
    profile
}

fn floats(values: &[Option<f64>]) -> Profile {
    profile_of(vec![("x", Arc::new(Float64Array::from(values.to_vec())))])
}

fn column<'a>(profile: &'a Profile, name: &str) -> &'a ColumnSummary {
    profile.column(name).unwrap()
}

#[test]
fn every_type_is_summarised() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), Some("b")]);
    lists.append_null();
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
    let profile = profile_of(vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("small", Arc::new(UInt8Array::from(vec![Some(200), Some(3)]))),
        ("text", Arc::new(StringArray::from(vec![Some("äb"), Some("")]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\xff"[..]), None]))),
        ("single", Arc::new(Float32Array::from(vec![Some(1.5), Some(f32::NAN)]))),
        ("time", Arc::new(TimestampMillisecondArray::from(vec![Some(5), None]))),
        ("list", Arc::new(lists.finish())),
        ("category", Arc::new(dictionary)),
        ("nothing", Arc::new(NullArray::new(2))),
    ]);
    let json = profile.to_json();
    let of = |name: &str, key: &str| json["columns"][name][key].clone();
    assert_eq!(json["rows"], 2);
    assert_eq!((of("bool", "nulls"), of("bool", "max"), of("bool", "distinct")), (1.into(), 1.0.into(), 1.into()));
    assert_eq!((of("small", "min"), of("small", "max")), (3.0.into(), 200.0.into()));
    assert_eq!(
        (of("text", "measures"), of("text", "max"), of("text", "mean")),
        ("bytes".into(), 3.0.into(), 1.5.into())
    );
    assert_eq!(of("bytes", "top")[0]["value"], "ff");
    assert_eq!((of("single", "nans"), of("single", "mean"), of("single", "std")), (1.into(), 1.5.into(), ().into()));
    assert_eq!((of("time", "dtype"), of("time", "min")), ("timestamp".into(), 5000.0.into()));
    assert_eq!(
        (of("list", "dtype"), of("list", "max"), of("list", "distinct")),
        ("list<string>".into(), 2.0.into(), ().into())
    );
    assert_eq!((of("category", "dtype"), of("category", "top")[0]["value"].clone()), ("string".into(), "x".into()));
    assert_eq!(
        (of("nothing", "dtype"), of("nothing", "nulls"), of("nothing", "min")),
        (().into(), 2.into(), ().into())
    );
    assert_eq!(Profile::from_bytes(&profile.to_bytes()).unwrap().to_bytes(), profile.to_bytes());
}

#[test]
fn many_rows_take_the_same_way_as_few() {
    let values: Vec<Option<f64>> = (0..200_000i64)
        .map(|row| match row % 97 {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(f64::INFINITY),
            3 => Some(f64::NEG_INFINITY),
            4 => Some(-0.0),
            5 => Some(1e-320),
            6 => Some(-1e300 * row as f64),
            7 => Some(1e-200),
            _ => Some((row * 7919 % 10_007) as f64 - 5_000.0),
        })
        .collect();
    let whole = floats(&values);
    let mut parts = Profile::new();
    for part in values.chunks(200) {
        parts.merge(&floats(part)).unwrap();
    }
    let (whole, parts) = (column(&whole, "x"), column(&parts, "x"));
    assert_eq!(whole.quantiles(), parts.quantiles());
    assert_eq!(whole.distinct(), parts.distinct());
    assert_eq!((whole.rows(), whole.nulls(), whole.nans()), (parts.rows(), parts.nulls(), parts.nans()));
    assert_eq!(whole.moments().count, parts.moments().count);
}

/// Of narrow floats the bucket is read from their own bits, but for the subnormal ones.
#[test]
fn a_float32_counts_as_its_float64() {
    for with_subnormals in [false, true] {
        let value = |row: i64| match row % 89 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            2 => -0.0,
            3 => f32::MAX,
            4 => -f32::MIN_POSITIVE,
            5 if with_subnormals => 1e-41,
            _ => (row * 7919 % 10_007) as f32 / 3.0 - 1_000.0,
        };
        let narrow: Vec<f32> = (0..100_000).map(value).collect();
        let wide: Vec<f64> = narrow.iter().map(|value| f64::from(*value)).collect();
        let narrow = profile_of(vec![("x", Arc::new(Float32Array::from(narrow)))]);
        let wide = profile_of(vec![("x", Arc::new(Float64Array::from(wide)))]);
        let (narrow, wide) = (column(&narrow, "x"), column(&wide, "x"));
        assert_eq!(narrow.quantiles().to_bytes(), wide.quantiles().to_bytes());
        assert_eq!((narrow.distinct(), narrow.nans()), (wide.distinct(), wide.nans()));
        assert_eq!(narrow.moments(), wide.moments());
    }
}

#[test]
fn frequent_values_are_found_among_many() {
    let rows = 100_000u64;
    let values: Vec<i64> = (0..rows as i64).map(|row| if row % 10 == 0 { 7 } else { row }).collect();
    let mut profile = Profile::new();
    for part in values.chunks(30_000) {
        profile.merge(&profile_of(vec![("x", Arc::new(Int64Array::from(part.to_vec())))])).unwrap();
    }
    let top = column(&profile, "x").top();
    let values = top.values().unwrap();
    let (value, count) = values[0];
    assert_eq!(value, &Value::Int(7));
    assert!(values.len() <= COUNTERS_MAX && top.error_max() <= rows / (COUNTERS_MAX as u64 + 1));
    assert!(count <= rows / 10 && count + top.error_max() >= rows / 10);
}

#[test]
fn floats_of_many_values_have_no_frequent_ones() {
    let values: Vec<Option<f64>> = (0..COUNTERS_MAX).map(|row| Some(row as f64)).collect();
    let mut profile = floats(&values);
    assert_eq!(column(&profile, "x").top().values().unwrap().len(), COUNTERS_MAX);
    profile.merge(&floats(&[Some(-1.0)])).unwrap();
    assert_eq!(column(&profile, "x").top().values(), None);
}

#[test]
fn long_texts_are_shown_by_their_beginning() {
    let text = "ä".repeat(500);
    let profile = profile_of(vec![("x", Arc::new(StringArray::from(vec![text.as_str()])))]);
    assert_eq!(profile.to_json()["columns"]["x"]["top"][0]["value"], "ä".repeat(64));
    assert_eq!(Profile::from_bytes(&profile.to_bytes()).unwrap(), profile);
}

#[test]
fn a_changed_type_starts_anew_and_does_not_merge() {
    let mut profile = floats(&[Some(1.0)]);
    let integers = profile_of(vec![("x", Arc::new(Int64Array::from(vec![1])))]);
    assert_eq!(profile.merge(&integers).unwrap_err().code, ErrorCode::TypeMismatch);
    let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    profile.add_batch(&batch).unwrap();
    assert_eq!((column(&profile, "x").dtype(), column(&profile, "x").rows()), (Some(DType::INT64), 2));
}

proptest! {
    #[test]
    fn parts_merge_to_the_whole(values in prop::collection::vec(prop::option::of(-50.0..50.0), 0..300), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(values.len() + 1);
        let whole = floats(&values);
        let mut merged = floats(&values[cut..]);
        merged.merge(&floats(&values[..cut])).unwrap();
        let (whole, merged) = (column(&whole, "x"), column(&merged, "x"));
        prop_assert_eq!(whole.quantiles().to_bytes(), merged.quantiles().to_bytes());
        prop_assert_eq!(whole.distinct().to_bytes(), merged.distinct().to_bytes());
        prop_assert_eq!(whole.top(), merged.top());
        let close = |a: f64, b: f64, bound: f64| (a - b).abs() <= bound * 50.0;
        prop_assert!(close(whole.moments().mean, merged.moments().mean, 1e-12));
        prop_assert!((whole.moments().m2 - merged.moments().m2).abs() <= 1e-9 * whole.moments().m2.max(1.0));
    }

    #[test]
    fn damaged_files_are_refused_or_work(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = profile_of(vec![
            ("x", Arc::new(Float64Array::from(vec![1.0, -2.0, f64::NAN]))),
            ("t", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
        ]).to_bytes();
        prop_assert!(Profile::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut profile) = Profile::from_bytes(&bytes) {
            profile.to_json();
            profile.merge(&profile.clone()).unwrap();
            profile.to_json();
        }
    }
}
