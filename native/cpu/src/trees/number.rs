use std::fmt::Debug;
use std::ops::{Add, Sub};

use super::ensemble::Precision;
use super::search::{self, FANOUT};

/// A float type that a trainer computes in.
pub(super) trait Number:
    Copy + PartialOrd + Default + Debug + Add<Output = Self> + Sub<Output = Self> + Send + Sync + 'static
{
    const NAN: Self;
    /// The smallest number above `self`; NaN for infinity.
    fn above(self) -> Self;
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn to_f64(self) -> f64;
    /// How many values of a sorted block (NaN last) are at most `value`.
    fn count_at_most(block: &[Self; FANOUT], value: Self) -> usize;
}

#[allow(clippy::cast_possible_truncation)] // rounding to the trainer's precision is the purpose
impl Number for f32 {
    const NAN: Self = f32::NAN;
    fn above(self) -> Self {
        if self == f32::INFINITY { f32::NAN } else { self.next_up() }
    }
    #[inline]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline]
    fn to_f64(self) -> f64 {
        self.into()
    }
    #[inline]
    fn count_at_most(block: &[Self; FANOUT], value: Self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return search::count_at_most_f32(block, value);
        #[cfg(not(target_arch = "x86_64"))]
        search::count_at_most_plain(block, value)
    }
}

impl Number for f64 {
    const NAN: Self = f64::NAN;
    fn above(self) -> Self {
        if self == f64::INFINITY { f64::NAN } else { self.next_up() }
    }
    #[inline]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline]
    fn from_f32(value: f32) -> Self {
        value.into()
    }
    #[inline]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline]
    fn count_at_most(block: &[Self; FANOUT], value: Self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return search::count_at_most_f64(block, value);
        #[cfg(not(target_arch = "x86_64"))]
        search::count_at_most_plain(block, value)
    }
}

/// A bin number as it is stored: the narrowest type that fits keeps a forest small enough for the caches.
pub(super) trait Bin: Copy + Ord + Default + Debug + Send + Sync + 'static {
    const MAX: Self;
    fn from_usize(value: usize) -> Self;
    fn to_usize(self) -> usize;
    /// For a number that is known to fit.
    fn truncate(value: usize) -> Self;
}

macro_rules! bin {
    ($type:ty) => {
        impl Bin for $type {
            const MAX: Self = <$type>::MAX;
            #[inline]
            fn from_usize(value: usize) -> Self {
                <$type>::try_from(value).expect("the width was chosen to hold every bin and slot")
            }
            #[inline]
            fn to_usize(self) -> usize {
                self as usize
            }
            #[inline]
            #[allow(clippy::cast_possible_truncation)]
            fn truncate(value: usize) -> Self {
                value as $type
            }
        }
    };
}
bin!(u8);
bin!(u16);
bin!(u32);

/// `value` in the given precision, as float64.
#[inline]
pub(super) fn round_to(precision: Precision, value: f64) -> f64 {
    match precision {
        Precision::Float32 => f32::from_f64(value).to_f64(),
        Precision::Float64 => value,
    }
}
