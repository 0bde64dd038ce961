//! The aggregates of one key at some times, from all its events.

use headrace_types::{RowVersion, TimestampUs, Value};

use super::definition::{Extent, WindowPlan};
use super::partial::Partial;
use super::sliding::{Sliding, Timeline};

/// A time that is asked for, and the time by which an event must have been known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) at_us: TimestampUs,
    pub(crate) cutoff_us: Option<TimestampUs>,
}

/// One key's events, and which of them are tombstones.
pub(crate) struct History<'a> {
    pub(crate) timeline: Timeline<'a>,
    pub(crate) is_tombstone: &'a dyn Fn(u32) -> bool,
}

impl History<'_> {
    /// Answers questions in the order of their time. `answer` gets the number of the question and the features' values in the order of
    /// `features`; a key that is not known at the time gets none.
    pub(crate) fn answer(
        &self,
        plan: &WindowPlan,
        features: &[usize],
        questions: &[Question],
        mut answer: impl FnMut(usize, Option<&[Value]>),
    ) {
        let is_plain = questions.iter().all(|question| question.cutoff_us.is_none())
            && !self.timeline.rows.iter().any(|&row| (self.is_tombstone)(row));
        let mut values = Vec::with_capacity(features.len());
        if !is_plain {
            for (number, question) in questions.iter().enumerate() {
                let live = self.live(*question);
                self.rescan(plan, features, question.at_us, &live, &mut values);
                answer(number, (!live.is_empty()).then_some(&values));
            }
            return;
        }
        let mut windows: Vec<SlidingWindow> =
            features.iter().map(|&feature| SlidingWindow::new(plan, feature)).collect();
        let event_ts: Vec<TimestampUs> = self.timeline.rows.iter().map(|&row| self.version(row).event_ts).collect();
        for (number, question) in questions.iter().enumerate() {
            if event_ts.first().is_none_or(|&first| first >= question.at_us) {
                answer(number, None);
                continue;
            }
            values.clear();
            for window in &mut windows {
                values.push(window.value(plan, &self.timeline, &event_ts, question.at_us));
            }
            answer(number, Some(&values));
        }
    }

    fn version(&self, row: u32) -> RowVersion {
        (self.timeline.versions)(row)
    }

    /// The places of the events before a time that were known and are not deleted.
    fn live(&self, question: Question) -> Vec<usize> {
        let Question { at_us, cutoff_us } = question;
        let rows = self.timeline.rows;
        let is_known = |row| cutoff_us.is_none_or(|cutoff_us| self.version(row).created_ts <= cutoff_us);
        let tombstones: Vec<RowVersion> = rows
            .iter()
            .filter(|&&row| (self.is_tombstone)(row) && is_known(row))
            .map(|&row| self.version(row))
            .filter(|version| version.event_ts <= at_us)
            .collect();
        let deleted_us = tombstones.iter().map(|version| version.event_ts).max();
        let deleted_sequence = tombstones.iter().map(|version| version.sequence).max();
        let is_live = |row: u32| {
            let version = self.version(row);
            version.event_ts < at_us
                && !(self.is_tombstone)(row)
                && is_known(row)
                && deleted_us.is_none_or(|deleted_us| version.event_ts > deleted_us)
                && deleted_sequence.is_none_or(|sequence| version.sequence > sequence)
        };
        (0..rows.len()).filter(|&at| is_live(rows[at])).collect()
    }

    /// The plain way, where events are left out question by question.
    fn rescan(
        &self,
        plan: &WindowPlan,
        features: &[usize],
        at_us: TimestampUs,
        live: &[usize],
        values: &mut Vec<Value>,
    ) {
        values.clear();
        for &feature in features {
            let feature = &plan.features[feature];
            let series = &plan.series[feature.series];
            let (start, end) = plan.extents[feature.extent].interval(at_us);
            let mut partial = Partial::empty(series);
            for &place in live {
                let event_ts = self.version(self.timeline.rows[place]).event_ts;
                if start <= event_ts && event_ts < end {
                    self.timeline.add(series, place, &mut partial);
                }
            }
            values.push(partial.finish(feature.output, feature.scalar));
        }
    }
}

struct SlidingWindow {
    feature: usize,
    extent: Extent,
    sliding: Sliding,
    start: usize,
    end: usize,
}

impl SlidingWindow {
    fn new(plan: &WindowPlan, feature: usize) -> Self {
        let defined = &plan.features[feature];
        let extent = plan.extents[defined.extent];
        let sliding = Sliding::new(&plan.series[defined.series], extent.hop_us);
        Self { feature, extent, sliding, start: 0, end: 0 }
    }

    fn value(
        &mut self,
        plan: &WindowPlan,
        timeline: &Timeline<'_>,
        event_ts: &[TimestampUs],
        at_us: TimestampUs,
    ) -> Value {
        let (start_us, end_us) = self.extent.interval(at_us);
        self.start = advance(event_ts, self.start, start_us);
        self.end = advance(event_ts, self.end, end_us).max(self.start);
        let feature = &plan.features[self.feature];
        let partial = self.sliding.slide(&plan.series[feature.series], timeline, self.start, self.end);
        partial.finish(feature.output, feature.scalar)
    }
}

/// The first place from `from` on whose time is not before `limit`.
fn advance(event_ts: &[TimestampUs], from: usize, limit: TimestampUs) -> usize {
    let mut step = 1;
    let mut low = from;
    while low + step <= event_ts.len() && event_ts[low + step - 1] < limit {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(event_ts.len());
    low + event_ts[low..high].partition_point(|&time| time < limit)
}
