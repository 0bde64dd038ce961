//! What is kept online of one key: partials of its events in tiles, and the events that lie in the future.

use headrace_types::{RowVersion, TimestampUs, Value};
use serde::{Deserialize, Serialize};

use super::definition::WindowPlan;
use super::events::Events;
use super::partial::{Item, Kept, Partial};
use super::remembered::{Remembered, bytes_of};
use super::tiles::{Tile, Tiles};

/// An event, or a tombstone, of a time that has not come: it must not count before, and a tile does not tell its events apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    event_ts: TimestampUs,
    created_ts: TimestampUs,
    sequence: u64,
    is_tombstone: bool,
    /// For each series, its value, if it counts.
    values: Box<[Option<Kept>]>,
}

impl Pending {
    fn version(&self) -> RowVersion {
        RowVersion { event_ts: self.event_ts, created_ts: self.created_ts, sequence: self.sequence }
    }

    /// What a tombstone takes away: events that arrived before it or happened up to its time, and no other tombstone.
    fn takes_away(&self, other: &Pending) -> bool {
        !other.is_tombstone && (other.sequence < self.sequence || other.event_ts <= self.event_ts)
    }
}

/// One key.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct KeyState {
    /// The first event that counts, in a window or not; the key is known after it.
    first_event_ts: Option<TimestampUs>,
    /// Events up to here have been deleted, those to come too.
    deleted_us: Option<TimestampUs>,
    /// For each tiling, its tiles.
    tilings: Vec<Tiles>,
    pending: Vec<Pending>,
    #[serde(skip)]
    remembered: Remembered,
    /// Events whose group was not kept, or took the place of another, since it was asked last.
    #[serde(skip)]
    crowded_out: u64,
}

/// One key as it is read from a file: what [`KeyState`] writes.
#[derive(Debug, Deserialize)]
pub(super) struct SavedKey {
    first_event_ts: Option<TimestampUs>,
    deleted_us: Option<TimestampUs>,
    tilings: Vec<Vec<Tile>>,
    pending: Vec<Pending>,
}

/// One event as it comes in.
pub(super) struct Arrival<'a> {
    pub(super) events: &'a Events<'a>,
    pub(super) row: usize,
    pub(super) version: RowVersion,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Counted,
    /// Older than every window, or deleted before it came.
    Late,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    /// Whether the key is known then, and has its values.
    pub(super) is_known: bool,
    /// What the key takes more from now on.
    pub(super) remembered_bytes: usize,
}

impl KeyState {
    /// Takes in an event. `now_us` is the time of the ingest; times before it are over.
    pub(super) fn add(&mut self, plan: &WindowPlan, arrival: &Arrival<'_>, now_us: TimestampUs) -> Taken {
        self.settle(plan, now_us);
        let version = arrival.version;
        if self.deleted_us.is_some_and(|deleted_us| version.event_ts <= deleted_us) {
            return Taken::Late;
        }
        let item = |series: usize| arrival.events.item(&plan.series[series], arrival.row);
        if version.event_ts >= now_us {
            let values = (0..plan.series.len()).map(|series| item(series).map(|item| item.keep())).collect();
            self.push_pending(version, false, values);
            return Taken::Counted;
        }
        if self.count(plan, version, now_us, item) { Taken::Counted } else { Taken::Late }
    }

    /// Puts an event into the tiles of its time; false when all of them are over.
    fn count<'a>(
        &mut self,
        plan: &WindowPlan,
        version: RowVersion,
        now_us: TimestampUs,
        item: impl Fn(usize) -> Option<Item<'a>>,
    ) -> bool {
        let event_ts = version.event_ts;
        self.first_event_ts = Some(self.first_event_ts.map_or(event_ts, |first| first.min(event_ts)));
        self.tilings.resize_with(plan.tilings.len(), Tiles::default);
        let mut is_counted = false;
        for (tiles, tiling) in self.tilings.iter_mut().zip(&plan.tilings) {
            if let Some(crowded_out) = tiles.add(plan, tiling, version, now_us, &item) {
                self.crowded_out += crowded_out;
                is_counted = true;
            }
        }
        is_counted
    }

    /// Takes in a tombstone: what has arrived before it goes, and what happened up to its time, whenever it arrives.
    pub(super) fn delete(&mut self, plan: &WindowPlan, version: RowVersion, now_us: TimestampUs) {
        self.settle(plan, now_us);
        if version.event_ts > now_us {
            self.push_pending(version, true, Box::default());
        } else {
            self.clear(version.event_ts);
        }
    }

    fn clear(&mut self, deleted_us: TimestampUs) {
        self.deleted_us = self.deleted_us.max(Some(deleted_us));
        self.first_event_ts = None;
        self.tilings.clear();
        self.remembered = Remembered::default();
        // A tombstone of a time to come takes away what happens up to it, whatever has been deleted before.
        self.pending.retain(|pending| pending.is_tombstone);
    }

    fn push_pending(&mut self, version: RowVersion, is_tombstone: bool, values: Box<[Option<Kept>]>) {
        let RowVersion { event_ts, created_ts, sequence } = version;
        self.pending.push(Pending { event_ts, created_ts, sequence, is_tombstone, values });
    }

    /// Moves what is no longer in the future to the tiles.
    fn settle(&mut self, plan: &WindowPlan, now_us: TimestampUs) {
        if self.pending.iter().all(|pending| pending.event_ts >= now_us) {
            return;
        }
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.event_ts < now_us);
        self.pending = later;
        due.sort_by_key(|pending| pending.sequence);
        for pending in due {
            if pending.is_tombstone {
                let later = std::mem::take(&mut self.pending);
                self.clear(pending.event_ts);
                self.pending = later.into_iter().filter(|other| !pending.takes_away(other)).collect();
            } else if self.deleted_us.is_none_or(|deleted_us| pending.event_ts > deleted_us) {
                self.count(plan, pending.version(), now_us, |series| {
                    pending.values[series].as_ref().map(Kept::lend_item)
                });
            }
        }
    }

    /// The values of some features at a time, unless the key is not known then. Times before that of the last ingest are answered as far as
    /// tiles tell.
    pub(super) fn read(
        &self,
        plan: &WindowPlan,
        features: impl Iterator<Item = usize>,
        at_us: TimestampUs,
        mut value: impl FnMut(usize, Value),
    ) -> Answered {
        let graves = || self.pending.iter().filter(|pending| pending.is_tombstone && pending.event_ts <= at_us);
        let is_deleted = graves().next().is_some();
        let pending = || {
            self.pending.iter().filter(|pending| {
                !pending.is_tombstone && pending.event_ts < at_us && !graves().any(|grave| grave.takes_away(pending))
            })
        };
        let is_known = !is_deleted && self.first_event_ts.is_some_and(|first| first < at_us);
        if !is_known && pending().next().is_none() {
            return Answered { is_known: false, remembered_bytes: 0 };
        }
        let mut remembered = if self.tilings.iter().any(Tiles::is_long) { self.remembered.try_lock() } else { None };
        let mut remembered_bytes = 0;
        if let Some(remembered) = remembered.as_mut().filter(|remembered| remembered.is_empty()) {
            remembered.resize_with(plan.features.len(), || None);
            remembered_bytes = bytes_of(remembered);
        }
        for (position, number) in features.enumerate() {
            let feature = &plan.features[number];
            let (start_us, end_us) = plan.extents[feature.extent].interval(at_us);
            let mut partial = Partial::empty(&plan.series[feature.series]);
            if let Some(tiles) = self.tilings.get(feature.tiling).filter(|_| !is_deleted) {
                let tiling = &plan.tilings[feature.tiling];
                let remembered = remembered.as_mut().map(|remembered| &mut remembered[number]);
                tiles.merge_into(tiling, feature.place, (start_us, end_us), remembered, &mut partial);
            }
            for pending in pending().filter(|pending| start_us <= pending.event_ts && pending.event_ts < end_us) {
                if let Some(kept) = &pending.values[feature.series] {
                    partial.take(kept.lend_item(), pending.version().into());
                }
            }
            value(position, partial.finish(feature.output, feature.scalar));
        }
        Answered { is_known: true, remembered_bytes }
    }

    /// Lets go of the tiles that are over.
    pub(super) fn prune(&mut self, plan: &WindowPlan, now_us: TimestampUs) {
        for (tiles, tiling) in self.tilings.iter_mut().zip(&plan.tilings) {
            tiles.prune(tiling, now_us);
        }
    }

    /// Events whose group was not kept, or took the place of another, since the last call.
    pub(super) fn take_crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.crowded_out)
    }

    /// About how many bytes the key takes beside this structure.
    pub(super) fn heap_bytes(&mut self, plan: &WindowPlan) -> usize {
        let tiles: usize = self.tilings.iter().zip(&plan.tilings).map(|(tiles, tiling)| tiles.heap_bytes(tiling)).sum();
        let pending_bytes = size_of::<Pending>() + plan.series.len() * size_of::<Option<Kept>>();
        let remembered = self.remembered.heap_bytes();
        tiles + remembered + self.tilings.len() * size_of::<Tiles>() + self.pending.len() * pending_bytes
    }
}

impl SavedKey {
    /// The key's state; none unless the plan can have made it.
    pub(super) fn restore(self, plan: &WindowPlan) -> Option<KeyState> {
        let Self { first_event_ts, deleted_us, tilings, pending } = self;
        let has_tilings = tilings.is_empty() || tilings.len() == plan.tilings.len();
        let has_values = pending.iter().all(|one| one.is_tombstone || one.values.len() == plan.series.len());
        if !has_tilings || !has_values {
            return None;
        }
        let tiles = tilings.into_iter().zip(&plan.tilings);
        let tilings = tiles.map(|(saved, tiling)| Tiles::from_saved(plan, tiling, saved)).collect::<Option<_>>()?;
        Some(KeyState { first_event_ts, deleted_us, tilings, pending, ..KeyState::default() })
    }
}
