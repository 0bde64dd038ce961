//! One view's part of the join: which source row each entity row takes.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use arrow_select::take::take;
use headrace_types::{Error, ErrorCode, FeatureStatus, Result};

use super::entities::EntityRows;
use super::groups::{Groups, NO_GROUP};
use super::parallel::{CANCEL_CHECK_ROWS, Cancel};
use super::source::{SourceRows, SourceTimes};
use super::timeline::Timelines;
use crate::plan::ViewPlan;

/// What the join has seen of one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ViewCounts {
    /// Source rows.
    pub source_rows: u64,
    /// Source rows left out, because they have no event time.
    pub null_event_ts: u64,
    /// Source rows of which it is not known when they became known; a join with a cutoff leaves them out.
    pub null_created_ts: u64,
    /// Source rows left out, because a part of their key is null.
    pub null_keys: u64,
    /// Entity rows with a row of the view.
    pub found: u64,
    /// Entity rows without one, or with a deleted one.
    pub not_found: u64,
    /// Entity rows whose newest row is older than the TTL.
    pub outside_max_age: u64,
}

pub(super) struct ViewJoin {
    /// For each entity row, whether a row was found: `Present`, `NotFound` or `OutsideMaxAge`.
    pub(super) found: Vec<FeatureStatus>,
    pub(super) values: ViewValues,
    pub(super) counts: ViewCounts,
}

/// Where a view's values come from.
pub(super) enum ViewValues {
    /// For each entity row, the source row found; null where there is none.
    Picked(UInt32Array),
    /// Aggregates: the numbers of the features asked for, and their columns.
    Aggregated(Vec<usize>, Vec<ArrayRef>),
}

pub(super) fn join(
    view: &ViewPlan,
    source: &SourceRows,
    entities: &EntityRows,
    groups: &Groups<'_>,
    cancel: &Cancel<'_>,
) -> Result<ViewJoin> {
    let SourceTimelines { times, timelines, mut counts } =
        SourceTimelines::new(view, source, entities, groups, entities.cutoff.is_some(), cancel)?;
    let (picked, found) = pick(view, entities, groups, &timelines, times.deleted.as_deref(), cancel)?;
    for status in &found {
        match status {
            FeatureStatus::Present => counts.found += 1,
            FeatureStatus::OutsideMaxAge => counts.outside_max_age += 1,
            _ => counts.not_found += 1,
        }
    }
    Ok(ViewJoin { found, values: ViewValues::Picked(picked), counts })
}

/// A view's source rows by key, in their order.
pub(super) struct SourceTimelines {
    pub(super) times: SourceTimes,
    pub(super) timelines: Timelines,
    /// What was left out; nothing has been found yet.
    pub(super) counts: ViewCounts,
}

impl SourceTimelines {
    /// With `by_cutoff` the timelines can be searched by creation time.
    pub(super) fn new(
        view: &ViewPlan,
        source: &SourceRows,
        entities: &EntityRows,
        groups: &Groups<'_>,
        by_cutoff: bool,
        cancel: &Cancel<'_>,
    ) -> Result<Self> {
        let times = SourceTimes::new(view, source, entities.cutoff.is_some())?;
        let keys =
            view.join_keys.iter().map(|key| source.column(&key.name, key.dtype)).collect::<Result<Vec<ArrayRef>>>()?;
        let rows = source.rows();
        let mut source_groups = groups.of_sources(&keys, rows)?;
        for (group, takes_part) in source_groups.iter_mut().zip(&times.takes_part) {
            if !takes_part {
                *group = NO_GROUP;
            }
        }
        cancel.check()?;
        let timelines = Timelines::new(&source_groups, groups.count, &times.event_ts, &times.created_ts, by_cutoff);
        cancel.check()?;
        let counts = ViewCounts {
            source_rows: rows as u64,
            null_event_ts: times.null_event_ts,
            null_created_ts: times.null_created_ts,
            null_keys: null_keys(&keys),
            ..ViewCounts::default()
        };
        Ok(Self { times, timelines, counts })
    }
}

/// The source row of each entity row, null where there is none, and how it was found.
fn pick(
    view: &ViewPlan,
    entities: &EntityRows,
    groups: &Groups<'_>,
    timelines: &Timelines,
    deleted: Option<&[bool]>,
    cancel: &Cancel<'_>,
) -> Result<(UInt32Array, Vec<FeatureStatus>)> {
    let mut hints = vec![0u32; groups.count];
    let mut picked = vec![0u32; entities.count];
    let mut found = vec![FeatureStatus::NotFound; entities.count];
    for (row, &group) in groups.of_entities.iter().enumerate() {
        if row % CANCEL_CHECK_ROWS == 0 {
            cancel.check()?;
        }
        if group == NO_GROUP {
            continue;
        }
        let Some((at_us, cutoff)) = entities.times(row) else { continue };
        let Some((source_row, event_ts)) = timelines.newest(group, at_us, cutoff, &mut hints[group as usize]) else {
            continue;
        };
        if deleted.is_some_and(|deleted| deleted[source_row as usize]) {
            continue;
        }
        if view.ttl_us.is_some_and(|ttl_us| event_ts < at_us.saturating_sub(ttl_us)) {
            found[row] = FeatureStatus::OutsideMaxAge;
            continue;
        }
        found[row] = FeatureStatus::Present;
        picked[row] = source_row;
    }
    let nulls: NullBuffer = found.iter().map(|status| *status == FeatureStatus::Present).collect();
    Ok((UInt32Array::new(picked.into(), Some(nulls)), found))
}

fn null_keys(keys: &[ArrayRef]) -> u64 {
    match keys {
        [] => 0,
        [key] => key.null_count() as u64,
        keys => (0..keys[0].len()).filter(|&row| keys.iter().any(|key| key.is_null(row))).count() as u64,
    }
}

/// The values of the picked rows. Offsets have 32 bits, so the size of strings and lists is looked at first.
pub(super) fn gather(values: &ArrayRef, picked: &UInt32Array, name: &str) -> Result<ArrayRef> {
    let length_of: Option<Box<dyn Fn(usize) -> i64>> = match values.data_type() {
        DataType::Utf8 => Some(offset_lengths(values.as_string::<i32>().offsets())),
        DataType::Binary => Some(offset_lengths(values.as_binary::<i32>().offsets())),
        DataType::List(_) => Some(offset_lengths(values.as_list::<i32>().offsets())),
        _ => None,
    };
    if let Some(length_of) = length_of {
        let length: i64 = picked.iter().flatten().map(|row| length_of(row as usize)).sum();
        if i32::try_from(length).is_err() {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("column '{name}' would have {length} bytes or list items, the limit is {}", i32::MAX),
                "join a part of the entity rows at a time",
            ));
        }
    }
    take(values, picked, None).map_err(|error| Error::internal(format!("column '{name}': {error}")))
}

fn offset_lengths(offsets: &[i32]) -> Box<dyn Fn(usize) -> i64 + '_> {
    Box::new(|row| i64::from(offsets[row + 1]) - i64::from(offsets[row]))
}
