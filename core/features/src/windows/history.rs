//! The aggregates of one key at some times, from all its events.

use headrace_types::{Column, ColumnData, DType, Result, RowVersion, TimestampUs, Value};

use super::definition::{Extent, WindowPlan};
use super::partial::Partial;
use super::sliding::{Sliding, Timeline, Values};

/// A time that is asked for, and the time by which an event must have been known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) at_us: TimestampUs,
    pub(crate) cutoff_us: Option<TimestampUs>,
}

/// The values of a feature, as they are found.
#[derive(Debug)]
pub(crate) struct Answers(Column);

impl Answers {
    pub(crate) fn with_capacity(dtype: DType, rows: usize) -> Self {
        Self(Column::new(ColumnData::with_capacity(dtype, rows)))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        match (&mut self.0, value) {
            (Column { data: ColumnData::Float64(values), validity: None }, Value::Float64(value)) => values.push(value),
            (Column { data: ColumnData::Int64(values), validity: None }, Value::Int(value)) => values.push(value),
            (column, value) => column.push(value)?,
        }
        Ok(())
    }

    pub(crate) fn into_column(self) -> Column {
        self.0
    }
}

/// The features that are asked for, by what they are made of.
pub(crate) struct Reading<'a> {
    plan: &'a WindowPlan,
    /// Each window once.
    extents: Vec<usize>,
    /// Each series once.
    series: Vec<SeriesReading>,
    features: &'a [usize],
}

struct SeriesReading {
    series: usize,
    windows: Vec<WindowReading>,
}

struct WindowReading {
    /// The place in `extents`.
    extent: usize,
    /// The features that are made of it, by their place in the answer.
    features: Vec<usize>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(plan: &'a WindowPlan, features: &'a [usize]) -> Self {
        let mut this = Self { plan, extents: Vec::new(), series: Vec::new(), features };
        for (place, &feature) in features.iter().enumerate() {
            let feature = &plan.features[feature];
            let extent = find_or_push(&mut this.extents, |&known| known == feature.extent, || feature.extent);
            let make = || SeriesReading { series: feature.series, windows: Vec::new() };
            let series = find_or_push(&mut this.series, |known| known.series == feature.series, make);
            let windows = &mut this.series[series].windows;
            let make = || WindowReading { extent, features: Vec::new() };
            let window = find_or_push(windows, |known| known.extent == extent, make);
            windows[window].features.push(place);
        }
        this
    }
}

fn find_or_push<T>(items: &mut Vec<T>, is_it: impl FnMut(&T) -> bool, make: impl FnOnce() -> T) -> usize {
    items.iter().position(is_it).unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    })
}

/// One key's events, and which of them are tombstones.
pub(crate) struct History<'a> {
    pub(crate) timeline: Timeline<'a>,
    /// Of all rows.
    pub(crate) created_ts: &'a [TimestampUs],
    /// Of all rows; none when there are none.
    pub(crate) tombstones: Option<&'a [bool]>,
}

impl History<'_> {
    /// Answers questions in the order of their time: the numbers of those at whose time the key is known; their values are appended to the
    /// features' columns.
    pub(crate) fn answer(
        &self,
        reading: &Reading<'_>,
        questions: &[Question],
        columns: &mut [Answers],
    ) -> Result<Vec<usize>> {
        let has_cutoff = questions.iter().any(|question| question.cutoff_us.is_some());
        let Timeline { rows, .. } = self.timeline;
        let has_tombstone = self.tombstones.is_some_and(|flags| rows.iter().any(|&row| flags[row as usize]));
        let is_known_in_order = || rows.is_sorted_by_key(|&row| self.created_ts[row as usize]);
        if has_tombstone || (has_cutoff && !is_known_in_order()) {
            return self.rescan(reading, questions, columns);
        }
        let mut ends = Vec::with_capacity(questions.len());
        let known: Vec<usize> = (0..questions.len())
            .filter(|&number| {
                let end = self.known_end(&questions[number]);
                let is_known = end > 0 && self.timeline.event_ts[0] < questions[number].at_us;
                if is_known {
                    ends.push(end);
                }
                is_known
            })
            .collect();
        let bounds_of = |extent: &Extent| -> Vec<(usize, usize)> {
            let (mut start, mut end) = (0, 0);
            let bounds = known.iter().zip(&ends).map(|(&number, &known_end)| {
                let (start_us, end_us) = extent.interval(questions[number].at_us);
                start = advance(self.timeline.event_ts, start, start_us);
                end = advance(self.timeline.event_ts, end, end_us);
                (start.min(known_end), end.min(known_end).max(start.min(known_end)))
            });
            bounds.collect()
        };
        if known.is_empty() {
            return Ok(known);
        }
        let plan = reading.plan;
        let bounds: Vec<Vec<(usize, usize)>> =
            reading.extents.iter().map(|&extent| bounds_of(&plan.extents[extent])).collect();
        let mut values = Values::Any;
        for SeriesReading { series, windows } in &reading.series {
            let series = &plan.series[*series];
            values = Values::new(&self.timeline, series, values);
            for WindowReading { extent, features } in windows {
                let hop_us = plan.extents[reading.extents[*extent]].hop_us;
                Sliding::new(series, &self.timeline, &values, hop_us).each(&bounds[*extent], |partial| {
                    for &place in features {
                        let feature = &plan.features[reading.features[place]];
                        columns[place].push(partial.finish(feature.output, feature.scalar))?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(known)
    }

    /// Where the events end that were known at a question's cutoff; they became known in their order.
    fn known_end(&self, question: &Question) -> usize {
        let rows = self.timeline.rows;
        let Some(cutoff_us) = question.cutoff_us else { return rows.len() };
        rows.partition_point(|&row| self.created_ts[row as usize] <= cutoff_us)
    }

    fn version(&self, place: usize) -> RowVersion {
        let row = self.timeline.rows[place];
        RowVersion {
            event_ts: self.timeline.event_ts[place],
            created_ts: self.created_ts[row as usize],
            sequence: row.into(),
        }
    }

    /// The places of the events before a time that were known and are not deleted.
    fn live(&self, question: Question) -> Vec<usize> {
        let Question { at_us, cutoff_us } = question;
        let places = || (0..self.timeline.rows.len()).map(|place| (place, self.version(place)));
        let is_tombstone =
            |place: usize| self.tombstones.is_some_and(|flags| flags[self.timeline.rows[place] as usize]);
        let is_known = |version: &RowVersion| cutoff_us.is_none_or(|cutoff_us| version.created_ts <= cutoff_us);
        let tombstones: Vec<RowVersion> = places()
            .filter(|(place, version)| is_tombstone(*place) && is_known(version) && version.event_ts <= at_us)
            .map(|(_, version)| version)
            .collect();
        let deleted_us = tombstones.iter().map(|version| version.event_ts).max();
        let deleted_sequence = tombstones.iter().map(|version| version.sequence).max();
        let is_live = |place: usize, version: &RowVersion| {
            version.event_ts < at_us
                && !is_tombstone(place)
                && is_known(version)
                && deleted_us.is_none_or(|deleted_us| version.event_ts > deleted_us)
                && deleted_sequence.is_none_or(|sequence| version.sequence > sequence)
        };
        places().filter(|(place, version)| is_live(*place, version)).map(|(place, _)| place).collect()
    }

    /// The plain way, where events are left out question by question.
    fn rescan(&self, reading: &Reading<'_>, questions: &[Question], columns: &mut [Answers]) -> Result<Vec<usize>> {
        let plan = reading.plan;
        let mut known = Vec::new();
        for (number, question) in questions.iter().enumerate() {
            let live = self.live(*question);
            if live.is_empty() {
                continue;
            }
            known.push(number);
            for (&feature, column) in reading.features.iter().zip(&mut *columns) {
                let feature = &plan.features[feature];
                let series = &plan.series[feature.series];
                let (start_us, end_us) = plan.extents[feature.extent].interval(question.at_us);
                let mut partial = Partial::empty(series);
                let in_window = |place: &&usize| (start_us..end_us).contains(&self.timeline.event_ts[**place]);
                for &place in live.iter().filter(in_window) {
                    self.timeline.add(series, place, &mut partial);
                }
                column.push(partial.finish(feature.output, feature.scalar))?;
            }
        }
        Ok(known)
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
