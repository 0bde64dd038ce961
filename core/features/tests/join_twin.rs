//! The join against the plainest possible one: for each entity row, look at every source row.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use headrace_features::{AsKnownAt, JoinOptions, PointInTimeJoin, SourceRows, point_in_time_join};
use proptest::prelude::*;
use serde_json::json;

type Key = (Option<i64>, Option<String>);

#[derive(Debug, Clone)]
struct Source {
    key: Key,
    event_ts: Option<i64>,
    created_ts: Option<i64>,
    deleted: bool,
    value: Option<i64>,
}

#[derive(Debug, Clone)]
struct Entity {
    key: Key,
    at: Option<i64>,
    cutoff: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cutoff {
    Off,
    EventTime,
    Column,
}

/// Value and status, as the rules say it in words.
fn plain(sources: &[Source], entity: &Entity, ttl_us: Option<i64>, cutoff: Cutoff) -> (Option<i64>, &'static str) {
    let not_found = (None, "NOT_FOUND");
    let Some(at) = entity.at else { return not_found };
    let known_at = match cutoff {
        Cutoff::Off => None,
        Cutoff::EventTime => Some(at),
        Cutoff::Column if entity.cutoff.is_none() => return not_found,
        Cutoff::Column => entity.cutoff,
    };
    let mut best: Option<(i64, i64, &Source)> = None;
    for source in sources {
        let same_key = source.key == entity.key && source.key.0.is_some() && source.key.1.is_some();
        let Some(event_ts) = source.event_ts.filter(|event_ts| same_key && *event_ts <= at) else { continue };
        let is_known =
            known_at.is_none_or(|known_at| source.created_ts.is_some_and(|created_ts| created_ts <= known_at));
        let version = (event_ts, source.created_ts.unwrap_or(i64::MIN));
        // Later rows win ties.
        if is_known && best.is_none_or(|(event_ts, created_ts, _)| version >= (event_ts, created_ts)) {
            best = Some((version.0, version.1, source));
        }
    }
    match best {
        None => not_found,
        Some((_, _, source)) if source.deleted => not_found,
        Some((event_ts, _, _)) if ttl_us.is_some_and(|ttl| i128::from(event_ts) < i128::from(at) - i128::from(ttl)) => {
            (None, "OUTSIDE_MAX_AGE")
        }
        Some((_, _, source)) => (source.value, if source.value.is_some() { "PRESENT" } else { "NULL_VALUE" }),
    }
}

fn time() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        1 => Just(None),
        16 => (0i64..12).prop_map(Some),
        1 => any::<i64>().prop_map(Some),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1]).prop_map(Some),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    (
        prop_oneof![1 => Just(None), 6 => (0i64..3).prop_map(Some)],
        prop_oneof![1 => Just(None), 6 => "[ab]{0,1}".prop_map(Some)],
    )
}

fn sources() -> impl Strategy<Value = Vec<Source>> {
    let row = (key(), time(), time(), prop::bool::weighted(0.15), prop::option::weighted(0.8, any::<i64>()))
        .prop_map(|(key, event_ts, created_ts, deleted, value)| Source { key, event_ts, created_ts, deleted, value });
    prop::collection::vec(row, 0..60)
}

fn entities() -> impl Strategy<Value = Vec<Entity>> {
    let row = (key(), time(), time()).prop_map(|(key, at, cutoff)| Entity { key, at, cutoff });
    prop::collection::vec(row, 0..30)
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>())
}

fn key_columns<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> [(&'static str, ArrayRef); 2] {
    [
        ("k1", Arc::new(keys.clone().map(|key| key.0).collect::<Int64Array>())),
        ("k2", Arc::new(keys.map(|key| key.1.as_deref()).collect::<StringArray>())),
    ]
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn source_batch(rows: &[Source]) -> RecordBatch {
    let [k1, k2] = key_columns(rows.iter().map(|row| &row.key));
    batch(vec![
        k1,
        k2,
        ("__event_ts", times(rows.iter().map(|row| row.event_ts))),
        ("__created_ts", times(rows.iter().map(|row| row.created_ts))),
        ("__deleted", Arc::new(rows.iter().map(|row| Some(row.deleted)).collect::<BooleanArray>())),
        ("x", Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>())),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]
    #[test]
    fn the_join_finds_what_a_scan_finds(
        sources in sources(),
        entities in entities(),
        ttl_us in prop::option::of(prop_oneof![1i64..6, Just(i64::MAX)]),
        cutoff in prop::sample::select(vec![Cutoff::Off, Cutoff::EventTime, Cutoff::Column]),
        split in 0.0f64..1.0,
        held_bytes_max in prop::sample::select(vec![0usize, 1]),
    ) {
        let plan = common::plan(&json!({
            "format": 1, "project": "p",
            "entities": {"e": {"join_keys": [{"name": "k1", "dtype": "int64"}, {"name": "k2", "dtype": "string"}]}},
            "views": {"v": {"entities": ["e"], "ttl_us": ttl_us, "fields": [{"name": "x", "dtype": "int64"}],
                            "source": {"kind": "push", "event_ts": "event_ts"}}},
            "services": {"svc": {"features": [{"view": "v", "feature": "x", "name": "x"}]}},
        }));
        let (one, two) = sources.split_at((split * sources.len() as f64) as usize);
        let batches = [source_batch(one), source_batch(two)];
        let [k1, k2] = key_columns(entities.iter().map(|row| &row.key));
        let entity_rows = batch(vec![
            k1,
            k2,
            ("at", times(entities.iter().map(|row| row.at))),
            ("known", times(entities.iter().map(|row| row.cutoff))),
        ]);
        let options = JoinOptions {
            event_ts_column: "at".into(),
            as_known_at: match cutoff {
                Cutoff::Off => AsKnownAt::Off,
                Cutoff::EventTime => AsKnownAt::EventTime,
                Cutoff::Column => AsKnownAt::Column("known".into()),
            },
            threads: 1,
            statuses: true,
            held_bytes_max,
            cancel: None,
        };
        let sources_of_views = BTreeMap::from([("v".into(), SourceRows { batches: batches.to_vec() })]);
        let output = point_in_time_join(&plan, "svc", &entity_rows, &options, &sources_of_views).unwrap();
        let mut in_pieces = PointInTimeJoin::new(&plan, "svc", entity_rows, options, None).unwrap();
        for batch in &batches {
            in_pieces.add("v", std::slice::from_ref(batch)).unwrap();
        }
        let in_pieces = in_pieces.finish().unwrap();
        prop_assert_eq!(&in_pieces.batch, &output.batch);
        prop_assert_eq!(&in_pieces.counts, &output.counts);
        let values = output.batch.column_by_name("x").unwrap().as_primitive::<Int64Type>();
        let statuses = output.batch.column_by_name("x__status").unwrap().as_dictionary::<Int8Type>();
        let names = statuses.values().as_string::<i32>();
        prop_assert_eq!(output.batch.num_rows(), entities.len());
        for (row, entity) in entities.iter().enumerate() {
            let value = values.is_valid(row).then(|| values.value(row));
            let status = names.value(usize::try_from(statuses.keys().value(row)).unwrap());
            prop_assert_eq!((value, status), plain(&sources, entity, ttl_us, cutoff), "row {}: {:?}", row, entity);
        }
    }
}
