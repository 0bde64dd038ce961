//! The partials of windows over sorted events: what leaves a window is never subtracted.
//!
//! Where windows overlap much, one slides in two stacks: the partials of suffixes of the older half, and one partial of the newer half. When
//! the older half is used up, the newer one becomes it. Each event is taken in twice at most. A window begins at a multiple of its hop, so
//! a suffix is kept for each hop, not for each event. Where they overlap little, each window is scanned; floats without nulls are scanned so
//! fast that they may overlap more.

use headrace_types::{Result, TimestampUs};

use super::definition::{Series, floor_to};
use super::events::Events;
use super::partial::{Moment, Partial};

/// Windows are scanned one by one where they hold at most so many times the events that they hold together.
const SCANS_PER_EVENT: usize = 2;
/// The same of floats that lie side by side.
const FLOAT_SCANS_PER_EVENT: usize = 12;

/// One key's events in their order.
#[derive(Clone, Copy)]
pub(crate) struct Timeline<'a> {
    pub(crate) events: &'a Events<'a>,
    /// The row of each in `events`.
    pub(crate) rows: &'a [u32],
    pub(crate) event_ts: &'a [TimestampUs],
}

impl Timeline<'_> {
    /// Within one timeline a place orders as a version does.
    pub(super) fn add(&self, series: &Series, place: usize, partial: &mut Partial) {
        if let Some(item) = self.events.item(series, self.rows[place] as usize) {
            partial.take(item, Moment::of_place(place));
        }
    }
}

/// What a series looks at, in the order of the timeline.
pub(super) enum Values {
    /// Every event counts, and only that it is there.
    Events,
    /// Every event counts, with these floats of this column.
    Floats(usize, Vec<f64>),
    /// Asked for one by one.
    Any,
}

impl Values {
    /// `before` are those of another series, which may look at the same.
    pub(super) fn new(timeline: &Timeline<'_>, series: &Series, before: Self) -> Self {
        if timeline.events.counts_all(series) {
            return Values::Events;
        }
        match (timeline.events.all_floats(series), before) {
            (Some((column, _)), Values::Floats(known, values)) if known == column => Values::Floats(known, values),
            (Some((column, floats)), _) => {
                Values::Floats(column, timeline.rows.iter().map(|&row| floats[row as usize]).collect())
            }
            (None, _) => Values::Any,
        }
    }
}

/// The partials of one series over windows of a timeline.
pub(super) struct Sliding<'a> {
    series: &'a Series,
    timeline: &'a Timeline<'a>,
    values: &'a Values,
    hop_us: i64,
    middle: usize,
    end: usize,
    /// Of `[place, middle)` for the first place of each hop, the latest first.
    older: Vec<(usize, Partial)>,
    newer: Partial,
}

impl<'a> Sliding<'a> {
    pub(super) fn new(series: &'a Series, timeline: &'a Timeline<'a>, values: &'a Values, hop_us: i64) -> Self {
        let newer = Partial::empty(series);
        Self { series, timeline, values, hop_us, middle: 0, end: 0, older: Vec::new(), newer }
    }

    /// Calls `take` with the partial of each window `[start, end)`. A start is the first event of a hop, or `end`.
    pub(super) fn each(
        &mut self,
        windows: &[(usize, usize)],
        mut take: impl FnMut(&Partial) -> Result<()>,
    ) -> Result<()> {
        let scanned: usize = windows.iter().map(|(start, end)| end - start).sum();
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Ok(()) };
        let together = last.1.saturating_sub(first.0);
        let is_cheap = match self.values {
            Values::Events => true,
            Values::Floats(..) if self.series.state.takes_runs() => scanned <= FLOAT_SCANS_PER_EVENT * together,
            _ => scanned <= SCANS_PER_EVENT * together,
        };
        let is_moving_on = || windows.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1);
        if is_cheap || !is_moving_on() {
            let mut partial = Partial::empty(self.series);
            for &(start, end) in windows {
                partial.clear();
                self.scan(start, end, &mut partial);
                take(&partial)?;
            }
            return Ok(());
        }
        for &(start, end) in windows {
            self.slide(start, end);
            match self.older.last() {
                None => take(&self.newer)?,
                Some((_, older)) => {
                    let mut partial = older.clone();
                    partial.merge(&self.newer);
                    take(&partial)?;
                }
            }
        }
        Ok(())
    }

    fn scan(&self, start: usize, end: usize, partial: &mut Partial) {
        match self.values {
            Values::Events => partial.add_count((end - start) as u64),
            Values::Floats(_, values) => partial.add_floats(&values[start..end], start),
            Values::Any => (start..end).for_each(|place| self.timeline.add(self.series, place, partial)),
        }
    }

    /// Moves the bounds on.
    fn slide(&mut self, start: usize, end: usize) {
        // What would have left by now is never taken in.
        if start >= self.end {
            self.older.clear();
            (self.middle, self.end, self.newer) = (start, start, Partial::empty(self.series));
        }
        let mut newer = std::mem::replace(&mut self.newer, Partial::Count(0));
        self.scan(self.end, end.max(self.end), &mut newer);
        self.newer = newer;
        self.end = self.end.max(end);
        if start > self.middle {
            self.turn(start);
        } else {
            while self.older.last().is_some_and(|(place, _)| *place < start) {
                self.older.pop();
            }
        }
    }

    /// The newer half becomes the older one.
    fn turn(&mut self, start: usize) {
        self.older.clear();
        let event_ts = self.timeline.event_ts;
        let mut hop_start_us = i64::MAX;
        let mut suffix = Partial::empty(self.series);
        let mut end = self.end;
        for place in (start..self.end).rev() {
            if event_ts[place] < hop_start_us {
                hop_start_us = floor_to(event_ts[place], self.hop_us);
            }
            if place == start || event_ts[place - 1] < hop_start_us {
                self.scan(place, end, &mut suffix);
                self.older.push((place, suffix.clone()));
                end = place;
            }
        }
        self.middle = self.end;
        self.newer = Partial::empty(self.series);
    }
}
