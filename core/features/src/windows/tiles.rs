//! The tiles of one length of one key.

use std::collections::VecDeque;
use std::ops::Range;

use headrace_types::{RowVersion, TimestampUs};
use serde::{Deserialize, Serialize, Serializer};

use super::columns::Column;
use super::definition::{Tiling, WindowPlan, floor_to};
use super::partial::{Item, Partial};
use super::remembered::Found;

/// The partials of the events of a key in `[start_us, start_us + hop)`, one for each series of the tiling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tile {
    start_us: TimestampUs,
    partials: Box<[Partial]>,
}

impl Tile {
    fn grown_bytes(&self) -> usize {
        self.partials.iter().map(Partial::grown_bytes).sum()
    }
}

/// So many older tiles make a block, which is merged once for all windows that hold the whole of it.
const BLOCK: usize = 16;

/// What was found in so many tiles is worth remembering.
const REMEMBERED_FROM: usize = 8;

/// Tiles by time. Almost every event belongs to the newest, which is kept in one piece to be added to; the others lie in columns to be merged
/// by windows.
///
/// Block `b` is of the older tiles from `b * BLOCK - left` on; of the first one, `left` tiles have been let go, so no window holds the whole
/// of it. The blocks are those of the first tiles, without a gap; what has no block yet, or will have none, is merged tile by tile.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tiles {
    newest: Option<Tile>,
    /// Where the older ones start, all before the newest.
    starts: VecDeque<TimestampUs>,
    /// The partials of the older ones, a column for each series of the tiling.
    columns: Vec<Column>,
    /// The partials of the blocks, a column for each series; of tilings that do not grow.
    blocks: Vec<Column>,
    blocks_count: usize,
    left: usize,
    /// Rises with every change of the older tiles.
    version: u64,
    /// What the partials take that depends on what they have seen.
    grown_bytes: usize,
}

impl Tiles {
    /// Adds an event to the tile of its time, made if need be: how many of its values are of a group that is not kept, or has taken the
    /// place of another. None when the tile is over.
    pub(super) fn add<'a>(
        &mut self,
        plan: &WindowPlan,
        tiling: &Tiling,
        version: RowVersion,
        now_us: TimestampUs,
        item: &impl Fn(usize) -> Option<Item<'a>>,
    ) -> Option<u64> {
        let start_us = floor_to(version.event_ts, tiling.hop_us);
        if is_over(start_us, tiling, now_us) {
            return None;
        }
        if self.newest.as_ref().is_none_or(|tile| tile.start_us < start_us) {
            self.open(plan, tiling, start_us, now_us);
        }
        let mut crowded_out = 0;
        let series = tiling.series.iter().map(|&series| item(series));
        match &mut self.newest {
            Some(tile) if tile.start_us == start_us => {
                let before = if tiling.grows { tile.grown_bytes() } else { 0 };
                for (partial, item) in tile.partials.iter_mut().zip(series) {
                    crowded_out += item.map_or(0, |item| u64::from(!partial.take(item, version.into())));
                }
                let after = if tiling.grows { tile.grown_bytes() } else { 0 };
                self.grown_bytes = (self.grown_bytes + after).saturating_sub(before);
            }
            _ => {
                self.version += 1;
                let at = self.older(plan, tiling, start_us);
                let before = self.grown_at(tiling, at);
                let block = (at + self.left) / BLOCK;
                let is_in_block = block < self.blocks_count;
                for (place, item) in series.enumerate() {
                    let Some(item) = item else { continue };
                    crowded_out += u64::from(!self.columns[place].take(at, item, version.into()));
                    if is_in_block {
                        self.blocks[place].take(block, item, version.into());
                    }
                }
                self.grown_bytes = (self.grown_bytes + self.grown_at(tiling, at)).saturating_sub(before);
            }
        }
        Some(crowded_out)
    }

    /// Makes a tile after all others.
    fn open(&mut self, plan: &WindowPlan, tiling: &Tiling, start_us: TimestampUs, now_us: TimestampUs) {
        let empty = |&series: &usize| Partial::empty(&plan.series[series]);
        let partials = match self.newest.take() {
            None => tiling.series.iter().map(empty).collect(),
            Some(Tile { start_us, mut partials }) => {
                self.version += 1;
                self.make_columns(plan, tiling);
                let at = self.starts.len();
                self.starts.push_back(start_us);
                for ((column, partial), series) in self.columns.iter_mut().zip(&mut partials).zip(&tiling.series) {
                    column.insert(at, std::mem::replace(partial, empty(series)));
                }
                self.make_blocks(plan, tiling);
                partials
            }
        };
        self.newest = Some(Tile { start_us, partials });
        self.prune(tiling, now_us);
    }

    fn make_columns(&mut self, plan: &WindowPlan, tiling: &Tiling) {
        if self.columns.is_empty() {
            self.columns = tiling.series.iter().map(|&series| Column::new(&plan.series[series])).collect();
        }
    }

    /// Makes the blocks that are complete.
    fn make_blocks(&mut self, plan: &WindowPlan, tiling: &Tiling) {
        let complete = (self.starts.len() + self.left) / BLOCK;
        if self.blocks_count == complete || tiling.grows {
            return;
        }
        let series = || tiling.series.iter().map(|&series| &plan.series[series]);
        if self.blocks.is_empty() {
            self.blocks = series().map(Column::new).collect();
        }
        for block in self.blocks_count..complete {
            let tiles = (block * BLOCK).saturating_sub(self.left)..(block + 1) * BLOCK - self.left;
            for ((blocks, column), series) in self.blocks.iter_mut().zip(&self.columns).zip(series()) {
                let mut partial = Partial::empty(series);
                column.merge_into(tiles.clone(), &mut partial);
                blocks.insert(block, partial);
            }
        }
        self.blocks_count = complete;
    }

    /// Forgets the blocks from one on.
    fn truncate_blocks(&mut self, count: usize) {
        if count < self.blocks_count {
            self.blocks.iter_mut().for_each(|blocks| blocks.truncate(count));
            self.blocks_count = count;
        }
    }

    /// The place of an older tile, made if need be.
    fn older(&mut self, plan: &WindowPlan, tiling: &Tiling, start_us: TimestampUs) -> usize {
        let at = self.starts.partition_point(|&start| start < start_us);
        if self.starts.get(at) != Some(&start_us) {
            self.make_columns(plan, tiling);
            self.truncate_blocks((at + self.left) / BLOCK);
            self.starts.insert(at, start_us);
            for (column, &series) in self.columns.iter_mut().zip(&tiling.series) {
                column.insert(at, Partial::empty(&plan.series[series]));
            }
        }
        at
    }

    fn grown_at(&self, tiling: &Tiling, at: usize) -> usize {
        if tiling.grows { self.columns.iter().map(|column| column.grown_bytes(at)).sum() } else { 0 }
    }

    /// Lets go of the tiles that no window reaches any more.
    pub(super) fn prune(&mut self, tiling: &Tiling, now_us: TimestampUs) {
        while self.starts.front().is_some_and(|&start_us| is_over(start_us, tiling, now_us)) {
            self.grown_bytes = self.grown_bytes.saturating_sub(self.grown_at(tiling, 0));
            self.starts.pop_front();
            self.columns.iter_mut().for_each(Column::pop_front);
            self.leave_one();
        }
        if let Some(tile) = self.newest.take_if(|tile| is_over(tile.start_us, tiling, now_us)) {
            self.grown_bytes = self.grown_bytes.saturating_sub(tile.grown_bytes());
        }
    }

    /// Notes that the first of the older tiles has gone.
    fn leave_one(&mut self) {
        self.version += 1;
        self.left += 1;
        if self.left == BLOCK {
            self.left = 0;
            if self.blocks_count > 0 {
                self.blocks.iter_mut().for_each(Column::pop_front);
                self.blocks_count -= 1;
            }
        }
    }

    /// Merges the partials of a series in the tiles that start in an interval into an empty one; `place` is the place of the series in the
    /// tiling. What it finds in the older tiles may be taken from `remembered`, or put there.
    pub(super) fn merge_into(
        &self,
        tiling: &Tiling,
        place: usize,
        (start_us, end_us): (TimestampUs, TimestampUs),
        remembered: Option<&mut Option<Found>>,
        partial: &mut Partial,
    ) {
        let newest = self.newest.as_ref().filter(|tile| tile.start_us < end_us);
        // A window that reaches the newest tile holds all older ones from its start on.
        match remembered.filter(|_| newest.is_some() && !tiling.grows) {
            Some(Some(found)) if found.start_us == start_us && found.version == self.version => {
                partial.clone_from(&found.partial);
            }
            remembered => {
                let first = self.first_from(tiling.hop_us, start_us);
                let end = match newest {
                    Some(_) => self.starts.len(),
                    None => self.starts.partition_point(|&start| start < end_us),
                };
                if first < end {
                    self.merge_older(place, first..end, partial);
                }
                if let Some(remembered) = remembered.filter(|_| end.saturating_sub(first) >= REMEMBERED_FROM) {
                    *remembered = Some(Found { start_us, version: self.version, partial: partial.clone() });
                }
            }
        }
        if let Some(tile) = newest.filter(|tile| start_us <= tile.start_us) {
            partial.merge(&tile.partials[place]);
        }
    }

    /// The first older tile that does not start before a time. Without gaps it is so many hops from the last one; with gaps it is behind that.
    fn first_from(&self, hop_us: i64, start_us: TimestampUs) -> usize {
        let count = self.starts.len();
        let Some(&last_us) = self.starts.back() else { return 0 };
        let tiles = last_us.saturating_sub(start_us).max(-1).div_euclid(hop_us) + 1;
        let mut first = count.saturating_sub(usize::try_from(tiles).unwrap_or(usize::MAX));
        let mut step = 1;
        while first + step <= count && self.starts[first + step - 1] < start_us {
            first += step;
            step *= 2;
        }
        // The next step would go too far; the one that is looked for is within it.
        while step > 1 {
            step /= 2;
            if first + step <= count && self.starts[first + step - 1] < start_us {
                first += step;
            }
        }
        first
    }

    /// Merges blocks where they fit in, and tiles before and behind.
    fn merge_older(&self, place: usize, tiles: Range<usize>, partial: &mut Partial) {
        let column = &self.columns[place];
        let first_block = (tiles.start + self.left).div_ceil(BLOCK);
        let end_block = ((tiles.end + self.left) / BLOCK).min(self.blocks_count);
        if first_block >= end_block {
            return column.merge_into(tiles, partial);
        }
        column.merge_into(tiles.start..first_block * BLOCK - self.left, partial);
        self.blocks[place].merge_into(first_block..end_block, partial);
        column.merge_into(end_block * BLOCK - self.left..tiles.end, partial);
    }

    /// About how many bytes the tiles take beside this structure.
    pub(super) fn heap_bytes(&self, tiling: &Tiling) -> usize {
        let newest = self.newest.as_ref().map_or(0, |_| tiling.partials_bytes);
        let count = self.starts.len() + if tiling.grows { 0 } else { self.starts.len() / BLOCK };
        newest + 2 * self.columns.len() * size_of::<Column>() + count * tiling.older_bytes + self.grown_bytes
    }

    /// Whether something of a window can be worth remembering.
    pub(super) fn is_long(&self) -> bool {
        self.starts.len() >= REMEMBERED_FROM
    }

    fn tile(&self, at: usize) -> Tile {
        Tile { start_us: self.starts[at], partials: self.columns.iter().map(|column| column.get(at)).collect() }
    }

    /// From what was read from a file; none unless the plan can have made it.
    pub(super) fn from_saved(plan: &WindowPlan, tiling: &Tiling, saved: Vec<Tile>) -> Option<Self> {
        let mut this = Self::default();
        for mut tile in saved {
            let partials = &mut tile.partials;
            let is_of_plan = partials.len() == tiling.series.len()
                && tile.start_us.rem_euclid(tiling.hop_us) == 0
                && partials.iter().zip(&tiling.series).all(|(partial, &at)| partial.is_of(&plan.series[at]));
            let is_next = this.newest.as_ref().is_none_or(|newest| newest.start_us < tile.start_us);
            if !is_of_plan || !is_next {
                return None;
            }
            partials.iter_mut().for_each(Partial::measure);
            this.grown_bytes += tile.grown_bytes();
            this.open(plan, tiling, tile.start_us, i64::MIN);
            this.newest = Some(tile);
        }
        Some(this)
    }
}

/// As a list of tiles.
impl Serialize for Tiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.starts.len()).map(|at| self.tile(at)).chain(self.newest.clone()))
    }
}

fn is_over(start_us: TimestampUs, tiling: &Tiling, now_us: TimestampUs) -> bool {
    start_us.saturating_add(tiling.hop_us) <= now_us.saturating_sub(tiling.reach_us)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::partial::Scalar;
    use super::*;
    use headrace_types::{DType, Field};
    use proptest::prelude::*;
    use serde_json::json;

    const HOP_US: i64 = 10;
    const HOPS: i64 = 100;

    fn plan(functions: &[&str]) -> WindowPlan {
        let aggregation = |function: &&str| {
            let is_last_k = *function == "last_k";
            json!({
                "name": *function, "column": "amount", "function": *function, "window_us": HOPS * HOP_US, "hop_us": HOP_US,
                "k": if is_last_k { Some(3) } else { None },
            })
        };
        let aggregations: Vec<_> = functions.iter().map(aggregation).collect();
        WindowPlan::compile(vec![Field::new("amount", DType::FLOAT64)], &aggregations).unwrap().0
    }

    /// The twin of [`Tiles::merge_into`]: each tile on its own, and no blocks.
    fn plain_merge(tiles: &Tiles, place: usize, (start_us, end_us): (i64, i64), partial: &mut Partial) {
        let all = (0..tiles.starts.len()).map(|at| tiles.tile(at)).chain(tiles.newest.clone());
        for tile in all.filter(|tile| (start_us..end_us).contains(&tile.start_us)) {
            partial.merge(&tile.partials[place]);
        }
    }

    proptest! {
        /// Events come mostly in order, some late; time goes on, so that tiles are let go; the state passes through a file.
        #[test]
        fn windows_are_those_of_the_plain_way(
            steps in prop::collection::vec((0i64..25, prop::option::weighted(0.2, 0i64..900), -9i64..9), 1..400),
            asked in prop::collection::vec((0i64..1_500, 0i64..1_500), 1..20),
            grows in any::<bool>(),
            reopened_at in 0usize..400,
        ) {
            let functions = ["count", "sum", "var", "min", "max", "first", "last_k"];
            let more: &[&str] = if grows { &["count_distinct"] } else { &[] };
            let plan = plan(&[&functions, more].concat());
            let tiling = &plan.tilings[0];
            let (mut tiles, mut now_us) = (Tiles::default(), 0);
            let mut remembered: Vec<Option<Found>> = tiling.series.iter().map(|_| None).collect();
            for (sequence, (passed, late, amount)) in steps.into_iter().enumerate() {
                now_us += passed;
                let event_ts = now_us - 1 - late.unwrap_or(0);
                let version = RowVersion { event_ts, created_ts: now_us, sequence: sequence as u64 };
                let item = |_: usize| Some(Item { value: Scalar::Float(amount as f64), group: None });
                tiles.add(&plan, tiling, version, now_us, &item);
                // The same window again and again, while events come in.
                let bounds = ((now_us - 300).div_euclid(HOP_US) * HOP_US, now_us);
                for (place, (&series, remembered)) in tiling.series.iter().zip(&mut remembered).enumerate() {
                    let (mut found, mut wanted) = (Partial::empty(&plan.series[series]), Partial::empty(&plan.series[series]));
                    tiles.merge_into(tiling, place, bounds, Some(remembered), &mut found);
                    plain_merge(&tiles, place, bounds, &mut wanted);
                    prop_assert_eq!(found, wanted);
                }
                if sequence == reopened_at {
                    remembered.fill_with(|| None);
                    let saved = postcard::from_bytes(&postcard::to_stdvec(&tiles).unwrap()).unwrap();
                    tiles = Tiles::from_saved(&plan, tiling, saved).unwrap();
                }
            }
            for (back_us, length_us) in asked {
                let from = (now_us - back_us).div_euclid(HOP_US) * HOP_US;
                prop_assert_eq!(tiles.first_from(HOP_US, from), tiles.starts.partition_point(|&start| start < from));
                let bounds = (now_us - back_us - length_us, now_us - back_us);
                for (place, &series) in tiling.series.iter().enumerate() {
                    let (mut found, mut wanted) = (Partial::empty(&plan.series[series]), Partial::empty(&plan.series[series]));
                    tiles.merge_into(tiling, place, bounds, None, &mut found);
                    plain_merge(&tiles, place, bounds, &mut wanted);
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
