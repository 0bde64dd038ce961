//! Approximate quantiles: DDSketch (Masson, Rim and Lee, VLDB 2019) with buckets cut out of a float's own bits.
//!
//! The paper's buckets are powers of gamma and need a logarithm. Here each power of two is divided into 64 equal buckets, the
//! paper's linear interpolation: a bucket is the sign, the exponent and the first 6 bits of the mantissa, and its estimate is
//! its middle, the next bit. No arithmetic on floats takes part, so every machine and every order gives the same bits.

use headrace_types::Result;

use crate::bytes::{Reader, put_varint};
use crate::numbers::{Number, PLACES, Seen, count_places};

const FORMAT: u8 = 1;
const NAME: &str = "quantile sketch";
const MANTISSA_BITS: u32 = 6;
pub(crate) const SHIFT: u32 = 52 - MANTISSA_BITS;
/// The first bucket of normal numbers, and the first above the largest finite one.
pub(crate) const INDEX_MIN: u32 = 1 << MANTISSA_BITS;
const INDEX_END: u32 = 0x7FF << MANTISSA_BITS;

/// An estimate is off by at most this part of the exact value: half a bucket of the width 1/64.
pub const RELATIVE_ACCURACY: f64 = 1.0 / 128.0;
/// The buckets of each sign: 64 powers of two below the largest magnitude. What is nearer to zero counts into the lowest bucket.
pub const BUCKETS_MAX: u32 = 4096;

/// The quantiles of many values, in memory that does not grow with them, mergeable in any order.
///
/// A quantile's estimate is within [`RELATIVE_ACCURACY`] of the exact value of that rank unless that is more than 2^64 times
/// smaller than the largest of its sign. The smallest and largest value are exact. Subnormal numbers count as zero, infinities as
/// themselves; NaN is left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuantileSketch {
    zero: u64,
    infinite: Sides<u64>,
    finite: Sides<Buckets>,
    /// Smallest and largest value; only meaningful when there is one.
    range: Option<(f64, f64)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Sides<T> {
    negative: T,
    positive: T,
}

impl QuantileSketch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; NaN changes nothing.
    pub fn add(&mut self, value: f64) {
        self.add_times(value, 1);
    }

    /// Adds a value that occurs `times` times.
    pub fn add_times(&mut self, value: f64, times: u64) {
        if value.is_nan() || times == 0 {
            return;
        }
        self.add_bucket(bucket_of(value), times);
        self.widen(value, value);
    }

    /// Adds many values, of which [`look`](crate::numbers::look) has told what it saw; returns how many of them were NaN.
    pub(crate) fn add_numbers<T: Number>(&mut self, values: &[T], seen: &Seen<T>, scratch: &mut Scratch) -> u64 {
        // Subnormal numbers of a narrow float are normal ones as float64, and their own bits do not tell the bucket.
        let is_subnormal = T::BASE > 0 && seen.nearest.place() < INDEX_MIN as usize;
        if is_subnormal || values.len() < DENSE_VALUES_MIN {
            values.iter().for_each(|value| self.add(value.wide()));
        } else {
            self.add_by_place(values, seen, scratch);
        }
        values.len() as u64 - seen.finite - seen.infinite_below - seen.infinite_above
    }

    fn add_by_place<T: Number>(&mut self, values: &[T], seen: &Seen<T>, scratch: &mut Scratch) {
        let (counts, runs) = scratch.parts();
        count_places(values, counts);
        let mut take = |place: usize| {
            let [even, odd] = std::mem::take(&mut counts[place]);
            u64::from(even) + u64::from(odd)
        };
        for sign in [0, T::SIGN] {
            let zeros: u64 = (sign..sign + INDEX_MIN as usize).map(&mut take).sum();
            self.zero = self.zero.saturating_add(zeros);
            if seen.finite < values.len() as u64 {
                // What is infinite or NaN shares places; the infinite was counted apart.
                (sign + T::END..sign + T::SIGN).for_each(|place| _ = take(place));
            }
            // Nothing lies nearer to zero than `nearest`, or further away than the end of this side.
            let (furthest, side) =
                if sign == 0 { (seen.high, &mut self.finite.positive) } else { (seen.low, &mut self.finite.negative) };
            let furthest_place = furthest.place() & (T::SIGN - 1);
            if furthest.place() & T::SIGN == sign && furthest_place < T::END {
                let nearest = (seen.nearest.place() & (T::SIGN - 1)).max(INDEX_MIN as usize);
                let places = nearest..furthest_place + 1;
                let found = places.map(|place| (place as u32 + T::BASE, take(sign | place)));
                runs.clear();
                runs.extend(found.filter(|run| run.1 > 0));
                side.add_runs(runs);
            }
        }
        self.infinite.negative = self.infinite.negative.saturating_add(seen.infinite_below);
        self.infinite.positive = self.infinite.positive.saturating_add(seen.infinite_above);
        if seen.finite + seen.infinite_below + seen.infinite_above > 0 {
            let low = if seen.infinite_below > 0 { f64::NEG_INFINITY } else { seen.low.wide() };
            let high = if seen.infinite_above > 0 { f64::INFINITY } else { seen.high.wide() };
            // With infinite values only, one of the two is still the neutral element of its minimum or maximum.
            self.widen(low.min(high), low.max(high));
        }
    }

    /// Adds to one bucket of [`bucket_of`]; the caller widens the range.
    pub(crate) fn add_bucket(&mut self, bucket: u32, times: u64) {
        let index = bucket & !SIGN;
        let negative = bucket & SIGN != 0;
        if index < INDEX_MIN {
            self.zero = self.zero.saturating_add(times);
        } else if index >= INDEX_END {
            let count = if negative { &mut self.infinite.negative } else { &mut self.infinite.positive };
            *count = count.saturating_add(times);
        } else {
            let side = if negative { &mut self.finite.negative } else { &mut self.finite.positive };
            side.add(index, times);
        }
    }

    pub(crate) fn widen(&mut self, low: f64, high: f64) {
        let (low, high) = (low + 0.0, high + 0.0); // one zero
        self.range = Some(self.range.map_or((low, high), |(min, max)| (min.min(low), max.max(high))));
    }

    /// Adds what another sketch has seen.
    pub fn merge(&mut self, other: &Self) {
        self.zero = self.zero.saturating_add(other.zero);
        self.infinite.negative = self.infinite.negative.saturating_add(other.infinite.negative);
        self.infinite.positive = self.infinite.positive.saturating_add(other.infinite.positive);
        self.finite.negative.merge(&other.finite.negative);
        self.finite.positive.merge(&other.finite.positive);
        if let Some((low, high)) = other.range {
            self.widen(low, high);
        }
    }

    /// How many values were added.
    pub fn count(&self) -> u64 {
        self.parts().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// The bytes that it takes beside this structure.
    pub fn heap_bytes(&self) -> usize {
        (self.finite.negative.runs.capacity() + self.finite.positive.runs.capacity()) * size_of::<(u32, u64)>()
    }

    /// The smallest value; `None` when there is none.
    pub fn min(&self) -> Option<f64> {
        self.range.map(|(min, _)| min)
    }

    /// The largest value; `None` when there is none.
    pub fn max(&self) -> Option<f64> {
        self.range.map(|(_, max)| max)
    }

    /// The value of rank `floor(q * (count - 1))` in ascending order, approximately; `None` of an empty sketch or where `q` is not
    /// in 0..=1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (min, max) = self.range?;
        if !(0.0..=1.0).contains(&q) {
            return None;
        }
        let last = self.count().saturating_sub(1);
        let rank = ((q * last as f64).floor() as u64).min(last);
        if rank == 0 {
            return Some(min);
        }
        if rank == last {
            return Some(max);
        }
        let mut below = 0u64;
        for (estimate, count) in self.parts() {
            below = below.saturating_add(count);
            if below > rank {
                return Some(estimate.max(min).min(max));
            }
        }
        Some(max)
    }

    /// The smallest and the largest finite value, approximately where there are infinite ones too.
    pub fn finite_range(&self) -> Option<(f64, f64)> {
        let (min, max) = self.range?;
        let finite = || self.parts().map(|(estimate, _)| estimate).filter(|estimate| estimate.is_finite());
        let low = if min.is_finite() { min } else { finite().next()?.min(max) };
        let high = if max.is_finite() { max } else { finite().last()?.max(min) };
        Some((low, high))
    }

    /// How many of the finite values are in each of `bins` equal parts of the range from `low` to `high`, approximately: a bucket
    /// counts whole into the part that holds its estimate, or into the nearest part where that is outside.
    pub fn histogram(&self, low: f64, high: f64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0u64; bins];
        let (Some((min, max)), Some(last)) = (self.range, bins.checked_sub(1)) else { return counts };
        for (estimate, count) in self.parts().filter(|(estimate, _)| estimate.is_finite()) {
            let value = estimate.max(min).min(max);
            // Halved, so that the difference of two large numbers stays finite.
            let part = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            let bin = (part * bins as f64) as usize; // below 0 and NaN become 0
            let count_of_bin = &mut counts[bin.min(last)];
            *count_of_bin = count_of_bin.saturating_add(count);
        }
        counts
    }

    /// The estimates and their counts in ascending order.
    fn parts(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let below = self.finite.negative.runs.iter().rev().map(|(index, count)| (-middle_of(*index), *count));
        let above = self.finite.positive.runs.iter().map(|(index, count)| (middle_of(*index), *count));
        let lowest = std::iter::once((f64::NEG_INFINITY, self.infinite.negative));
        let highest = std::iter::once((f64::INFINITY, self.infinite.positive));
        lowest.chain(below).chain([(0.0, self.zero)]).chain(above).chain(highest).filter(|(_, count)| *count > 0)
    }

    /// The sketch as bytes: format 1, then as varints the counts of zero, -inf and +inf; smallest and largest value as
    /// little-endian float64 when there is any; then negative and positive buckets, by magnitude: their number and for each the distance
    /// to the one before (the first: to 0) and its count.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for count in [self.zero, self.infinite.negative, self.infinite.positive] {
            put_varint(&mut out, count);
        }
        out.push(u8::from(self.range.is_some()));
        if let Some((min, max)) = self.range {
            out.extend(min.to_le_bytes());
            out.extend(max.to_le_bytes());
        }
        self.finite.negative.write(&mut out);
        self.finite.positive.write(&mut out);
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format`.
    pub fn from_bytes(data: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(NAME, data, FORMAT)?;
        let zero = reader.varint()?;
        let infinite = Sides { negative: reader.varint()?, positive: reader.varint()? };
        let range = match reader.take(1)?[0] {
            0 => None,
            1 => Some((f64::from_bits(reader.word()?), f64::from_bits(reader.word()?))),
            _ => return Err(reader.corrupt("it neither has nor lacks a range")),
        };
        let finite = Sides { negative: Buckets::read(&mut reader)?, positive: Buckets::read(&mut reader)? };
        reader.finish()?;
        let sketch = Self { zero, infinite, finite, range };
        if range.is_some_and(|(min, max)| min.is_nan() || max.is_nan() || min > max) {
            return Err(reader.corrupt("its range is no range"));
        }
        if range.is_some() != (sketch.count() > 0) {
            return Err(reader.corrupt("its range and its count do not agree"));
        }
        Ok(sketch)
    }
}

/// Fewer values are added one by one.
const DENSE_VALUES_MIN: usize = 256;

/// Memory for counting a chunk of numbers.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Of all places, all zero between uses.
    counts: Vec<[u32; 2]>,
    runs: Vec<(u32, u64)>,
}

impl Scratch {
    fn parts(&mut self) -> (&mut [[u32; 2]; PLACES], &mut Vec<(u32, u64)>) {
        if self.counts.len() < PLACES {
            self.counts = vec![[0; 2]; PLACES];
        }
        let (places, _) = self.counts.as_chunks_mut::<PLACES>();
        (&mut places[0], &mut self.runs)
    }
}

/// Set in a bucket of [`bucket_of`] for negative values.
const SIGN: u32 = 1 << (63 - SHIFT);

/// The bucket of a value that is not NaN: sign, exponent, and the first bits of the mantissa.
pub(crate) fn bucket_of(value: f64) -> u32 {
    (value.to_bits() >> SHIFT) as u32
}

/// The middle of a bucket of positive numbers.
fn middle_of(index: u32) -> f64 {
    f64::from_bits(u64::from(index) << SHIFT | 1 << (SHIFT - 1))
}

/// The buckets of one sign that hold something: index and count, ascending.
#[derive(Debug, Clone, PartialEq, Default)]
struct Buckets {
    runs: Vec<(u32, u64)>,
}

impl Buckets {
    /// The lowest bucket that is kept beside a highest one; what would go below counts into it.
    fn floor(highest: u32) -> u32 {
        highest.saturating_sub(BUCKETS_MAX - 1)
    }

    fn add(&mut self, index: u32, times: u64) {
        let highest = self.runs.last().map_or(index, |last| last.0.max(index));
        let index = index.max(Self::floor(highest));
        match self.runs.binary_search_by_key(&index, |run| run.0) {
            Ok(at) => self.runs[at].1 = self.runs[at].1.saturating_add(times),
            Err(at) => self.runs.insert(at, (index, times)),
        }
        self.collapse();
    }

    /// Moves what lies too far below the highest bucket into the lowest one that is kept. Whether it is done early or late, the
    /// outcome is the same, because the highest bucket only ever rises.
    fn collapse(&mut self) {
        let Some(&(highest, _)) = self.runs.last() else { return };
        let floor = Self::floor(highest);
        if self.runs[0].0 >= floor {
            return;
        }
        let end = self.runs.partition_point(|run| run.0 <= floor);
        let total = self.runs[..end].iter().fold(0u64, |sum, run| sum.saturating_add(run.1));
        self.runs.drain(..end - 1);
        self.runs[0] = (floor, total);
    }

    fn merge(&mut self, other: &Self) {
        self.add_runs(&other.runs);
    }

    /// Adds ascending buckets with their counts.
    fn add_runs(&mut self, runs: &[(u32, u64)]) {
        if runs.is_empty() || self.has_added(runs) {
            return;
        }
        let mut merged = Vec::with_capacity(self.runs.len() + runs.len());
        let (mut left, mut right) = (self.runs.iter().peekable(), runs.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    let both = (a.0, a.1.saturating_add(b.1));
                    left.next();
                    right.next();
                    both
                }
                (Some(a), Some(b)) if a.0 > b.0 => *right.next().unwrap_or(&(0, 0)),
                (Some(_), _) => *left.next().unwrap_or(&(0, 0)),
                (None, Some(_)) => *right.next().unwrap_or(&(0, 0)),
                (None, None) => break,
            };
            merged.push(next);
        }
        self.runs = merged;
        self.collapse();
    }

    /// Adds in place when all of the buckets are there; false, and nothing added, when one is missing.
    fn has_added(&mut self, runs: &[(u32, u64)]) -> bool {
        let mut mine = self.runs.iter();
        if !runs.iter().all(|(index, _)| mine.find(|run| run.0 >= *index).is_some_and(|run| run.0 == *index)) {
            return false;
        }
        let mut mine = self.runs.iter_mut();
        for (index, count) in runs {
            if let Some(run) = mine.find(|run| run.0 == *index) {
                run.1 = run.1.saturating_add(*count);
            }
        }
        true
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.runs.len() as u64);
        let mut before = 0;
        for (index, count) in &self.runs {
            put_varint(out, u64::from(index - before));
            put_varint(out, *count);
            before = *index;
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let length = reader.varint()?;
        if length > u64::from(BUCKETS_MAX) || length > reader.remaining() as u64 / 2 {
            return Err(reader.corrupt("it has too many buckets"));
        }
        let mut runs: Vec<(u32, u64)> = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let (distance, count) = (reader.varint()?, reader.varint()?);
            let before = runs.last().map_or(0, |run| u64::from(run.0));
            let index = before.saturating_add(distance);
            let is_bucket = (u64::from(INDEX_MIN)..u64::from(INDEX_END)).contains(&index);
            if !is_bucket || distance == 0 || count == 0 {
                return Err(reader.corrupt("a bucket is empty or in the wrong place"));
            }
            runs.push((index as u32, count));
        }
        if let (Some(first), Some(last)) = (runs.first(), runs.last())
            && first.0 < Self::floor(last.0)
        {
            return Err(reader.corrupt("its buckets are too far apart"));
        }
        Ok(Self { runs })
    }
}
