//! The times at which each key is asked about, in their order.

use arrow_array::Array;

use super::AsKnownAt;
use super::entities::EntityRows;
use super::groups::{Groups, NO_GROUP};

/// Up to so many times are counted, not searched: without a branch to foretell.
const COUNTED_MAX: usize = 16;

/// The entity rows that can find something, by group, then by time.
///
/// A source row counts for an entity row from the first moment on at which it has happened and, with a cutoff, was known; for all later
/// moments of the group too, because cutoffs do not go back.
pub(super) struct Moments {
    /// Where each group starts in the vectors below; one more at the end.
    offsets: Vec<u32>,
    /// The entity row of each moment.
    pub(super) rows: Vec<u32>,
    at_us: Vec<i64>,
    cutoff: Cutoff,
}

enum Cutoff {
    Off,
    /// Each row's own time.
    Time,
    Other(Vec<i64>),
}

impl Moments {
    /// None if in some group a later row has an earlier cutoff.
    pub(super) fn new(entities: &EntityRows, groups: &Groups, as_known_at: &AsKnownAt) -> Option<Self> {
        let mut offsets = vec![0u32; groups.count + 1];
        let can_find = |row: usize, group: u32| {
            group != NO_GROUP
                && entities.event_ts.is_valid(row)
                && entities.cutoff.as_ref().is_none_or(|cutoff| cutoff.is_valid(row))
        };
        let askers = || groups.of_entities.iter().enumerate().filter(|&(row, &group)| can_find(row, group));
        for (_, &group) in askers() {
            offsets[group as usize + 1] += 1;
        }
        for group in 0..groups.count {
            offsets[group + 1] += offsets[group];
        }
        let mut next = offsets.clone();
        let mut asked = vec![(0i64, 0u32); offsets[groups.count] as usize];
        let times = entities.event_ts.values();
        for (row, &group) in askers() {
            let place = &mut next[group as usize];
            asked[*place as usize] = (times[row], row as u32); // the number of rows is checked to fit
            *place += 1;
        }
        let other = match (as_known_at, &entities.cutoff) {
            (AsKnownAt::Column(_), Some(cutoff)) => Some(cutoff.values()),
            _ => None,
        };
        for group in 0..groups.count {
            let asked = &mut asked[offsets[group] as usize..offsets[group + 1] as usize];
            match other {
                None => asked.sort_unstable(),
                Some(cutoff) => {
                    asked.sort_unstable_by_key(|&(at_us, row)| (at_us, cutoff[row as usize], row));
                    if !asked.is_sorted_by_key(|&(_, row)| cutoff[row as usize]) {
                        return None;
                    }
                }
            }
        }
        let (at_us, rows): (Vec<i64>, Vec<u32>) = asked.into_iter().unzip();
        let cutoff = match (as_known_at, other) {
            (AsKnownAt::Off, _) => Cutoff::Off,
            (_, None) => Cutoff::Time,
            (_, Some(cutoff)) => Cutoff::Other(rows.iter().map(|&row| cutoff[row as usize]).collect()),
        };
        Some(Self { offsets, rows, at_us, cutoff })
    }

    /// The number of moments.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The moments of each group.
    pub(super) fn of_groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.offsets.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize)
    }

    pub(super) fn at_us(&self, moment: usize) -> i64 {
        self.at_us[moment]
    }

    /// Reads the ends of some groups' times, so that they are in the cache when they are searched: loads that do not depend on each other
    /// are waited for together.
    #[inline]
    pub(super) fn touch(&self, groups: &[u32]) {
        let mut seen = 0;
        for &group in groups.iter().filter(|&&group| group != NO_GROUP) {
            let (begin, end) = (self.offsets[group as usize] as usize, self.offsets[group as usize + 1] as usize);
            if begin < end {
                seen ^= self.at_us[begin] ^ self.at_us[end - 1];
            }
        }
        std::hint::black_box(seen);
    }

    /// The first moment of a group at which a row of these times counts.
    #[inline]
    pub(super) fn first(&self, group: u32, event_ts: i64, created_ts: i64) -> Option<u32> {
        let (begin, end) = (self.offsets[group as usize], self.offsets[group as usize + 1]);
        let of_group = begin as usize..end as usize;
        let times = &self.at_us[of_group.clone()];
        let before = match &self.cutoff {
            Cutoff::Off => count_below(times, event_ts),
            Cutoff::Time => count_below(times, event_ts.max(created_ts)),
            Cutoff::Other(cutoffs) => count_below(times, event_ts).max(count_below(&cutoffs[of_group], created_ts)),
        };
        let moment = begin + before as u32;
        (moment < end).then_some(moment)
    }
}

/// How many of some sorted values are below a limit.
#[inline]
fn count_below(sorted: &[i64], limit: i64) -> usize {
    if sorted.len() <= COUNTED_MAX {
        sorted.iter().map(|&value| usize::from(value < limit)).sum()
    } else {
        sorted.partition_point(|&value| value < limit)
    }
}
