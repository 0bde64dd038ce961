use std::fmt::Debug;
use std::ops::{Add, Sub};

use super::ensemble::Precision;
use super::forest::Input;
use super::search::{self, FANOUT};

/// A float type that a trainer computes in.
pub(super) trait Number:
    Input + Copy + PartialOrd + Default + Debug + Add<Output = Self> + Sub<Output = Self> + Send + Sync + 'static
{
    const NAN: Self;
    /// The smallest number above `self`; NaN for infinity.
    fn above(self) -> Self;
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn to_f64(self) -> f64;
    fn is_nan(self) -> bool;
    /// How many values of a sorted block (NaN last) are at most `value`. With `AVX2` the processor must have it.
    fn count_at_most<const AVX2: bool>(block: &[Self; FANOUT], value: Self) -> usize;
}

#[allow(clippy::cast_possible_truncation)] // rounding to the trainer's precision is the purpose
impl Number for f32 {
    const NAN: Self = f32::NAN;
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
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
    #[inline(always)]
    fn count_at_most<const AVX2: bool>(block: &[Self; FANOUT], value: Self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if AVX2 {
            // SAFETY: the caller has asked the processor.
            return unsafe { search::count_at_most_f32_avx2(block, value) };
        }
        #[cfg(target_arch = "x86_64")]
        return search::count_at_most_f32(block, value);
        #[cfg(not(target_arch = "x86_64"))]
        search::count_at_most_plain(block, value)
    }
}

impl Number for f64 {
    const NAN: Self = f64::NAN;
    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
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
    #[inline(always)]
    fn count_at_most<const AVX2: bool>(block: &[Self; FANOUT], value: Self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if AVX2 {
            // SAFETY: the caller has asked the processor.
            return unsafe { search::count_at_most_f64_avx2(block, value) };
        }
        #[cfg(target_arch = "x86_64")]
        return search::count_at_most_f64(block, value);
        #[cfg(not(target_arch = "x86_64"))]
        search::count_at_most_plain(block, value)
    }
}

/// A bin as it is stored: the narrowest type that fits keeps a forest small enough for the caches.
///
/// Signed, with the type's smallest number for bin 0: vector instructions compare bytes as signed numbers.
pub(super) trait Bin: Copy + Ord + Debug + Send + Sync + 'static {
    /// Bin 0.
    const MIN: Self;
    const MAX: Self;
    /// How many bins there are, but for the last, which means "always".
    const COUNT_MAX: usize;
    /// For a bin that is known to fit.
    fn from_bin(bin: usize) -> Self;
    /// A number that is no bin, with the same bits: a leaf of a swept tree.
    fn from_number(number: usize) -> Self;
    fn number(self) -> usize;
    /// `yes` or `no`, by masks: a loop of selections becomes vector instructions, a loop of branches does not.
    fn select(condition: bool, yes: Self, no: Self) -> Self;
    /// `number`, or the one after it.
    fn next_if(condition: bool, number: Self) -> Self;
}

macro_rules! bin {
    ($type:ty, $unsigned:ty) => {
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
        impl Bin for $type {
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;
            const COUNT_MAX: usize = <$unsigned>::MAX as usize;
            #[inline(always)]
            fn from_bin(bin: usize) -> Self {
                (bin as $type).wrapping_add(<$type>::MIN)
            }
            #[inline(always)]
            fn from_number(number: usize) -> Self {
                number as $type
            }
            #[inline(always)]
            fn number(self) -> usize {
                self as $unsigned as usize
            }
            #[inline(always)]
            fn select(condition: bool, yes: Self, no: Self) -> Self {
                let mask = (condition as $type).wrapping_neg();
                (yes & mask) | (no & !mask)
            }
            #[inline(always)]
            fn next_if(condition: bool, number: Self) -> Self {
                number.wrapping_add(condition as $type)
            }
        }
    };
}
bin!(i8, u8);
bin!(i16, u16);
bin!(i32, u32);

/// A place or a distance as it is stored.
pub(super) trait Offset: Copy + Default + Debug + Send + Sync + 'static {
    fn from_usize(value: usize) -> Self;
    fn to_usize(self) -> usize;
}

macro_rules! offset {
    ($type:ty) => {
        impl Offset for $type {
            #[inline]
            fn from_usize(value: usize) -> Self {
                <$type>::try_from(value).expect("the width was chosen to hold every place and distance")
            }
            #[inline(always)]
            fn to_usize(self) -> usize {
                self as usize
            }
        }
    };
}
offset!(u8);
offset!(u16);
offset!(u32);

/// `value` in the given precision, as float64.
#[inline]
pub(crate) fn round_to(precision: Precision, value: f64) -> f64 {
    match precision {
        Precision::Float32 => f32::from_f64(value).to_f64(),
        Precision::Float64 => value,
    }
}
