//! The source rows of each group in the row order, and the search for the newest one that counts.

use std::ops::Range;

use super::groups::NO_GROUP;

/// About so many rows are put into their groups at a time: they and their times stay in the cache.
const BUCKET_ROWS: usize = 1 << 15;

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
        let bucket_groups = bucket_groups(groups_count, offsets[groups_count] as usize);
        let Bucketed { mut rows, mut event_ts, members } =
            Bucketed::new(groups, &offsets, bucket_groups.trailing_zeros(), event_ts);
        let mut sorter = Sorter::default();
        for first in (0..groups_count).step_by(bucket_groups) {
            let offsets = &offsets[first..=(first + bucket_groups).min(groups_count)];
            let bucket = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
            sorter.load(offsets, &rows[bucket.clone()], &event_ts[bucket.clone()], &members[bucket.clone()]);
            for group in offsets.windows(2) {
                let group = group[0] as usize..group[1] as usize;
                let loaded = group.start - bucket.start..group.end - bucket.start;
                sorter.sort(loaded, created_ts, &mut rows[group.clone()], &mut event_ts[group]);
            }
        }
        drop(members);
        let created_ts = has_cutoff.then(|| MinTree::new(rows.iter().map(|&row| created_ts[row as usize]).collect()));
        Self { offsets, rows, event_ts, created_ts }
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

/// The number of groups of a bucket, a power of two that a member's number fits into.
fn bucket_groups(groups_count: usize, rows: usize) -> usize {
    let buckets = (rows / BUCKET_ROWS).max(1);
    groups_count.div_ceil(buckets).next_power_of_two().min(1 << u16::BITS)
}

/// Rows by bucket, each bucket's in their sequence. There are few buckets: writing goes on at each where it has been in the cache.
struct Bucketed {
    rows: Vec<u32>,
    event_ts: Vec<i64>,
    /// The group of each row, counted from the first of its bucket.
    members: Vec<u16>,
}

impl Bucketed {
    fn new(groups: &[u32], offsets: &[u32], bucket_bits: u32, event_ts: &[i64]) -> Self {
        let groups_count = offsets.len() - 1;
        let count = offsets[groups_count] as usize;
        let mut next: Vec<u32> = offsets[..groups_count].iter().step_by(1 << bucket_bits).copied().collect();
        let mut this = Self { rows: vec![0; count], event_ts: vec![0; count], members: vec![0; count] };
        for ((row, &group), &time) in groups.iter().enumerate().zip(event_ts) {
            if group != NO_GROUP {
                let next = &mut next[(group >> bucket_bits) as usize];
                let place = *next as usize;
                *next += 1;
                this.rows[place] = row as u32; // the number of rows is checked to fit
                this.event_ts[place] = time;
                this.members[place] = (group & ((1 << bucket_bits) - 1)) as u16;
            }
        }
        this
    }
}

/// Puts the rows of a bucket into their groups, and those of each group into their order.
#[derive(Default)]
struct Sorter {
    /// The rows that are loaded, by group, each group's in their sequence, and their times.
    rows: Vec<u32>,
    times: Vec<i64>,
    next: Vec<u32>,
    packed: Vec<u64>,
    timed: Vec<(i64, u32)>,
}

impl Sorter {
    /// Takes the rows of a bucket; `offsets` are those of its groups.
    fn load(&mut self, offsets: &[u32], rows: &[u32], event_ts: &[i64], members: &[u16]) {
        self.rows.resize(rows.len(), 0);
        self.times.resize(rows.len(), 0);
        self.next.clear();
        self.next.extend(offsets.iter().map(|offset| offset - offsets[0]));
        for ((&row, &time), &member) in rows.iter().zip(event_ts).zip(members) {
            let next = &mut self.next[member as usize];
            let place = *next as usize;
            *next += 1;
            (self.rows[place], self.times[place]) = (row, time);
        }
    }

    /// Writes a group's rows and their times in the order of (event_ts, created_ts, sequence).
    fn sort(&mut self, loaded: Range<usize>, created_ts: &[i64], rows: &mut [u32], event_ts: &mut [i64]) {
        let (loaded_rows, times) = (&self.rows[loaded.clone()], &self.times[loaded]);
        if times.is_sorted() {
            rows.copy_from_slice(loaded_rows);
            event_ts.copy_from_slice(times);
        } else if !sort_packed(times, &mut self.packed, |at, place, time| {
            (rows[at], event_ts[at]) = (loaded_rows[place], time);
        }) {
            self.timed.clear();
            self.timed.extend(times.iter().copied().zip(loaded_rows.iter().copied()));
            self.timed.sort_unstable();
            for (at, &sorted) in self.timed.iter().enumerate() {
                (event_ts[at], rows[at]) = sorted;
            }
        }
        order_ties(created_ts, rows, event_ts);
    }
}

/// Rows of one event time come in the order of their creation times, then of their sequence, which they are in.
fn order_ties(created_ts: &[i64], rows: &mut [u32], event_ts: &[i64]) {
    if !event_ts.windows(2).any(|pair| pair[0] == pair[1]) {
        return;
    }
    let mut start = 0;
    for tied in event_ts.chunk_by(|a, b| a == b) {
        rows[start..start + tied.len()].sort_by_key(|&row| created_ts[row as usize]);
        start += tied.len();
    }
}

/// Sorts times, and calls `take` with the place in the order, the place before and the time of each; equal times stay in their order. Time
/// and place are sorted as one number; false, and nothing is done, where they do not fit into one.
fn sort_packed(times: &[i64], packed: &mut Vec<u64>, mut take: impl FnMut(usize, usize, i64)) -> bool {
    let first = times.iter().copied().min().unwrap_or(0);
    let last = times.iter().copied().max().unwrap_or(0);
    let span = last.wrapping_sub(first).cast_unsigned();
    let place_bits = usize::BITS - times.len().leading_zeros();
    if span.leading_zeros() < place_bits {
        return false;
    }
    let since_first = |time: i64| time.wrapping_sub(first).cast_unsigned();
    packed.clear();
    packed.extend(times.iter().enumerate().map(|(place, &time)| since_first(time) << place_bits | place as u64));
    packed.sort_unstable();
    for (at, &number) in packed.iter().enumerate() {
        let place = number & ((1 << place_bits) - 1);
        take(at, place as usize, first.wrapping_add((number >> place_bits).cast_signed()));
    }
    true
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
        let found = |range: Range<usize>| range.rev().find(|&place| values[place] <= limit);
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

    /// The twin of [`Timelines::new`]: each group on its own, sorted as the order says.
    fn plain_timelines(groups: &[u32], groups_count: usize, event_ts: &[i64], created_ts: &[i64]) -> Vec<Vec<u32>> {
        let of_group = |group: usize| {
            let mut rows: Vec<u32> =
                (0..groups.len() as u32).filter(|&row| groups[row as usize] as usize == group).collect();
            rows.sort_by_key(|&row| (event_ts[row as usize], created_ts[row as usize], row));
            rows
        };
        (0..groups_count).map(of_group).collect()
    }

    /// Small, tied, and so far apart that time and place do not fit into one number.
    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![8 => -5i64..5, 4 => -1_000_000i64..1_000_000, 1 => any::<i64>()]
    }

    proptest! {
        #[test]
        fn timelines_are_those_of_the_plain_way(
            rows in prop::collection::vec((0u32..12, time(), -3i64..3), 0..400),
            wide in any::<bool>(),
        ) {
            let groups: Vec<u32> = rows.iter().map(|row| if row.0 == 11 { NO_GROUP } else { row.0 }).collect();
            let event_ts: Vec<i64> = rows.iter().map(|row| if wide { row.1 } else { row.1 % 1_000 }).collect();
            let created_ts: Vec<i64> = rows.iter().map(|row| row.2).collect();
            let found = Timelines::new(&groups, 11, &event_ts, &created_ts, false);
            for (group, wanted) in plain_timelines(&groups, 11, &event_ts, &created_ts).into_iter().enumerate() {
                prop_assert_eq!(found.rows_of(group), &wanted);
                let times: Vec<i64> = wanted.iter().map(|&row| event_ts[row as usize]).collect();
                prop_assert_eq!(found.times_of(group), &times);
            }
        }

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

    #[test]
    fn timelines_of_many_buckets_are_those_of_the_plain_way() {
        let (rows, groups_count) = (5 * BUCKET_ROWS, 37);
        let mixed = |row: usize, salt: usize| (row * 2_654_435_761 + salt) >> 7;
        let groups: Vec<u32> = (0..rows).map(|row| (mixed(row, 1) % groups_count) as u32).collect();
        let event_ts: Vec<i64> = (0..rows).map(|row| (mixed(row, 2) % 50_000) as i64).collect();
        let created_ts: Vec<i64> = (0..rows).map(|row| (mixed(row, 3) % 7) as i64).collect();
        assert!(bucket_groups(groups_count, rows) < groups_count);
        let found = Timelines::new(&groups, groups_count, &event_ts, &created_ts, false);
        for (group, wanted) in plain_timelines(&groups, groups_count, &event_ts, &created_ts).iter().enumerate() {
            assert_eq!(found.rows_of(group), wanted);
        }
    }
}
