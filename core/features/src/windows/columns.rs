//! The partials of a key's older tiles, by series: side by side in memory, so that a window is merged in one pass over them.

use std::collections::VecDeque;
use std::ops::Range;

use super::definition::Series;
use super::partial::{Item, Moment, Partial, State};
use super::sums::{FloatSum, IntSum, Squares};

/// The partials of one series, in the order of their tiles.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Column {
    Counts(VecDeque<u64>),
    IntSums(VecDeque<IntSum>),
    FloatSums(VecDeque<FloatSum>),
    Squares(VecDeque<Squares>),
    Partials(VecDeque<Partial>),
}

impl Column {
    pub(super) fn new(series: &Series) -> Self {
        match series.state {
            _ if series.by.is_some() => Column::Partials(VecDeque::new()),
            State::Count => Column::Counts(VecDeque::new()),
            State::IntSum => Column::IntSums(VecDeque::new()),
            State::FloatSum => Column::FloatSums(VecDeque::new()),
            State::Moments => Column::Squares(VecDeque::new()),
            _ => Column::Partials(VecDeque::new()),
        }
    }

    /// About how many bytes one partial takes.
    pub(super) fn item_bytes(series: &Series) -> usize {
        match Self::new(series) {
            Column::Counts(_) => size_of::<u64>(),
            Column::IntSums(_) => size_of::<IntSum>(),
            Column::FloatSums(_) => size_of::<FloatSum>(),
            Column::Squares(_) => size_of::<Squares>(),
            Column::Partials(_) => Partial::bytes(series.state),
        }
    }

    /// Puts a partial of the column's series at a place; those from there on move by one.
    pub(super) fn insert(&mut self, at: usize, partial: Partial) {
        match (self, partial) {
            (Column::Counts(items), Partial::Count(count)) => items.insert(at, count),
            (Column::IntSums(items), Partial::IntSum(sum)) => items.insert(at, sum),
            (Column::FloatSums(items), Partial::FloatSum(sum)) => items.insert(at, sum),
            (Column::Squares(items), Partial::Moments(sums)) => items.insert(at, sums),
            (Column::Partials(items), partial) => items.insert(at, partial),
            (column, _) => debug_assert!(false, "a partial of another series for {column:?}"),
        }
    }

    pub(super) fn get(&self, at: usize) -> Partial {
        match self {
            Column::Counts(items) => Partial::Count(items[at]),
            Column::IntSums(items) => Partial::IntSum(items[at]),
            Column::FloatSums(items) => Partial::FloatSum(items[at]),
            Column::Squares(items) => Partial::Moments(items[at]),
            Column::Partials(items) => items[at].clone(),
        }
    }

    /// As [`Partial::take`], for the partial at a place.
    pub(super) fn take(&mut self, at: usize, item: Item<'_>, moment: Moment) -> bool {
        if let Column::Partials(items) = self {
            return items[at].take(item, moment);
        }
        let mut partial = self.get(at);
        let is_kept = partial.take(item, moment);
        match (self, partial) {
            (Column::Counts(items), Partial::Count(count)) => items[at] = count,
            (Column::IntSums(items), Partial::IntSum(sum)) => items[at] = sum,
            (Column::FloatSums(items), Partial::FloatSum(sum)) => items[at] = sum,
            (Column::Squares(items), Partial::Moments(sums)) => items[at] = sums,
            _ => {}
        }
        is_kept
    }

    pub(super) fn truncate(&mut self, count: usize) {
        match self {
            Column::Counts(items) => items.truncate(count),
            Column::IntSums(items) => items.truncate(count),
            Column::FloatSums(items) => items.truncate(count),
            Column::Squares(items) => items.truncate(count),
            Column::Partials(items) => items.truncate(count),
        }
    }

    pub(super) fn pop_front(&mut self) {
        match self {
            Column::Counts(items) => drop(items.pop_front()),
            Column::IntSums(items) => drop(items.pop_front()),
            Column::FloatSums(items) => drop(items.pop_front()),
            Column::Squares(items) => drop(items.pop_front()),
            Column::Partials(items) => drop(items.pop_front()),
        }
    }

    pub(super) fn grown_bytes(&self, at: usize) -> usize {
        if let Column::Partials(items) = self { items[at].grown_bytes() } else { 0 }
    }

    /// Merges the partials at some places into one of the same series.
    pub(super) fn merge_into(&self, places: Range<usize>, partial: &mut Partial) {
        match (self, partial) {
            (Column::Counts(items), Partial::Count(count)) => {
                *count += slices(items, places).iter().copied().flatten().sum::<u64>();
            }
            (Column::IntSums(items), Partial::IntSum(sum)) => {
                slices(items, places).iter().copied().flatten().for_each(|item| sum.merge(item));
            }
            (Column::FloatSums(items), Partial::FloatSum(sum)) => {
                slices(items, places).iter().for_each(|items| sum.merge_all(items));
            }
            (Column::Squares(items), Partial::Moments(sums)) => {
                slices(items, places).iter().for_each(|items| sums.merge_all(items));
            }
            (Column::Partials(items), partial) => items.range(places).for_each(|item| partial.merge(item)),
            (column, _) => debug_assert!(false, "a partial of another series for {column:?}"),
        }
    }
}

/// A part of a queue, which may lie in two pieces.
fn slices<T>(items: &VecDeque<T>, places: Range<usize>) -> [&[T]; 2] {
    let (front, back) = items.as_slices();
    let in_front = |at: usize| at.min(front.len());
    let in_back = |at: usize| at.saturating_sub(front.len());
    [&front[in_front(places.start)..in_front(places.end)], &back[in_back(places.start)..in_back(places.end)]]
}
