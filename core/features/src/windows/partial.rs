//! What is kept of events: partial aggregates that can be merged, and give their result at the end.
//!
//! The same partials are filled from history, filled by ingested events, and merged at a lookup, so that the three agree. Merging does not
//! depend on the order: counts and sums of ints are exact, sums of floats are kept to twice a float64's digits.

use std::cmp::Ordering;

use headrace_types::{RowVersion, ScalarType, Value};
use serde::{Deserialize, Serialize};

use super::definition::{Grouping, Series};
use super::groups::Groups;
use super::sketches::{Distinct, Quantiles};
use super::sums::{FloatSum, IntSum, Squares, Wide};

/// A value of an event, in the few forms that the functions tell apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    /// bool, int8..int64 and timestamps.
    Int(i64),
    /// uint8..uint64.
    UInt(u64),
    /// float32 and float64.
    Float(f64),
    /// Strings and bytes.
    Bytes(&'a [u8]),
}

/// A value that a partial keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Kept {
    Int(i64),
    UInt(u64),
    Float(f64),
    Bytes(Box<[u8]>),
    /// A value and the group that it belongs to.
    OfGroup(Box<(Kept, Kept)>),
}

/// A value of an event, and the group that it belongs to where there are groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Item<'a> {
    pub(super) value: Scalar<'a>,
    pub(super) group: Option<Scalar<'a>>,
}

impl Item<'_> {
    pub(super) fn keep(self) -> Kept {
        match self.group {
            None => self.value.keep(),
            Some(group) => Kept::OfGroup(Box::new((self.value.keep(), group.keep()))),
        }
    }
}

impl Scalar<'_> {
    pub(super) fn keep(self) -> Kept {
        match self {
            Scalar::Int(value) => Kept::Int(value),
            Scalar::UInt(value) => Kept::UInt(value),
            Scalar::Float(value) => Kept::Float(value),
            Scalar::Bytes(value) => Kept::Bytes(value.into()),
        }
    }

    /// Values of one column are of one form; numbers by size, -0.0 before 0.0, bytes as texts are sorted.
    pub(super) fn order(self, other: Scalar<'_>) -> Ordering {
        match (self, other) {
            (Scalar::Int(a), Scalar::Int(b)) => a.cmp(&b),
            (Scalar::UInt(a), Scalar::UInt(b)) => a.cmp(&b),
            (Scalar::Float(a), Scalar::Float(b)) => a.total_cmp(&b),
            (Scalar::Bytes(a), Scalar::Bytes(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }

    /// The bytes of the value beside itself, when it is kept.
    pub(super) fn heap_bytes(self) -> usize {
        if let Scalar::Bytes(value) = self { value.len() } else { 0 }
    }

    fn is_nan(self) -> bool {
        matches!(self, Scalar::Float(value) if value.is_nan())
    }

    fn as_float(self) -> Wide {
        match self {
            Scalar::Int(value) => Wide::of_int(i128::from(value)),
            Scalar::UInt(value) => Wide::of_int(i128::from(value)),
            Scalar::Float(value) => Wide { high: value, low: 0.0 },
            Scalar::Bytes(_) => Wide::default(),
        }
    }

    #[allow(clippy::cast_precision_loss)] // a quantile is approximate
    pub(super) fn to_float(self) -> f64 {
        match self {
            Scalar::Int(value) => value as f64,
            Scalar::UInt(value) => value as f64,
            Scalar::Float(value) => value,
            Scalar::Bytes(_) => f64::NAN,
        }
    }
}

impl Kept {
    pub(super) fn lend(&self) -> Scalar<'_> {
        match self {
            Kept::Int(value) => Scalar::Int(*value),
            Kept::UInt(value) => Scalar::UInt(*value),
            Kept::Float(value) => Scalar::Float(*value),
            Kept::Bytes(value) => Scalar::Bytes(value),
            Kept::OfGroup(of) => of.0.lend(),
        }
    }

    pub(super) fn lend_item(&self) -> Item<'_> {
        let group = if let Kept::OfGroup(of) = self { Some(of.1.lend()) } else { None };
        Item { value: self.lend(), group }
    }

    /// The value as one of a column's type.
    #[allow(clippy::cast_possible_truncation)] // a float32 comes back as it came
    pub(super) fn as_value(&self, scalar: ScalarType) -> Value {
        match (self, scalar) {
            (Kept::Int(value), ScalarType::Bool) => Value::Bool(*value != 0),
            (Kept::Int(value), ScalarType::Timestamp) => Value::Timestamp(*value),
            (Kept::Int(value), _) => Value::Int(*value),
            (Kept::UInt(value), _) => Value::UInt(*value),
            (Kept::Float(value), ScalarType::Float32) => Value::Float32(*value as f32),
            (Kept::Float(value), _) => Value::Float64(*value),
            (Kept::Bytes(value), ScalarType::String) => Value::String(String::from_utf8_lossy(value).into_owned()),
            (Kept::Bytes(value), _) => Value::Bytes(value.to_vec()),
            (Kept::OfGroup(of), scalar) => of.0.as_value(scalar),
        }
    }
}

/// The place of an event in the order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment {
    event_ts: i64,
    created_ts: i64,
    sequence: u64,
}

impl Moment {
    /// Of an event that is known by its place in the order.
    pub(super) fn of_place(place: usize) -> Self {
        Self { event_ts: 0, created_ts: 0, sequence: place as u64 }
    }
}

impl From<RowVersion> for Moment {
    fn from(version: RowVersion) -> Self {
        Self { event_ts: version.event_ts, created_ts: version.created_ts, sequence: version.sequence }
    }
}

/// What is kept for a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Count,
    IntSum,
    FloatSum,
    /// Sums of the values and of their squares.
    Moments,
    Least,
    Greatest,
    First,
    Last,
    LastK(usize),
    Distinct,
    Quantiles,
}

impl State {
    /// Whether [`Partial::add_floats`] takes in many floats in the time of a few.
    pub(super) fn takes_runs(self) -> bool {
        matches!(self, State::Count | State::FloatSum | State::Least | State::Greatest)
    }
}

/// The partial aggregate of some events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Partial {
    Count(u64),
    IntSum(IntSum),
    FloatSum(FloatSum),
    Moments(Squares),
    Least(Option<Kept>),
    Greatest(Option<Kept>),
    First(Option<(Moment, Kept)>),
    Last(Option<(Moment, Kept)>),
    /// The newest first.
    LastK {
        k: usize,
        items: Vec<(Moment, Kept)>,
    },
    Distinct(Distinct),
    Quantiles(Quantiles),
    Groups(Groups),
}

impl Partial {
    /// Of no events.
    pub(super) fn empty(series: &Series) -> Self {
        match series.by {
            None => Self::of_state(series.state),
            Some(Grouping { limit, .. }) => Partial::Groups(Groups::new(limit, series.state)),
        }
    }

    pub(super) fn of_state(state: State) -> Self {
        match state {
            State::Count => Partial::Count(0),
            State::IntSum => Partial::IntSum(IntSum::default()),
            State::FloatSum => Partial::FloatSum(FloatSum::default()),
            State::Moments => Partial::Moments(Squares::default()),
            State::Least => Partial::Least(None),
            State::Greatest => Partial::Greatest(None),
            State::First => Partial::First(None),
            State::Last => Partial::Last(None),
            State::LastK(k) => Partial::LastK { k, items: Vec::new() },
            State::Distinct => Partial::Distinct(Distinct::default()),
            State::Quantiles => Partial::Quantiles(Quantiles::default()),
        }
    }

    /// Forgets all events.
    pub(super) fn clear(&mut self) {
        match self {
            Partial::Count(count) => *count = 0,
            Partial::IntSum(sum) => *sum = IntSum::default(),
            Partial::FloatSum(sum) => *sum = FloatSum::default(),
            Partial::Moments(sums) => *sums = Squares::default(),
            Partial::Least(kept) | Partial::Greatest(kept) => *kept = None,
            Partial::First(kept) | Partial::Last(kept) => *kept = None,
            Partial::LastK { items, .. } => items.clear(),
            Partial::Distinct(distinct) => *distinct = Distinct::default(),
            Partial::Quantiles(quantiles) => *quantiles = Quantiles::default(),
            Partial::Groups(groups) => groups.clear(),
        }
    }

    /// Whether a partial that was read from a file is one of a series.
    pub(super) fn is_of(&self, series: &Series) -> bool {
        match (self, series.by) {
            (Partial::Groups(groups), Some(by)) => groups.is_of(by.limit, series.state),
            (_, Some(_)) => false,
            (partial, None) => partial.is_of_state(series.state),
        }
    }

    pub(super) fn is_of_state(&self, state: State) -> bool {
        match (self, state) {
            (Partial::LastK { k, items }, State::LastK(of)) => *k == of && items.len() <= of,
            _ => std::mem::discriminant(self) == std::mem::discriminant(&Self::of_state(state)),
        }
    }

    /// Takes in one value of an event. False where its group is not among those that are kept, or has taken the place of another.
    pub(super) fn take(&mut self, item: Item<'_>, moment: Moment) -> bool {
        match (self, item.group) {
            (Partial::Groups(groups), Some(group)) => groups.add(group, item.value, moment),
            (partial, _) => {
                partial.add(item.value, moment);
                true
            }
        }
    }

    /// Takes in one value that is not null.
    pub(super) fn add(&mut self, value: Scalar<'_>, moment: Moment) {
        match self {
            Partial::Count(count) => *count += 1,
            Partial::IntSum(sum) => sum.add(match value {
                Scalar::Int(value) => i128::from(value),
                Scalar::UInt(value) => i128::from(value),
                Scalar::Float(_) | Scalar::Bytes(_) => 0,
            }),
            Partial::FloatSum(sum) => sum.add(value.as_float()),
            Partial::Moments(sums) => sums.add(value.as_float()),
            Partial::Least(kept) => extreme(kept, value, Ordering::Less),
            Partial::Greatest(kept) => extreme(kept, value, Ordering::Greater),
            Partial::First(kept) => {
                if kept.as_ref().is_none_or(|(first, _)| moment < *first) {
                    *kept = Some((moment, value.keep()));
                }
            }
            Partial::Last(kept) => {
                if kept.as_ref().is_none_or(|(last, _)| moment > *last) {
                    *kept = Some((moment, value.keep()));
                }
            }
            Partial::LastK { k, items } => {
                let at = items.partition_point(|(newer, _)| *newer > moment);
                if at < *k {
                    items.insert(at, (moment, value.keep()));
                    items.truncate(*k);
                }
            }
            Partial::Distinct(distinct) => distinct.add(value),
            Partial::Quantiles(quantiles) => quantiles.add(value),
            Partial::Groups(_) => {}
        }
    }

    /// Takes in events of which only the number matters.
    pub(super) fn add_count(&mut self, more: u64) {
        if let Partial::Count(count) = self {
            *count += more;
        }
    }

    /// Takes in the floats of events that follow each other, from a place on.
    pub(super) fn add_floats(&mut self, values: &[f64], first: usize) {
        match self {
            Partial::Count(count) => *count += values.len() as u64,
            Partial::FloatSum(sum) => sum.add_floats(values),
            Partial::Least(kept) => extreme_float(kept, values, Ordering::Less),
            Partial::Greatest(kept) => extreme_float(kept, values, Ordering::Greater),
            partial => {
                for (at, &value) in values.iter().enumerate() {
                    partial.add(Scalar::Float(value), Moment::of_place(first + at));
                }
            }
        }
    }

    /// Takes in the partial of other events.
    pub(super) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Partial::Count(count), Partial::Count(more)) => *count += more,
            (Partial::IntSum(sum), Partial::IntSum(other)) => sum.merge(other),
            (Partial::FloatSum(sum), Partial::FloatSum(other)) => sum.merge(other),
            (Partial::Moments(sums), Partial::Moments(other)) => sums.merge(other),
            (Partial::Least(kept), Partial::Least(Some(other))) => extreme(kept, other.lend(), Ordering::Less),
            (Partial::Greatest(kept), Partial::Greatest(Some(other))) => extreme(kept, other.lend(), Ordering::Greater),
            (this @ Partial::First(_), Partial::First(Some((moment, value))))
            | (this @ Partial::Last(_), Partial::Last(Some((moment, value)))) => this.add(value.lend(), *moment),
            (this @ Partial::LastK { .. }, Partial::LastK { items, .. }) => {
                for (moment, value) in items {
                    this.add(value.lend(), *moment);
                }
            }
            (Partial::Distinct(distinct), Partial::Distinct(other)) => distinct.merge(other),
            (Partial::Quantiles(quantiles), Partial::Quantiles(other)) => quantiles.merge(other),
            (Partial::Groups(groups), Partial::Groups(other)) => groups.merge(other),
            _ => {}
        }
    }

    /// About how many bytes the partial of a state takes.
    pub(super) fn bytes(state: State) -> usize {
        let items = if let State::LastK(k) = state { k * size_of::<(Moment, Kept)>() } else { 0 };
        size_of::<Self>() + items
    }

    /// The bytes that depend on what it has seen.
    pub(super) fn grown_bytes(&self) -> usize {
        match self {
            Partial::Distinct(distinct) => distinct.heap_bytes(),
            Partial::Quantiles(quantiles) => quantiles.heap_bytes(),
            Partial::Groups(groups) => groups.heap_bytes(),
            _ => 0,
        }
    }

    /// Reckons the bytes of what was read from a file.
    pub(super) fn measure(&mut self) {
        if let Partial::Groups(groups) = self {
            groups.measure();
        }
    }

    /// What a function gives; `scalar` is the type of the column that it looks at.
    pub(super) fn finish(&self, output: Output, scalar: ScalarType) -> Value {
        match (self, output) {
            (Partial::Count(count), _) => Value::Int(i64::try_from(*count).unwrap_or(i64::MAX)),
            (Partial::IntSum(sum), Output::Sum) => sum.total().map_or(Value::Null, Value::Int),
            (Partial::IntSum(sum), _) => float(sum.mean()),
            (Partial::FloatSum(sum), Output::Sum) => Value::Float64(sum.total()),
            (Partial::FloatSum(sum), _) => float(sum.mean()),
            (Partial::Moments(sums), Output::Deviation) => float(sums.variance().map(f64::sqrt)),
            (Partial::Moments(sums), _) => float(sums.variance()),
            (Partial::Least(kept) | Partial::Greatest(kept), _) => {
                kept.as_ref().map_or(Value::Null, |kept| kept.as_value(scalar))
            }
            (Partial::First(kept) | Partial::Last(kept), _) => {
                kept.as_ref().map_or(Value::Null, |(_, kept)| kept.as_value(scalar))
            }
            (Partial::LastK { items, .. }, _) if items.is_empty() => Value::Null,
            (Partial::LastK { items, .. }, _) => {
                Value::List(items.iter().map(|(_, kept)| kept.as_value(scalar)).collect())
            }
            (Partial::Distinct(distinct), _) => Value::Int(distinct.count()),
            (Partial::Quantiles(quantiles), Output::Quantile(q)) => {
                quantiles.quantile(q).map_or(Value::Null, Value::Float64)
            }
            (Partial::Quantiles(_), _) => Value::Null,
            (Partial::Groups(groups), output) => groups.finish(output, scalar),
        }
    }
}

/// What is made of a partial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Output {
    Count,
    Sum,
    Mean,
    Variance,
    Deviation,
    /// The value or the values kept.
    Kept,
    Quantile(f64),
    /// The groups themselves.
    Groups,
}

fn float(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::Float64)
}

/// NaN gives way to anything else.
fn extreme(kept: &mut Option<Kept>, value: Scalar<'_>, wanted: Ordering) {
    let takes = match kept.as_ref().map(Kept::lend) {
        None => true,
        Some(known) if known.is_nan() => !value.is_nan(),
        Some(known) => !value.is_nan() && value.order(known) == wanted,
    };
    if takes {
        *kept = Some(value.keep());
    }
}

/// As [`extreme`] of all these values.
fn extreme_float(kept: &mut Option<Kept>, values: &[f64], wanted: Ordering) {
    let found = match wanted {
        Ordering::Less => extreme_in_lanes(values, f64::INFINITY, |value, best| value < best),
        _ => extreme_in_lanes(values, f64::NEG_INFINITY, |value, best| value > best),
    };
    if let Some(best) = found.or_else(|| plain_extreme(values, wanted)) {
        extreme(kept, Scalar::Float(best), wanted);
    }
}

/// The smallest or largest float, in lanes that do not wait for each other. None where that is not all there is to say: comparisons do not
/// tell zeros apart, and find nothing where there is nothing but NaN and the worst of all.
fn extreme_in_lanes(values: &[f64], worst: f64, is_better: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let better = |best: f64, value: f64| if is_better(value, best) { value } else { best };
    let mut lanes = [worst; 4];
    let (chunks, rest) = values.as_chunks::<4>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = better(*lane, value);
        }
    }
    let best = lanes.iter().chain(rest).copied().fold(worst, better);
    (best != 0.0 && best != worst).then_some(best)
}

/// The twin of [`extreme_in_lanes`]: one by one, -0.0 before 0.0, NaN only where there is nothing else.
fn plain_extreme(values: &[f64], wanted: Ordering) -> Option<f64> {
    let better = |best: f64, value: f64| {
        let takes = if best.is_nan() { !value.is_nan() } else { !value.is_nan() && value.total_cmp(&best) == wanted };
        if takes { value } else { best }
    };
    values.iter().copied().reduce(better)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float() -> impl Strategy<Value = f64> {
        let odd = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0]);
        prop_oneof![3 => -10.0f64..10.0, 1 => odd]
    }

    proptest! {
        #[test]
        fn extremes_of_runs_are_those_of_the_plain_way(values in prop::collection::vec(float(), 0..30)) {
            for wanted in [Ordering::Less, Ordering::Greater] {
                let mut kept = None;
                extreme_float(&mut kept, &values, wanted);
                let mut one_by_one = None;
                values.iter().for_each(|&value| extreme(&mut one_by_one, Scalar::Float(value), wanted));
                let bits = |kept: &Option<Kept>| match kept {
                    Some(Kept::Float(value)) => Some(value.to_bits()),
                    _ => None,
                };
                prop_assert_eq!(bits(&kept), bits(&one_by_one));
                prop_assert_eq!(bits(&kept), plain_extreme(&values, wanted).map(f64::to_bits));
            }
        }
    }
}
