//! What holds for the sketches whatever they are given: accuracy, merge = whole, any order, bytes that come back, and bytes that do not.

#![allow(clippy::unwrap_used)] // in a test it is the failure

use headrace_stats::{DistinctSketch, EXACT_HASHES_MAX, QuantileSketch, RELATIVE_ACCURACY};
use headrace_types::ErrorCode;
use proptest::prelude::*;

fn quantiles_of(values: &[f64]) -> QuantileSketch {
    let mut sketch = QuantileSketch::new();
    values.iter().for_each(|value| sketch.add(*value));
    sketch
}

fn distinct_of(values: &[i64]) -> DistinctSketch {
    let mut sketch = DistinctSketch::new();
    values.iter().for_each(|value| sketch.add_int(*value));
    sketch
}

/// Integers from 0 to `count`, far apart.
fn spread(count: i64) -> Vec<i64> {
    (0..count).map(|value| value.wrapping_mul(1_000_003)).collect()
}

fn floats() -> impl Strategy<Value = Vec<f64>> {
    let awkward = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(-5e-324),
    ];
    prop::collection::vec(prop_oneof![4 => -1e6..1e6, 4 => 1e-3..1e3, 1 => any::<f64>(), 1 => awkward], 0..200)
}

proptest! {
    #[test]
    fn a_quantile_is_within_its_accuracy(values in prop::collection::vec(-1e9..1e9, 1..300), q in 0.0..=1.0) {
        let sketch = quantiles_of(&values);
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let exact = sorted[f64::floor(q * (values.len() - 1) as f64) as usize];
        let found = sketch.quantile(q).unwrap();
        prop_assert!((found - exact).abs() <= exact.abs() * RELATIVE_ACCURACY, "{} for {}", found, exact);
    }

    #[test]
    fn parts_of_any_order_merge_to_the_whole(values in floats(), cut in any::<prop::sample::Index>()) {
        let whole = quantiles_of(&values).to_bytes();
        let cut = cut.index(values.len() + 1);
        let (left, right) = (quantiles_of(&values[..cut]), quantiles_of(&values[cut..]));
        for (first, second) in [(&left, &right), (&right, &left)] {
            let mut merged = first.clone();
            merged.merge(second);
            prop_assert_eq!(merged.to_bytes(), whole.clone());
        }
    }

    #[test]
    fn quantile_bytes_come_back(values in floats()) {
        let sketch = quantiles_of(&values);
        prop_assert_eq!(QuantileSketch::from_bytes(&sketch.to_bytes()).unwrap(), sketch);
    }

    #[test]
    fn quantiles_rise(values in floats(), mut qs in prop::collection::vec(0.0..=1.0, 2..6)) {
        let sketch = quantiles_of(&values);
        prop_assert_eq!(sketch.count(), values.iter().filter(|value| !value.is_nan()).count() as u64);
        qs.sort_by(f64::total_cmp);
        let found: Vec<_> = qs.iter().filter_map(|q| sketch.quantile(*q)).collect();
        prop_assert!(found.is_sorted());
    }

    #[test]
    fn damaged_quantile_bytes_are_refused_or_work(mut bytes in prop::collection::vec(any::<u8>(), 0..80), version in prop::bool::weighted(0.9)) {
        if version && let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(mut sketch) = QuantileSketch::from_bytes(&bytes) {
            sketch.merge(&sketch.clone());
            sketch.add(1.0);
            sketch.quantile(0.5).unwrap();
            sketch.histogram(-1e308, 1e308, 7);
            QuantileSketch::from_bytes(&sketch.to_bytes()).unwrap();
        }
    }

    #[test]
    fn cut_or_changed_bytes_never_panic(values in floats(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = quantiles_of(&values).to_bytes();
        let at = at.index(bytes.len());
        prop_assert!(QuantileSketch::from_bytes(&bytes[..at]).is_err());
        bytes[at] = byte;
        if let Ok(sketch) = QuantileSketch::from_bytes(&bytes) {
            sketch.quantile(0.3);
        }
    }

    #[test]
    fn few_distinct_values_are_counted_exactly(values in prop::collection::vec(-300i64..300, 0..400)) {
        let exact = values.iter().collect::<std::collections::BTreeSet<_>>().len();
        let sketch = distinct_of(&values);
        prop_assert!(exact <= EXACT_HASHES_MAX || !sketch.is_exact());
        prop_assert!(!sketch.is_exact() || sketch.estimate() == exact as f64);
    }

    #[test]
    fn distinct_parts_merge_to_the_whole(count in 0i64..2_000, cut in any::<prop::sample::Index>(), overlap in 0usize..50) {
        let values = spread(count);
        let cut = cut.index(values.len() + 1);
        let (left, right) = (distinct_of(&values[..(cut + overlap).min(values.len())]), distinct_of(&values[cut..]));
        let whole = distinct_of(&values);
        for (first, second) in [(&left, &right), (&right, &left)] {
            let mut merged = first.clone();
            merged.merge(second);
            prop_assert_eq!(&merged, &whole);
        }
        prop_assert_eq!(DistinctSketch::from_bytes(&whole.to_bytes()).unwrap(), whole);
    }

    #[test]
    fn damaged_distinct_bytes_are_refused_or_work(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(mut sketch) = DistinctSketch::from_bytes(&bytes) {
            sketch.add_int(1);
            prop_assert!(sketch.estimate() >= 1.0);
        }
    }
}

/// Four standard errors; the hash is fixed, so the outcome is too.
#[test]
fn distinct_counts_are_within_their_accuracy() {
    for count in [513, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000] {
        let estimate = distinct_of(&spread(count)).estimate();
        let error = (estimate / count as f64 - 1.0).abs();
        assert!(error < 4.0 * 1.04 / 64.0, "{count}: {estimate}");
    }
}

#[test]
fn a_sketch_of_nothing_has_no_quantile() {
    let sketch = quantiles_of(&[f64::NAN]);
    assert!(sketch.is_empty());
    assert_eq!((sketch.count(), sketch.quantile(0.5), sketch.min()), (0, None, None));
    assert_eq!(DistinctSketch::new().estimate(), 0.0);
}

#[test]
fn a_quantile_outside_0_and_1_is_none() {
    let sketch = quantiles_of(&[1.0]);
    assert_eq!(sketch.quantile(1.5), None);
    assert_eq!(sketch.quantile(f64::NAN), None);
    assert_eq!(sketch.quantile(0.5), Some(1.0));
}

#[test]
fn memory_is_bounded_and_small_values_collapse() {
    let values: Vec<f64> =
        (-1022..1024).flat_map(|e| (0..64).map(move |m| (1.0 + f64::from(m) / 64.0) * 2f64.powi(e))).collect();
    let sketch = quantiles_of(&values);
    assert_eq!(sketch.count(), values.len() as u64);
    assert!(sketch.to_bytes().len() < 4096 * 3);
    assert_eq!(sketch.quantile(1.0), Some(f64::MAX.min(values[values.len() - 1])));
    let mut backwards = values.clone();
    backwards.reverse();
    assert_eq!(quantiles_of(&backwards), sketch);
}

#[test]
fn infinities_keep_their_place() {
    let sketch = quantiles_of(&[f64::INFINITY, 1.0, f64::NEG_INFINITY, 2.0, 3.0]);
    assert_eq!(sketch.quantile(0.0), Some(f64::NEG_INFINITY));
    assert_eq!(sketch.quantile(1.0), Some(f64::INFINITY));
    assert!((sketch.quantile(0.5).unwrap() - 2.0).abs() <= 2.0 / 128.0);
    assert_eq!(sketch.histogram(1.0, 3.0, 2), [1, 2]);
    let (low, high) = sketch.finite_range().unwrap();
    assert!((low - 1.0).abs() <= 1.0 / 128.0 && (high - 3.0).abs() <= 3.0 / 128.0);
    assert_eq!(quantiles_of(&[f64::INFINITY]).finite_range(), None);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    assert_eq!(QuantileSketch::from_bytes(&[2]).unwrap_err().code, ErrorCode::NewerFormat);
    assert_eq!(DistinctSketch::from_bytes(&[9, 0, 0]).unwrap_err().code, ErrorCode::NewerFormat);
    assert_eq!(DistinctSketch::from_bytes(&[]).unwrap_err().code, ErrorCode::CorruptStore);
}
