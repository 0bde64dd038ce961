//! For each moment, the newest source row that counts from it on: all that a join of plain rows has to keep of a source.
//!
//! A source row belongs to the first moment at which it counts. Of the rows of a moment only the newest can be an answer, and the answer at a
//! moment is the newest of all moments up to it. So source rows are looked at once, in any order, and none is sorted; what is kept grows with
//! the entity rows, not with the source.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use headrace_types::{FeatureStatus, Result};

use super::groups::{Groups, NO_GROUP};
use super::held::{Held, NO_PLACE};
use super::moments::Moments;
use super::parallel::{Cancel, parallel_map};
use super::source::{Block, SourceTimes};
use super::view::{Found, ViewCounts, count_null_keys};
use crate::plan::ViewPlan;

/// Source rows that are looked up as one job.
const JOB_ROWS: usize = 65_536;
/// Source rows whose moments are brought into the cache together.
const TOUCHED_ROWS: usize = 64;
/// Source rows between two rounds of keeping the newest: what is passed on from one to the other stays small.
const ROUND_ROWS: usize = 1 << 20;
/// Moments that one job keeps up: they fit in a core's cache.
const RANGE_MOMENTS: usize = 1 << 14;
/// More ranges than this would scatter what is passed on over too many places.
const RANGES_MAX: usize = 256;

/// The newest row of a moment. Rows at later places come later in their sequence.
#[derive(Clone, Copy)]
struct Candidate {
    event_ts: i64,
    created_ts: i64,
    place: u32,
}

/// No row; any row is newer.
const NOTHING: Candidate = Candidate { event_ts: i64::MIN, created_ts: i64::MIN, place: NO_PLACE };

impl Candidate {
    /// Takes a row of a later sequence if it is not older.
    #[inline]
    fn keep_newest(&mut self, other: &Self) {
        if (other.event_ts, other.created_ts) >= (self.event_ts, self.created_ts) {
            *self = *other;
        }
    }
}

/// A row and the moment that it belongs to.
struct Arrival {
    moment: u32,
    row: Candidate,
}

pub(super) struct Newest {
    candidates: Vec<Candidate>,
    held: Held,
    /// What was held when it was compacted last: all of it may have been an answer.
    live_bytes: usize,
    counts: ViewCounts,
}

/// What a view is joined with.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) view: &'a ViewPlan,
    pub(super) groups: &'a Groups,
    pub(super) moments: &'a Moments,
    pub(super) has_cutoff: bool,
}

impl Newest {
    pub(super) fn new(moments: &Moments, held: Held) -> Self {
        Self { candidates: vec![NOTHING; moments.count()], held, live_bytes: 0, counts: ViewCounts::default() }
    }

    /// Takes in the next rows of the sequence.
    pub(super) fn add(
        &mut self,
        asked: Asked<'_>,
        blocks: Vec<Block>,
        threads: usize,
        cancel: &Cancel<'_>,
    ) -> Result<()> {
        let mut place = self.held.rows as u32;
        let mut jobs: Vec<(u32, &Block, Range<usize>)> = Vec::new();
        for block in &blocks {
            for start in (0..block.rows).step_by(JOB_ROWS) {
                jobs.push((place + start as u32, block, start..(start + JOB_ROWS).min(block.rows)));
            }
            place = place.saturating_add(block.rows as u32);
        }
        let range_moments = self.candidates.len().div_ceil(RANGES_MAX).max(RANGE_MOMENTS).next_power_of_two();
        let range_bits = range_moments.trailing_zeros();
        for round in jobs.chunks(ROUND_ROWS / JOB_ROWS) {
            let arrived = parallel_map(threads, round, |(place, block, rows)| {
                cancel.check()?;
                arrivals(asked, block, rows.clone(), *place, range_bits)
            })?;
            for (_, counts) in &arrived {
                self.counts.add(counts);
            }
            let ranges: Vec<_> = self.candidates.chunks_mut(range_moments).map(Mutex::new).enumerate().collect();
            parallel_map(threads, &ranges, |(range, candidates)| {
                let mut candidates = candidates.lock().unwrap_or_else(PoisonError::into_inner);
                for arrival in arrived.iter().flat_map(|(by_range, _)| &by_range[*range]) {
                    candidates[arrival.moment as usize - range * range_moments].keep_newest(&arrival.row);
                }
                Ok(())
            })?;
        }
        for block in blocks {
            self.held.push(block.values, block.deleted, block.rows)?;
        }
        Ok(())
    }

    /// Forgets the source rows that cannot be an answer any more, if more than `bytes_max` are held and much of it may go.
    pub(super) fn compact(&mut self, bytes_max: usize) -> Result<()> {
        if self.held.bytes <= bytes_max.max(2 * self.live_bytes) {
            return Ok(());
        }
        let mut keep = vec![0; self.held.rows];
        let live = |candidate: &&mut Candidate| candidate.place != NO_PLACE;
        self.candidates.iter_mut().filter(live).for_each(|candidate| keep[candidate.place as usize] = 1);
        self.held.compact(&mut keep)?;
        self.candidates.iter_mut().filter(live).for_each(|candidate| candidate.place = keep[candidate.place as usize]);
        self.live_bytes = self.held.bytes;
        Ok(())
    }

    /// The answers for `entities_count` entity rows.
    pub(super) fn finish(self, asked: Asked<'_>, entities_count: usize) -> Result<Found> {
        let Self { candidates, held, mut counts, .. } = self;
        let Asked { view, moments, .. } = asked;
        let mut places = vec![NO_PLACE; entities_count];
        let mut statuses = vec![FeatureStatus::NotFound; entities_count];
        for of_group in moments.of_groups() {
            let mut newest = NOTHING;
            for moment in of_group {
                // Its own rows may be of an earlier sequence than those before, so the place decides a tie.
                let candidate = &candidates[moment];
                if candidate.place != NO_PLACE
                    && (newest.place == NO_PLACE
                        || (candidate.event_ts, candidate.created_ts, candidate.place)
                            > (newest.event_ts, newest.created_ts, newest.place))
                {
                    newest = *candidate;
                }
                if newest.place != NO_PLACE {
                    let row = moments.rows[moment] as usize;
                    places[row] = newest.place;
                    statuses[row] = view.status_at(newest.event_ts, moments.at_us(moment));
                }
            }
        }
        let deleted = held.is_deleted(&places);
        for ((status, place), deleted) in statuses.iter_mut().zip(&mut places).zip(deleted) {
            if deleted {
                *status = FeatureStatus::NotFound;
            }
            if *status != FeatureStatus::Present {
                *place = NO_PLACE;
            }
        }
        counts.add_found(&statuses);
        Ok(Found { columns: held.gather(&places)?, statuses, counts })
    }
}

/// The rows of a block that count for some moment, by ranges of moments, and what was left out.
fn arrivals(
    asked: Asked<'_>,
    block: &Block,
    rows: Range<usize>,
    first_place: u32,
    range_bits: u32,
) -> Result<(Vec<Vec<Arrival>>, ViewCounts)> {
    let Asked { view, groups, moments, has_cutoff } = asked;
    let keys: Vec<_> = block.keys.iter().map(|key| key.slice(rows.start, rows.len())).collect();
    let times = SourceTimes::of_block(view, block, rows.clone(), has_cutoff);
    let source_groups = groups.of_sources(&keys, rows.len())?;
    let ranges = (moments.count() >> range_bits) + 1;
    let mut by_range: Vec<Vec<Arrival>> = Vec::with_capacity(ranges);
    by_range.resize_with(ranges, || Vec::with_capacity(rows.len() / ranges + rows.len() / ranges / 8));
    for (number, touched) in source_groups.chunks(TOUCHED_ROWS).enumerate() {
        moments.touch(touched);
        for (offset, &group) in touched.iter().enumerate() {
            let row = number * TOUCHED_ROWS + offset;
            if group == NO_GROUP || !times.takes_part(row) {
                continue;
            }
            let (event_ts, created_ts) = (times.event_ts[row], times.created_ts[row]);
            if let Some(moment) = moments.first(group, event_ts, created_ts) {
                let place = first_place + row as u32;
                let arrival = Arrival { moment, row: Candidate { event_ts, created_ts, place } };
                by_range[moment as usize >> range_bits].push(arrival);
            }
        }
    }
    let counts = ViewCounts {
        source_rows: rows.len() as u64,
        null_event_ts: times.null_event_ts,
        null_created_ts: times.null_created_ts,
        null_keys: count_null_keys(&keys),
        ..ViewCounts::default()
    };
    Ok((by_range, counts))
}
