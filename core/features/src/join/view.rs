//! One view's part of the join: which source row each entity row takes.

use arrow_array::{Array, ArrayRef};
use headrace_types::{FeatureStatus, Field, Result};

use super::entities::EntityRows;
use super::groups::{Groups, NO_GROUP};
use super::held::{Held, NO_PLACE};
use super::parallel::{CANCEL_CHECK_ROWS, Cancel};
use super::source::{SourceRows, SourceTimes};
use super::timeline::Timelines;
use crate::arrow::plain_column;
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

impl ViewCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.source_rows += other.source_rows;
        self.null_event_ts += other.null_event_ts;
        self.null_created_ts += other.null_created_ts;
        self.null_keys += other.null_keys;
        self.found += other.found;
        self.not_found += other.not_found;
        self.outside_max_age += other.outside_max_age;
    }

    pub(super) fn add_found(&mut self, statuses: &[FeatureStatus]) {
        for status in statuses {
            match status {
                FeatureStatus::Present => self.found += 1,
                FeatureStatus::OutsideMaxAge => self.outside_max_age += 1,
                _ => self.not_found += 1,
            }
        }
    }
}

/// A view's part of the answer.
pub(super) struct Found {
    /// For each entity row, whether a row was found: `Present`, `NotFound` or `OutsideMaxAge`.
    pub(super) statuses: Vec<FeatureStatus>,
    /// The features asked for, in the order of their fields; null where nothing was found.
    pub(super) columns: Vec<ArrayRef>,
    pub(super) counts: ViewCounts,
}

impl ViewPlan {
    /// How a lookup at a time judges the view's newest row, if it is no tombstone.
    pub(super) fn status_at(&self, event_ts: i64, at_us: i64) -> FeatureStatus {
        match self.ttl_us {
            Some(ttl_us) if event_ts < at_us.saturating_sub(ttl_us) => FeatureStatus::OutsideMaxAge,
            _ => FeatureStatus::Present,
        }
    }
}

/// Joins by timelines of all source rows: any cutoffs go, but all rows are held.
pub(super) fn join(
    view: &ViewPlan,
    fields: &[Field],
    source: &SourceRows,
    entities: &EntityRows,
    groups: &Groups,
    cancel: &Cancel<'_>,
) -> Result<Found> {
    let SourceTimelines { times, timelines, mut counts } =
        SourceTimelines::new(view, source, entities, groups, entities.cutoff.is_some(), cancel)?;
    let (places, statuses) = pick(view, entities, groups, &timelines, times.deleted.as_deref(), cancel)?;
    counts.add_found(&statuses);
    let mut held = Held::new(fields.to_vec());
    for batch in &source.batches {
        let plain = fields.iter().map(|field| plain_column(batch, &field.name, field.dtype));
        held.push(plain.collect::<Result<_>>()?, None, batch.num_rows())?;
    }
    Ok(Found { columns: held.gather(&places)?, statuses, counts })
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
        groups: &Groups,
        by_cutoff: bool,
        cancel: &Cancel<'_>,
    ) -> Result<Self> {
        let times = SourceTimes::new(view, source, entities.cutoff.is_some())?;
        let keys =
            view.join_keys.iter().map(|key| source.column(&key.name, key.dtype)).collect::<Result<Vec<ArrayRef>>>()?;
        let rows = source.rows();
        let mut source_groups = groups.of_sources(&keys, rows)?;
        times.left_out().for_each(|row| source_groups[row] = NO_GROUP);
        cancel.check()?;
        let timelines = Timelines::new(&source_groups, groups.count, &times.event_ts, &times.created_ts, by_cutoff);
        cancel.check()?;
        let counts = ViewCounts {
            source_rows: rows as u64,
            null_event_ts: times.null_event_ts,
            null_created_ts: times.null_created_ts,
            null_keys: count_null_keys(&keys),
            ..ViewCounts::default()
        };
        Ok(Self { times, timelines, counts })
    }
}

/// The place of each entity row's source row, and how it was found.
fn pick(
    view: &ViewPlan,
    entities: &EntityRows,
    groups: &Groups,
    timelines: &Timelines,
    deleted: Option<&[bool]>,
    cancel: &Cancel<'_>,
) -> Result<(Vec<u32>, Vec<FeatureStatus>)> {
    let mut hints = vec![0u32; groups.count];
    let mut places = vec![NO_PLACE; entities.count];
    let mut statuses = vec![FeatureStatus::NotFound; entities.count];
    for (row, &group) in groups.of_entities.iter().enumerate() {
        if row % CANCEL_CHECK_ROWS == 0 {
            cancel.check()?;
        }
        if group == NO_GROUP {
            continue;
        }
        let Some((at_us, cutoff)) = entities.times(row) else { continue };
        let Some((place, event_ts)) = timelines.newest(group, at_us, cutoff, &mut hints[group as usize]) else {
            continue;
        };
        if deleted.is_some_and(|deleted| deleted[place as usize]) {
            continue;
        }
        statuses[row] = view.status_at(event_ts, at_us);
        if statuses[row] == FeatureStatus::Present {
            places[row] = place;
        }
    }
    Ok((places, statuses))
}

/// Rows that have a null in their key.
pub(super) fn count_null_keys(keys: &[ArrayRef]) -> u64 {
    match keys {
        [] => 0,
        [key] => key.null_count() as u64,
        keys if keys.iter().all(|key| key.null_count() == 0) => 0,
        keys => (0..keys[0].len()).filter(|&row| keys.iter().any(|key| key.is_null(row))).count() as u64,
    }
}
