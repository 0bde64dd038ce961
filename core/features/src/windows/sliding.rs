//! A window that slides over sorted events, for any partial: what leaves it is never subtracted.
//!
//! Two stacks: the partials of all suffixes of the older half, and one partial of the newer half. When the older half is used up, the newer
//! one becomes it. Each event is taken in twice at most.

use headrace_types::RowVersion;

use super::definition::Series;
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
        if let Some(value) = self.events.value(series, row as usize) {
            partial.add(value, (self.versions)(row).into());
        }
    }
}

/// The partial of one series over `[start, end)` of a timeline; both only move on.
pub(super) struct Sliding {
    middle: usize,
    end: usize,
    /// Of `[start + i, middle)`, the last first.
    older: Vec<Partial>,
    newer: Partial,
}

impl Sliding {
    pub(super) fn new(series: &Series) -> Self {
        Self { middle: 0, end: 0, older: Vec::new(), newer: Partial::empty(series.state) }
    }

    /// Moves the bounds on, and gives the partial of what lies between.
    pub(super) fn slide(&mut self, series: &Series, timeline: &Timeline<'_>, start: usize, end: usize) -> Partial {
        // What would have left by now is never taken in.
        if start >= self.end {
            *self = Self { middle: start, end: start, older: Vec::new(), newer: Partial::empty(series.state) };
        }
        for at in self.end..end {
            timeline.add(series, at, &mut self.newer);
        }
        self.end = self.end.max(end);
        if start > self.middle {
            self.turn(series, timeline, start);
        } else {
            self.older.truncate(self.middle - start);
        }
        let Some(older) = self.older.last() else { return self.newer.clone() };
        let mut partial = older.clone();
        partial.merge(&self.newer);
        partial
    }

    /// The newer half becomes the older one.
    fn turn(&mut self, series: &Series, timeline: &Timeline<'_>, start: usize) {
        self.older.clear();
        let mut suffix = Partial::empty(series.state);
        for at in (start..self.end).rev() {
            timeline.add(series, at, &mut suffix);
            self.older.push(suffix.clone());
        }
        self.middle = self.end;
        self.newer = Partial::empty(series.state);
    }
}
