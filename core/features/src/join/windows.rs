//! The part of the join of a view of aggregates: for each entity row, the events of its key are put together over each window.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use headrace_types::{Error, FeatureStatus, Field, Result};

use super::computed::{Lent, column_array};
use super::entities::EntityRows;
use super::groups::{Groups, NO_GROUP};
use super::held::{Held, NO_PLACE};
use super::parallel::{Cancel, parallel_map};
use super::source::{SourceRows, SourceTimes};
use super::timeline::Timelines;
use super::view::{Found, SourceTimelines, ViewCounts};
use crate::arrow::arrow_type;
use crate::plan::ViewPlan;
use crate::windows::{Answers, Events, History, Question, Reading, Timeline, WindowPlan};

/// Entity rows answered as one job.
const JOB_ROWS: usize = 16_384;

/// A view of aggregates, and the numbers of the features asked for.
pub(super) struct WindowView<'a> {
    pub(super) view: &'a ViewPlan,
    pub(super) windows: &'a WindowPlan,
    pub(super) fields: &'a [usize],
}

pub(super) fn join(
    asked: &WindowView<'_>,
    source: &SourceRows,
    entities: &EntityRows,
    groups: &Groups,
    threads: usize,
    cancel: &Cancel<'_>,
) -> Result<Found> {
    let WindowView { view, windows, fields } = *asked;
    let SourceTimelines { times, timelines, counts } =
        SourceTimelines::new(view, source, entities, groups, false, cancel)?;
    let rows = source.rows();
    let arrays = windows
        .columns
        .iter()
        .map(|column| source.column(&column.name, column.dtype))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let lent = arrays
        .iter()
        .zip(&windows.columns)
        .map(|(array, field)| Lent::new(array, field, 0..rows))
        .collect::<Result<Vec<_>>>()?;
    let views: Vec<_> = lent.iter().map(Lent::view).collect();
    let events = Events::new(windows, &views, rows)?;
    cancel.check()?;

    let questions = Questions::new(entities, groups);
    let history = SourceHistory { events: &events, timelines: &timelines, times: &times };
    let jobs = questions.jobs(groups.count);
    let parts = parallel_map(threads, &jobs, |job| {
        cancel.check()?;
        answer(windows, fields, &history, &questions, job.clone())
    })?;
    scatter(asked, entities.count, &parts, counts)
}

struct SourceHistory<'a> {
    events: &'a Events<'a>,
    timelines: &'a Timelines,
    times: &'a SourceTimes,
}

/// The entity rows that can find something, by group and time.
struct Questions {
    offsets: Vec<usize>,
    rows: Vec<u32>,
    questions: Vec<Question>,
}

impl Questions {
    fn new(entities: &EntityRows, groups: &Groups) -> Self {
        let mut offsets = vec![0; groups.count + 1];
        let times = || {
            let rows = groups.of_entities.iter().enumerate().filter(|(_, group)| **group != NO_GROUP);
            rows.filter_map(|(row, &group)| Some((row, group as usize, entities.times(row)?)))
        };
        for (_, group, _) in times() {
            offsets[group + 1] += 1;
        }
        for group in 0..groups.count {
            offsets[group + 1] += offsets[group];
        }
        let mut next = offsets.clone();
        let mut asked = vec![(Question { at_us: 0, cutoff_us: None }, 0u32); offsets[groups.count]];
        for (row, group, (at_us, cutoff_us)) in times() {
            asked[next[group]] = (Question { at_us, cutoff_us }, row as u32); // the number of rows is checked to fit
            next[group] += 1;
        }
        for group in offsets.windows(2) {
            asked[group[0]..group[1]].sort_unstable_by_key(|(question, row)| (question.at_us, *row));
        }
        let (rows, questions) = asked.into_iter().map(|(question, row)| (row, question)).unzip();
        Self { offsets, rows, questions }
    }

    /// Ranges of groups of about equal numbers of rows.
    fn jobs(&self, groups_count: usize) -> Vec<std::ops::Range<usize>> {
        let mut jobs = Vec::new();
        let mut start = 0;
        for group in 0..groups_count {
            if self.offsets[group + 1] - self.offsets[start] >= JOB_ROWS || group + 1 == groups_count {
                jobs.push(start..group + 1);
                start = group + 1;
            }
        }
        jobs
    }
}

/// Answers of some groups: the entity rows whose key is known, and for each field a value of each.
struct Part {
    rows: Vec<u32>,
    columns: Vec<ArrayRef>,
}

fn answer(
    windows: &WindowPlan,
    fields: &[usize],
    history: &SourceHistory<'_>,
    questions: &Questions,
    groups: std::ops::Range<usize>,
) -> Result<Part> {
    let SourceHistory { events, timelines, times } = history;
    let reading = Reading::new(windows, fields);
    let count = questions.offsets[groups.end] - questions.offsets[groups.start];
    let answers = |&field: &usize| Answers::with_capacity(windows.dtype(field), count);
    let mut columns: Vec<Answers> = fields.iter().map(answers).collect();
    let mut rows = Vec::with_capacity(count);
    for group in groups {
        let asked = questions.offsets[group]..questions.offsets[group + 1];
        if asked.is_empty() {
            continue;
        }
        let timeline = Timeline { events, rows: timelines.rows_of(group), event_ts: timelines.times_of(group) };
        let of_key = History { timeline, created_ts: &times.created_ts, tombstones: times.deleted.as_deref() };
        let known = of_key.answer(&reading, &questions.questions[asked.clone()], &mut columns)?;
        rows.extend(known.into_iter().map(|number| questions.rows[asked.start + number]));
    }
    let columns = columns.into_iter().map(|column| column_array(column.into_column())).collect::<Result<_>>()?;
    Ok(Part { rows, columns })
}

/// Puts the answers where their entity rows are.
fn scatter(asked: &WindowView<'_>, count: usize, parts: &[Part], mut counts: ViewCounts) -> Result<Found> {
    let mut statuses = vec![FeatureStatus::NotFound; count];
    for &row in parts.iter().flat_map(|part| &part.rows) {
        statuses[row as usize] = FeatureStatus::Present;
    }
    let mut places = None;
    let columns = asked.fields.iter().enumerate().map(|(number, &field)| {
        let field = &asked.view.fields[field];
        Ok(match arrow_type(field.dtype) {
            DataType::Int64 => scatter_numbers::<Int64Type>(parts, number, count),
            DataType::Float64 => scatter_numbers::<Float64Type>(parts, number, count),
            _ => gather(parts, number, field, places.get_or_insert_with(|| places_of(parts, count)))?,
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    counts.add_found(&statuses);
    Ok(Found { statuses, columns, counts })
}

/// A feature of all entity rows: written where it belongs.
fn scatter_numbers<T: ArrowPrimitiveType>(parts: &[Part], number: usize, count: usize) -> ArrayRef {
    let mut values = vec![T::default_value(); count];
    let mut is_valid = vec![false; count];
    for Part { rows, columns } in parts {
        let found = columns[number].as_primitive::<T>();
        for (place, &row) in rows.iter().enumerate() {
            values[row as usize] = found.value(place);
            is_valid[row as usize] = found.is_valid(place);
        }
    }
    let nulls = is_valid.contains(&false).then(|| NullBuffer::from(is_valid));
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

/// For each entity row, the place of its answer among those of all parts.
fn places_of(parts: &[Part], count: usize) -> Vec<u32> {
    let mut places = vec![NO_PLACE; count];
    for (place, &row) in (0u32..).zip(parts.iter().flat_map(|part| &part.rows)) {
        places[row as usize] = place;
    }
    places
}

/// As [`scatter_numbers`], for any type.
fn gather(parts: &[Part], number: usize, field: &Field, places: &[u32]) -> Result<ArrayRef> {
    let mut held = Held::new(vec![field.clone()]);
    for Part { rows, columns } in parts {
        held.push(vec![Arc::clone(&columns[number])], None, rows.len())?;
    }
    held.gather(places)?.pop().ok_or_else(|| Error::internal("a feature of windows has no column"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::{Float64Array, Int64Array};
    use headrace_types::DType;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_put_where_a_gather_puts_them(
            found in prop::collection::vec(prop::option::of(prop::option::of(-9i64..9)), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let count = found.len();
            let (mut rows, mut values): (Vec<u32>, Vec<Option<i64>>) =
                (0u32..).zip(&found).filter_map(|(row, value)| Some((row, (*value)?))).unzip();
            rows.reverse();
            values.reverse();
            let part = |rows: &[u32], values: &[Option<i64>]| {
                let floats: Float64Array = values.iter().map(|value| value.map(|value| value as f64)).collect();
                let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(values.to_vec())), Arc::new(floats)];
                Part { rows: rows.to_vec(), columns }
            };
            let cut = cut.index(rows.len() + 1);
            let parts = [part(&rows[..cut], &values[..cut]), part(&rows[cut..], &values[cut..])];
            let places = places_of(&parts, count);
            for (number, dtype) in [DType::INT64, DType::FLOAT64].into_iter().enumerate() {
                let wanted = gather(&parts, number, &Field::new("f", dtype), &places).unwrap();
                let scattered = match number {
                    0 => scatter_numbers::<Int64Type>(&parts, number, count),
                    _ => scatter_numbers::<Float64Type>(&parts, number, count),
                };
                prop_assert_eq!(&scattered, &wanted);
            }
        }
    }
}
