//! Sums to twice a float64's digits, and the partials that are made of them.
//!
//! A sum of so many digits is the same float in whatever order its values come, but for cases that have to be looked for. Runs are summed in
//! lanes ([`Lanes`]); the plain twin is [`Wide::add`], one value after the other.

use serde::{Deserialize, Serialize};

/// A sum to twice a float64's digits: `high` is the sum rounded, `low` is what rounding left out. Knuth's two-sum and Dekker's product.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Wide {
    pub(super) high: f64,
    pub(super) low: f64,
}

impl Wide {
    #[allow(clippy::cast_precision_loss)] // what is lost is kept in `low`
    pub(super) fn of_int(value: i128) -> Self {
        let high = value as f64;
        Self { high, low: value.saturating_sub(high as i128) as f64 }
    }

    #[inline]
    fn add(self, other: Self) -> Self {
        let sum = self.high + other.high;
        if !sum.is_finite() {
            return Self { high: sum, low: 0.0 };
        }
        let part = sum - self.high;
        let error = (self.high - (sum - part)) + (other.high - part);
        let low = error + self.low + other.low;
        let high = sum + low;
        Self { high, low: low - (high - sum) }
    }

    fn times(self, other: Self) -> Self {
        let (product, error) = two_product(self.high, other.high);
        if !product.is_finite() || !error.is_finite() {
            return Self { high: product, low: 0.0 };
        }
        let low = error + (self.high * other.low + self.low * other.high);
        let high = product + low;
        Self { high, low: low - (high - product) }
    }

    fn minus(self, other: Self) -> Self {
        self.add(Self { high: -other.high, low: -other.low })
    }

    fn over(self, divisor: f64) -> Self {
        let quotient = self.high / divisor;
        if !quotient.is_finite() {
            return Self { high: quotient, low: 0.0 };
        }
        let rest = self.minus(Self { high: quotient, low: 0.0 }.times(Self { high: divisor, low: 0.0 }));
        Self { high: quotient, low: 0.0 }.add(Self { high: rest.high / divisor, low: 0.0 })
    }

    /// As [`Self::over`], rounded.
    fn quotient(self, divisor: f64) -> f64 {
        let quotient = self.high / divisor;
        let (product, error) = two_product(quotient, divisor);
        if !product.is_finite() || !error.is_finite() {
            return quotient;
        }
        quotient + ((self.high - product) - error + self.low) / divisor
    }

    fn value(self) -> f64 {
        self.high + self.low
    }
}

/// A product rounded, and what rounding left out (Dekker).
#[inline]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (a, a_low) = split(a);
    let (b, b_low) = split(b);
    (product, ((a * b - product) + a * b_low + a_low * b) + a_low * b_low)
}

/// Halves of a float's digits, so that products of halves are exact.
fn split(value: f64) -> (f64, f64) {
    let scaled = 134_217_729.0 * value;
    let high = scaled - (scaled - value);
    (high, value - high)
}

/// Floats side by side are summed in so many lanes, so that a processor works on all of them at once.
const FLOAT_LANES: usize = 4;

/// A sum under way, in lanes that do not depend on each other: what rounding leaves out is added up on its own and put together once at the
/// end (Ogita, Rump and Oishi's Sum2).
struct Lanes<const N: usize> {
    high: [f64; N],
    low: [f64; N],
}

impl<const N: usize> Lanes<N> {
    #[inline]
    fn add(&mut self, lane: usize, value: Wide) {
        let sum = self.high[lane] + value.high;
        let part = sum - self.high[lane];
        self.low[lane] += (self.high[lane] - (sum - part)) + (value.high - part) + value.low;
        self.high[lane] = sum;
    }

    #[inline]
    fn finish(mut self) -> Wide {
        for lane in 1..N {
            self.add(0, Wide { high: self.high[lane], low: self.low[lane] });
        }
        let high = Wide { high: self.high[0], low: 0.0 };
        // Of a sum that is not finite there is no rest.
        if high.high.is_finite() { high.add(Wide { high: self.low[0], low: 0.0 }) } else { high }
    }
}

/// The sum of what `wide` makes of each item, in `N` lanes.
#[inline]
fn sum_of<const N: usize, T>(items: &[T], wide: impl Fn(&T) -> Wide) -> Wide {
    let mut lanes = Lanes { high: [0.0; N], low: [0.0; N] };
    let (chunks, rest) = items.as_chunks::<N>();
    for chunk in chunks {
        for (lane, item) in chunk.iter().enumerate() {
            lanes.add(lane, wide(item));
        }
    }
    for (lane, item) in rest.iter().enumerate() {
        lanes.add(lane, wide(item));
    }
    lanes.finish()
}

/// The twin of [`sum_of`]: one by one, each rounded to all digits.
#[cfg(test)]
fn plain_sum_of<T>(items: &[T], wide: impl Fn(&T) -> Wide) -> Wide {
    items.iter().fold(Wide::default(), |sum, item| sum.add(wide(item)))
}

/// The number of some ints, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct IntSum {
    count: u64,
    sum: i128,
}

impl IntSum {
    pub(super) fn add(&mut self, value: i128) {
        self.merge(&Self { count: 1, sum: value });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
    }

    /// None where it is no int64.
    pub(super) fn total(&self) -> Option<i64> {
        i64::try_from(self.sum).ok()
    }

    pub(super) fn mean(&self) -> Option<f64> {
        mean(self.count, Wide::of_int(self.sum))
    }
}

/// The number of some floats, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct FloatSum {
    count: u64,
    sum: Wide,
}

impl FloatSum {
    pub(super) fn add(&mut self, value: Wide) {
        self.merge(&Self { count: 1, sum: value });
    }

    pub(super) fn add_floats(&mut self, values: &[f64]) {
        let sum = sum_of::<FLOAT_LANES, _>(values, |&value| Wide { high: value, low: 0.0 });
        self.merge(&Self { count: values.len() as u64, sum });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.add(other.sum);
    }

    pub(super) fn merge_all(&mut self, others: &[Self]) {
        let count = others.iter().map(|other| other.count).sum();
        self.merge(&Self { count, sum: sum_of::<1, _>(others, |other| other.sum) });
    }

    pub(super) fn total(&self) -> f64 {
        self.sum.value()
    }

    pub(super) fn mean(&self) -> Option<f64> {
        mean(self.count, self.sum)
    }
}

/// The number of some numbers, their sum, and that of their squares.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Squares {
    count: u64,
    sum: Wide,
    squares: Wide,
}

impl Squares {
    pub(super) fn add(&mut self, value: Wide) {
        self.merge(&Self { count: 1, sum: value, squares: value.times(value) });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.add(other.sum);
        self.squares = self.squares.add(other.squares);
    }

    pub(super) fn merge_all(&mut self, others: &[Self]) {
        let count = others.iter().map(|other| other.count).sum();
        let sum = sum_of::<1, _>(others, |other| other.sum);
        let squares = sum_of::<1, _>(others, |other| other.squares);
        self.merge(&Self { count, sum, squares });
    }

    /// Of a sample; none of fewer than two.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn variance(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        // The sum of squared distances from the mean is that of the squares less the square of the sum over the count.
        let count = self.count as f64;
        let distances = self.squares.minus(self.sum.times(self.sum).over(count)).value();
        Some(if distances.is_nan() { f64::NAN } else { distances.max(0.0) / (count - 1.0) })
    }
}

#[allow(clippy::cast_precision_loss)]
fn mean(count: u64, sum: Wide) -> Option<f64> {
    (count > 0).then(|| sum.quotient(count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_float(value: f64) -> Wide {
        Wide { high: value, low: 0.0 }
    }

    proptest! {
        #[test]
        fn lanes_give_exact_sums_as_the_plain_way_does(ints in prop::collection::vec(-(1i64 << 40)..1 << 40, 0..300)) {
            let floats: Vec<f64> = ints.iter().map(|&int| int as f64).collect();
            let sum = sum_of::<FLOAT_LANES, _>(&floats, |&value| of_float(value));
            prop_assert_eq!(sum, sum_of::<1, _>(&floats, |&value| of_float(value)));
            prop_assert_eq!(sum, plain_sum_of(&floats, |&value| of_float(value)));
            prop_assert_eq!(sum.value(), ints.iter().sum::<i64>() as f64);
        }

        #[test]
        fn lanes_agree_with_the_plain_way_far_beyond_a_floats_digits(
            parts in prop::collection::vec((-1e9f64..1e9, -1e-9f64..1e-9), 0..300),
            scale in -200i32..200,
        ) {
            let scale = 2f64.powi(scale);
            let parts: Vec<Wide> =
                parts.iter().map(|&(high, low)| of_float(high * scale).add(of_float(low * scale))).collect();
            let size: f64 = parts.iter().map(|part| part.high.abs()).sum();
            let plain = plain_sum_of(&parts, |&part| part);
            for lanes in [sum_of::<1, _>(&parts, |&part| part), sum_of::<FLOAT_LANES, _>(&parts, |&part| part)] {
                prop_assert!(lanes.minus(plain).value().abs() <= size * 2f64.powi(-95));
            }
        }

        #[test]
        fn what_is_not_finite_is_so_in_lanes(
            mut values in prop::collection::vec(-1e6f64..1e6, 0..40),
            odd in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3), 1..4),
        ) {
            for (at, which) in odd {
                values.insert(at.index(values.len() + 1), [f64::INFINITY, f64::NEG_INFINITY, f64::NAN][which]);
            }
            let plain = plain_sum_of(&values, |&value| of_float(value)).value();
            let (one, four) =
                (sum_of::<1, _>(&values, |&value| of_float(value)), sum_of::<FLOAT_LANES, _>(&values, |&value| of_float(value)));
            for lanes in [one.value(), four.value()] {
                prop_assert!(lanes == plain || (lanes.is_nan() && plain.is_nan()), "{} {}", lanes, plain);
            }
        }

        #[test]
        fn a_quotient_is_that_of_all_digits(high in -1e12f64..1e12, low in -1e-6f64..1e-6, divisor in 1u32..1_000_000) {
            let sum = of_float(high).add(of_float(low));
            let (found, wanted) = (sum.quotient(divisor.into()), sum.over(divisor.into()).value());
            prop_assert!((found - wanted).abs() <= wanted.abs() * f64::EPSILON / 2.0, "{} {}", found, wanted);
        }
    }
}
