//! The source rows of each group in the row order, and the search for the newest one that counts.

use super::groups::NO_GROUP;

/// Source rows by group, each group sorted by (event_ts, created_ts, input order).
pub(super) struct Timelines {
    /// Where each group starts in the arrays below; one more at the end.
    offsets: Vec<u32>,
    /// Row numbers in the source.
    rows: Vec<u32>,
    event_ts: Vec<i64>,
    /// Creation times for searches with a cutoff.
    created_ts: Option<MinTree>,
}

impl Timelines {
    /// `groups[row]` is the group of a source row, or `NO_GROUP` for a row to leave out.
    pub(super) fn new(
        groups: &[u32],
        groups_count: usize,
        event_ts: &[i64],
        created_ts: &[i64],
        has_cutoff: bool,
    ) -> Self {
        let mut offsets = vec![0u32; groups_count + 1];
        for &group in groups.iter().filter(|&&group| group != NO_GROUP) {
            offsets[group as usize + 1] += 1;
        }
        for group in 0..groups_count {
            offsets[group + 1] += offsets[group];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0u32; offsets[groups_count] as usize];
        let mut sorted_event_ts = vec![0i64; rows.len()];
        for (row, &group) in groups.iter().enumerate() {
            if group != NO_GROUP {
                let place = next[group as usize] as usize;
                (rows[place], sorted_event_ts[place]) = (row as u32, event_ts[row]);
                next[group as usize] += 1;
            }
        }
        // Sorted beside each other, so that a comparison reads no row of the source unless event times are equal.
        let mut timed: Vec<(i64, u32)> = Vec::new();
        for group in 0..groups_count {
            let places = offsets[group] as usize..offsets[group + 1] as usize;
            let (rows, event_ts) = (&mut rows[places.clone()], &mut sorted_event_ts[places]);
            let created = |row: u32| (created_ts[row as usize], row);
            timed.clear();
            timed.extend(event_ts.iter().copied().zip(rows.iter().copied()));
            timed.sort_unstable_by(|(a_ts, a), (b_ts, b)| a_ts.cmp(b_ts).then_with(|| created(*a).cmp(&created(*b))));
            for ((row, event_ts), sorted) in rows.iter_mut().zip(event_ts).zip(&timed) {
                (*event_ts, *row) = *sorted;
            }
        }
        let created_ts = has_cutoff.then(|| MinTree::new(rows.iter().map(|&row| created_ts[row as usize]).collect()));
        Self { offsets, rows, event_ts: sorted_event_ts, created_ts }
    }

    /// The rows of a group, in their order.
    pub(super) fn rows_of(&self, group: usize) -> &[u32] {
        &self.rows[self.offsets[group] as usize..self.offsets[group + 1] as usize]
    }

    /// The event times of the rows of a group.
    pub(super) fn times_of(&self, group: usize) -> &[i64] {
        &self.event_ts[self.offsets[group] as usize..self.offsets[group + 1] as usize]
    }

    /// The newest row of a group with `event_ts <= at_us` and, with a cutoff, `created_ts <= cutoff`: its number and event time.
    ///
    /// `hint` is a place of that group's timeline to start from, and is moved to the place found: entity rows in the order of time then
    /// find their place in a few steps.
    pub(super) fn newest(&self, group: u32, at_us: i64, cutoff: Option<i64>, hint: &mut u32) -> Option<(u32, i64)> {
        let (begin, end) = (self.offsets[group as usize] as usize, self.offsets[group as usize + 1] as usize);
        let start = (*hint as usize).clamp(begin, end);
        let after = begin + gallop(&self.event_ts[begin..end], start - begin, at_us);
        *hint = after as u32;
        let place = match (&self.created_ts, cutoff) {
            (Some(created_ts), Some(cutoff)) => created_ts.last_at_most(begin, after, cutoff)?,
            _ => after.checked_sub(1).filter(|&place| place >= begin)?,
        };
        Some((self.rows[place], self.event_ts[place]))
    }
}

/// The number of values that are at most `limit`, in a sorted slice, searched outwards from a place.
fn gallop(sorted: &[i64], start: usize, limit: i64) -> usize {
    let (mut low, mut high, mut step) = (start, start, 1);
    while high < sorted.len() && sorted[high] <= limit {
        low = high + 1;
        high = (high + step).min(sorted.len());
        step *= 2;
    }
    step = 1;
    while low > 0 && sorted[low - 1] > limit {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    low + sorted[low..high].partition_point(|&value| value <= limit)
}

/// Values with the minima of their blocks, of the blocks' blocks, and so on.
///
/// A backfill makes rows known long after their event times. Stepping back from row to row would then read a whole group for each
/// entity row; the minima let the search skip blocks that were all made known too late.
struct MinTree {
    levels: Vec<Vec<i64>>,
}

const BLOCK: usize = 32;

impl MinTree {
    fn new(values: Vec<i64>) -> Self {
        let minima = |values: &[i64]| -> Vec<i64> {
            values.chunks(BLOCK).map(|block| block.iter().copied().min().unwrap_or(i64::MAX)).collect()
        };
        let mut levels = vec![values];
        loop {
            let top = &levels[levels.len() - 1];
            if top.len() <= BLOCK {
                return Self { levels };
            }
            let next = minima(top);
            levels.push(next);
        }
    }

    /// The last place in `begin..end` whose value is at most `limit`.
    fn last_at_most(&self, begin: usize, end: usize, limit: i64) -> Option<usize> {
        self.search(0, begin, end, limit)
    }

    fn search(&self, level: usize, begin: usize, end: usize, limit: i64) -> Option<usize> {
        let values = &self.levels[level];
        let found = |range: std::ops::Range<usize>| range.rev().find(|&place| values[place] <= limit);
        // Whole blocks inside the range are asked for by their minima; the ragged ends are read.
        let (first_block, last_block) = (begin.div_ceil(BLOCK), end / BLOCK);
        if level + 1 == self.levels.len() || first_block >= last_block {
            return found(begin..end);
        }
        found(last_block * BLOCK..end)
            .or_else(|| {
                let block = self.search(level + 1, first_block, last_block, limit)?;
                found(block * BLOCK..(block + 1) * BLOCK)
            })
            .or_else(|| found(begin..first_block * BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gallop_is_a_binary_search(mut values in prop::collection::vec(-20i64..20, 0..50), start in 0usize..60, limit in -22i64..22) {
            values.sort_unstable();
            let expected = values.partition_point(|&value| value <= limit);
            prop_assert_eq!(gallop(&values, start.min(values.len()), limit), expected);
        }

        #[test]
        fn the_tree_finds_what_a_scan_finds(
            values in prop::collection::vec(0i64..6, 1..4_000),
            ends in (0.0f64..1.0, 0.0f64..1.0),
            limit in -1i64..7,
            rare in any::<bool>(),
        ) {
            // Mostly large values, so that searches go far.
            let values: Vec<i64> = if rare {
                values.iter().enumerate().map(|(place, value)| if place % 777 == 0 { *value } else { 100 }).collect()
            } else {
                values
            };
            let place = |share: f64| (share * (values.len() + 1) as f64) as usize;
            let (begin, end) = (place(ends.0).min(place(ends.1)), place(ends.0).max(place(ends.1)));
            let expected = (begin..end).rev().find(|&place| values[place] <= limit);
            prop_assert_eq!(MinTree::new(values).last_at_most(begin, end, limit), expected);
        }
    }
}
