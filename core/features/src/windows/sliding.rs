//! A window that slides over sorted events, for any partial: what leaves it is never subtracted.
//!
//! Two stacks: the partials of suffixes of the older half, and one partial of the newer half. When the older half is used up, the newer
//! one becomes it. Each event is taken in twice at most. A window begins at a multiple of its hop, so a suffix is kept for each hop, not for
//! each event.

use headrace_types::RowVersion;

use super::definition::{Series, floor_to};
use super::events::Events;
use super::partial::Partial;

/// One key's events in their order: the row of each in `events`, and its version.
pub(crate) struct Timeline<'a> {
    pub(crate) events: &'a Events<'a>,
    pub(crate) rows: &'a [u32],
    pub(crate) versions: &'a dyn Fn(u32) -> RowVersion,
}

impl Timeline<'_> {
    pub(super) fn add(&self, series: &Series, at: usize, partial: &mut Partial) {
        let row = self.rows[at];
        if let Some(item) = self.events.item(series, row as usize) {
            partial.take(item, (self.versions)(row).into());
        }
    }
}

/// The partial of one series over `[start, end)` of a timeline; both only move on, and `start` is the first event of a hop or `end`.
pub(super) struct Sliding {
    hop_us: i64,
    middle: usize,
    end: usize,
    /// Of `[place, middle)` for the first place of each hop, the latest first.
    older: Vec<(usize, Partial)>,
    newer: Partial,
}

impl Sliding {
    pub(super) fn new(series: &Series, hop_us: i64) -> Self {
        Self { hop_us, middle: 0, end: 0, older: Vec::new(), newer: Partial::empty(series) }
    }

    /// Moves the bounds on, and gives the partial of what lies between.
    pub(super) fn slide(&mut self, series: &Series, timeline: &Timeline<'_>, start: usize, end: usize) -> Partial {
        // What would have left by now is never taken in.
        if start >= self.end {
            self.older.clear();
            (self.middle, self.end, self.newer) = (start, start, Partial::empty(series));
        }
        for at in self.end..end {
            timeline.add(series, at, &mut self.newer);
        }
        self.end = self.end.max(end);
        if start > self.middle {
            self.turn(series, timeline, start);
        } else {
            while self.older.last().is_some_and(|(place, _)| *place < start) {
                self.older.pop();
            }
        }
        let Some((_, older)) = self.older.last() else { return self.newer.clone() };
        let mut partial = older.clone();
        partial.merge(&self.newer);
        partial
    }

    /// The newer half becomes the older one.
    fn turn(&mut self, series: &Series, timeline: &Timeline<'_>, start: usize) {
        self.older.clear();
        let hop_of = |at: usize| floor_to((timeline.versions)(timeline.rows[at]).event_ts, self.hop_us);
        let mut suffix = Partial::empty(series);
        for at in (start..self.end).rev() {
            timeline.add(series, at, &mut suffix);
            if at == start || hop_of(at - 1) != hop_of(at) {
                self.older.push((at, suffix.clone()));
            }
        }
        self.middle = self.end;
        self.newer = Partial::empty(series);
    }
}
