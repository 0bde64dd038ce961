//! The loops that run over every number of a column, in a form that the compiler turns into vector instructions.

use std::ops::Neg;

use headrace_cpu::{Vectorized, vectorized};

use crate::hash::{hash_float, hash_word};
use crate::quantile::{INDEX_MIN, SHIFT};

/// Independent sums, so that the processor can add several at once.
const LANES: usize = 8;
/// Buckets of a number's own bits: those of the widest type, float64.
pub(crate) const PLACES: usize = 1 << (64 - SHIFT);

/// A float of either width, whose own bits tell its bucket: sign, exponent and the first 6 bits of the mantissa.
pub(crate) trait Number: Copy + PartialOrd + Neg<Output = Self> {
    type Bits: Copy + Ord;
    const INFINITY: Self;
    /// Set in the place of negative numbers.
    const SIGN: usize;
    /// The place of infinity; NaN have it or larger ones.
    const END: usize;
    /// What leads from the place of a normal number to the bucket of its value as a float64.
    const BASE: u32;
    fn wide(self) -> f64;
    fn magnitude(self) -> Self;
    fn place(self) -> usize;
    /// A number that rises with the magnitude; the largest of all for zero.
    fn above_zero(self) -> Self::Bits;
    /// The magnitude behind an answer of [`Self::above_zero`] that is at most that of infinity.
    fn from_above_zero(bits: Self::Bits) -> Self;
}

macro_rules! number {
    ($float:ident, $bits:ident, $exponent_bits:literal, $exponent_of_0:literal) => {
        #[allow(clippy::cast_lossless)]
        impl Number for $float {
            type Bits = $bits;
            const INFINITY: Self = $float::INFINITY;
            const SIGN: usize = (INDEX_MIN as usize) << $exponent_bits;
            const END: usize = Self::SIGN - INDEX_MIN as usize;
            const BASE: u32 = (1023 - $exponent_of_0) * INDEX_MIN;

            #[inline(always)]
            fn wide(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn place(self) -> usize {
                const SHIFT: u32 = $float::MANTISSA_DIGITS - 1 - INDEX_MIN.trailing_zeros();
                (self.to_bits() >> SHIFT) as usize
            }

            #[inline(always)]
            fn above_zero(self) -> $bits {
                self.abs().to_bits().wrapping_sub(1)
            }

            #[inline(always)]
            fn from_above_zero(bits: $bits) -> Self {
                $float::from_bits(bits + 1)
            }
        }
    };
}
number!(f32, u32, 8, 127);
number!(f64, u64, 11, 1023);

/// What a look at all numbers tells of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen<T> {
    pub(crate) finite: u64,
    pub(crate) infinite_below: u64,
    pub(crate) infinite_above: u64,
    /// Of the finite numbers.
    pub(crate) sum: f64,
    /// The smallest and the largest finite number; +inf and -inf when there is none.
    pub(crate) low: T,
    pub(crate) high: T,
    /// The smallest magnitude that is not zero; +inf when there is none.
    pub(crate) nearest: T,
}

pub(crate) fn look<T: Number>(values: &[T]) -> Seen<T> {
    // A number that is not finite makes the sum so too: then, and where finite ones overflow, each is looked at.
    let seen = vectorized(Look::<T, true>(values));
    // The last few are looked at one by one in any case.
    if seen.sum.is_finite() && seen.finite == values.len() as u64 {
        return seen;
    }
    let count = |infinite: T| values.iter().filter(|value| **value == infinite).count() as u64;
    let (infinite_below, infinite_above) = (count(-T::INFINITY), count(T::INFINITY));
    Seen { infinite_below, infinite_above, ..vectorized(Look::<T, false>(values)) }
}

/// `FINITE` promises that all numbers are finite: what is seen of others is wrong.
struct Look<'a, T, const FINITE: bool>(&'a [T]);

/// What each lane has seen.
struct Lanes<T: Number> {
    finite: [u32; LANES],
    sums: [f64; LANES],
    low: [T; LANES],
    high: [T; LANES],
    nearest: [T::Bits; LANES],
}

impl<T: Number> Lanes<T> {
    /// One short loop for each, which the compiler turns into one instruction for all lanes.
    #[allow(clippy::needless_range_loop)] // a lane of all of them
    #[inline(always)]
    fn add<const FINITE: bool>(&mut self, values: &[T; LANES]) {
        for lane in 0..LANES {
            self.finite[lane] += u32::from(FINITE || values[lane].magnitude() < T::INFINITY);
        }
        for lane in 0..LANES {
            let value = values[lane].wide();
            self.sums[lane] += if FINITE || value.abs() < f64::INFINITY { value } else { 0.0 };
        }
        for lane in 0..LANES {
            let is_taken = FINITE || values[lane].magnitude() < T::INFINITY;
            let value = if is_taken { values[lane] } else { T::INFINITY };
            self.low[lane] = if value < self.low[lane] { value } else { self.low[lane] };
        }
        for lane in 0..LANES {
            let is_taken = FINITE || values[lane].magnitude() < T::INFINITY;
            let value = if is_taken { values[lane] } else { -T::INFINITY };
            self.high[lane] = if value > self.high[lane] { value } else { self.high[lane] };
        }
        for lane in 0..LANES {
            self.nearest[lane] = self.nearest[lane].min(values[lane].above_zero());
        }
    }
}

impl<T: Number, const FINITE: bool> Vectorized for Look<'_, T, FINITE> {
    type Output = Seen<T>;

    #[inline(always)]
    fn run(self) -> Seen<T> {
        let mut lanes = Lanes {
            finite: [0; LANES],
            sums: [0.0; LANES],
            low: [T::INFINITY; LANES],
            high: [-T::INFINITY; LANES],
            nearest: [T::INFINITY.above_zero(); LANES],
        };
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            lanes.add::<FINITE>(chunk);
        }
        // Filled up with what changes nothing.
        let mut last = [T::INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        lanes.add::<false>(&last);
        Seen {
            finite: lanes.finite.iter().map(|count| u64::from(*count)).sum(),
            infinite_below: 0,
            infinite_above: 0,
            sum: lanes.sums.iter().sum(),
            low: lanes.low.into_iter().fold(T::INFINITY, |a, b| if b < a { b } else { a }),
            high: lanes.high.into_iter().fold(-T::INFINITY, |a, b| if b > a { b } else { a }),
            nearest: T::from_above_zero(lanes.nearest.into_iter().fold(T::INFINITY.above_zero(), Ord::min)),
        }
    }
}

/// The sum of the finite numbers' squared distances from `centre`.
pub(crate) fn squared_distances<T: Number>(values: &[T], seen: &Seen<T>, centre: f64) -> f64 {
    if seen.finite == values.len() as u64 {
        vectorized(Distances::<T, true>(values, centre))
    } else {
        vectorized(Distances::<T, false>(values, centre))
    }
}

struct Distances<'a, T, const FINITE: bool>(&'a [T], f64);

impl<T: Number, const FINITE: bool> Distances<'_, T, FINITE> {
    #[inline(always)]
    fn square(&self, value: T) -> f64 {
        let value = value.wide();
        let distance = value - self.1;
        if FINITE || value.abs() < f64::INFINITY { distance * distance } else { 0.0 }
    }
}

impl<T: Number, const FINITE: bool> Vectorized for Distances<'_, T, FINITE> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut sums = [0.0f64; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += self.square(chunk[lane]);
            }
        }
        rest.iter().zip(&mut sums).for_each(|(value, sum)| *sum += self.square(*value));
        sums.iter().sum()
    }
}

/// Counts numbers by their places. Neighbours go to counters of their own: one that rises twice in a row waits for itself.
#[inline]
pub(crate) fn count_places<T: Number>(values: &[T], counts: &mut [[u32; 2]; PLACES]) {
    let (pairs, rest) = values.as_chunks::<2>();
    for [even, odd] in pairs {
        counts[even.place() % PLACES][0] += 1;
        counts[odd.place() % PLACES][1] += 1;
    }
    rest.iter().for_each(|value| counts[value.place() % PLACES][0] += 1);
}

/// Hashes of floats, in their order.
pub(crate) fn hash_floats<T: Number>(values: &[T], hashes: &mut Vec<u64>) {
    hashes.resize(values.len(), 0);
    vectorized(FloatHashes(values, hashes));
}

struct FloatHashes<'a, T>(&'a [T], &'a mut [u64]);

impl<T: Number> Vectorized for FloatHashes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.iter().zip(self.1).for_each(|(value, hash)| *hash = hash_float(value.wide()));
    }
}

/// Hashes of words in place.
pub(crate) fn hash_words(words: &mut [u64]) {
    vectorized(WordHashes(words));
}

struct WordHashes<'a>(&'a mut [u64]);

impl Vectorized for WordHashes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.iter_mut().for_each(|word| *word = hash_word(*word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awkward() -> Vec<f64> {
        let few = [0.0, -0.0, 1e-40, -3e-320, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -7.5, 2.0];
        (0..1003).map(|i| if i % 7 == 0 { few[i / 7 % few.len()] } else { i as f64 * 0.3 - 90.0 }).collect()
    }

    fn plain_look<T: Number>(values: &[T]) -> (u64, f64, f64, f64) {
        let finite: Vec<f64> = values.iter().map(|value| value.wide()).filter(|value| value.is_finite()).collect();
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let nearest = least(&mut finite.iter().map(|value| value.abs()).filter(|value| *value > 0.0));
        (finite.len() as u64, least(&mut finite.iter().copied()), -least(&mut finite.iter().map(|v| -v)), nearest)
    }

    fn agree<T: Number + std::fmt::Debug>(values: &[T]) {
        for end in (0..80).chain([500, values.len()]) {
            let values = &values[..end];
            let seen = look(values);
            assert_eq!(vectorized(Look::<T, false>(values)), Look::<T, false>(values).run());
            let finite: Vec<T> = values.iter().copied().filter(|v| v.wide().abs() < 1e200).collect();
            assert_eq!(look(&finite), vectorized(Look::<T, false>(&finite)));
            assert_eq!(look(&finite), Look::<T, true>(&finite).run());
            assert_eq!((seen.finite, seen.low.wide(), seen.high.wide(), seen.nearest.wide()), plain_look(values));
            let nans = values.iter().filter(|value| value.wide().is_nan()).count() as u64;
            assert_eq!(seen.finite + seen.infinite_below + seen.infinite_above + nans, end as u64);
            for values in [values, &finite] {
                let fast = squared_distances(values, &look(values), 3.5);
                assert_eq!(fast.to_bits(), Distances::<T, false>(values, 3.5).run().to_bits());
            }
            let mut hashes = Vec::new();
            hash_floats(values, &mut hashes);
            assert!(hashes.iter().eq(&values.iter().map(|value| hash_float(value.wide())).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn vector_loops_and_their_plain_twins_agree() {
        agree(&awkward());
        agree(&awkward().iter().map(|value| *value as f32).collect::<Vec<_>>());
        let mut words: Vec<u64> = (0..99).collect();
        hash_words(&mut words);
        assert!(words.iter().eq(&(0..99).map(hash_word).collect::<Vec<_>>()));
    }

    #[test]
    fn a_place_leads_to_the_bucket_of_the_wide_value() {
        for value in awkward().into_iter().map(|value| value as f32).filter(|value| value.is_normal()) {
            let own = (value.place() & (f32::SIGN - 1)) as u32 + f32::BASE;
            assert_eq!(own, (f64::from(value).abs().to_bits() >> SHIFT) as u32, "{value}");
            assert_eq!(value.place() >= f32::SIGN, value < 0.0);
        }
        assert_eq!((f32::INFINITY.place(), f64::INFINITY.place()), (f32::END, f64::END));
    }
}
