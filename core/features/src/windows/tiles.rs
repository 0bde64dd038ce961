//! The tiles of one length of one key.

use std::collections::VecDeque;

use headrace_types::{RowVersion, TimestampUs};
use serde::{Deserialize, Serialize, Serializer};

use super::columns::Column;
use super::definition::{Tiling, WindowPlan, floor_to};
use super::partial::{Item, Partial};

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

/// Tiles by time. Almost every event belongs to the newest, which is kept in one piece to be added to; the others lie in columns to be merged
/// by windows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tiles {
    newest: Option<Tile>,
    /// Where the older ones start, all before the newest.
    starts: VecDeque<TimestampUs>,
    /// The partials of the older ones, a column for each series of the tiling.
    columns: Vec<Column>,
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
                let at = self.older(plan, tiling, start_us);
                let before = self.grown_at(tiling, at);
                for (column, item) in self.columns.iter_mut().zip(series) {
                    crowded_out += item.map_or(0, |item| u64::from(!column.take(at, item, version.into())));
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
                self.make_columns(plan, tiling);
                let at = self.starts.len();
                self.starts.push_back(start_us);
                for ((column, partial), series) in self.columns.iter_mut().zip(&mut partials).zip(&tiling.series) {
                    column.insert(at, std::mem::replace(partial, empty(series)));
                }
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

    /// The place of an older tile, made if need be.
    fn older(&mut self, plan: &WindowPlan, tiling: &Tiling, start_us: TimestampUs) -> usize {
        let at = self.starts.partition_point(|&start| start < start_us);
        if self.starts.get(at) != Some(&start_us) {
            self.make_columns(plan, tiling);
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
        }
        if let Some(tile) = self.newest.take_if(|tile| is_over(tile.start_us, tiling, now_us)) {
            self.grown_bytes = self.grown_bytes.saturating_sub(tile.grown_bytes());
        }
    }

    /// Merges the partials of a series in the tiles that start in an interval; `place` is the place of the series in the tiling.
    pub(super) fn merge_into(
        &self,
        place: usize,
        (start_us, end_us): (TimestampUs, TimestampUs),
        partial: &mut Partial,
    ) {
        let first = self.starts.partition_point(|&start| start < start_us);
        // Most windows end behind all older tiles.
        let end = match self.starts.back() {
            Some(&last) if last >= end_us => self.starts.partition_point(|&start| start < end_us),
            _ => self.starts.len(),
        };
        if first < end {
            self.columns[place].merge_into(first..end, partial);
        }
        if let Some(tile) = self.newest.as_ref().filter(|tile| (start_us..end_us).contains(&tile.start_us)) {
            partial.merge(&tile.partials[place]);
        }
    }

    /// About how many bytes the tiles take beside this structure.
    pub(super) fn heap_bytes(&self, tiling: &Tiling) -> usize {
        let newest = self.newest.as_ref().map_or(0, |_| tiling.partials_bytes);
        newest + self.columns.len() * size_of::<Column>() + self.starts.len() * tiling.older_bytes + self.grown_bytes
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
