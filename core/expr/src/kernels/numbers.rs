//! Numbers. Transcendental functions come from `libm`, which has the same bits on every platform.

use std::f64::consts::PI;

use crate::ops::{Comparison, FloatBinary, FloatUnary, IntBinary, IntUnary};

/// The mean radius of the Earth of the International Union of Geodesy and Geophysics, (2a + b) / 3.
const EARTH_RADIUS_KM: f64 = 6_371.008_8;

/// Applies a function to each value. The match on the operation is outside the loop.
macro_rules! each {
    ($input:expr, $out:expr, $f:expr) => {{
        let f = $f;
        for (out, &x) in $out.iter_mut().zip($input) {
            *out = f(x);
        }
    }};
    ($left:expr, $right:expr, $out:expr, $f:expr) => {{
        let f = $f;
        for ((out, &x), &y) in $out.iter_mut().zip($left).zip($right) {
            *out = f(x, y);
        }
    }};
}

#[inline(always)]
pub(crate) fn float_unary(op: FloatUnary, x: &[f64], out: &mut [f64]) {
    match op {
        FloatUnary::Neg => each!(x, out, |x: f64| -x),
        FloatUnary::Abs => each!(x, out, |x: f64| x.abs()),
        FloatUnary::Sin => each!(x, out, libm::sin),
        FloatUnary::Cos => each!(x, out, libm::cos),
        FloatUnary::Tan => each!(x, out, libm::tan),
        FloatUnary::Asin => each!(x, out, libm::asin),
        FloatUnary::Acos => each!(x, out, libm::acos),
        FloatUnary::Atan => each!(x, out, libm::atan),
        FloatUnary::Exp => each!(x, out, libm::exp),
        FloatUnary::Log => each!(x, out, libm::log),
        FloatUnary::Log1p => each!(x, out, libm::log1p),
        FloatUnary::Expm1 => each!(x, out, libm::expm1),
        FloatUnary::Sqrt => each!(x, out, libm::sqrt),
        FloatUnary::Floor => each!(x, out, libm::floor),
        FloatUnary::Ceil => each!(x, out, libm::ceil),
        FloatUnary::Round => each!(x, out, libm::rint),
        FloatUnary::Radians => each!(x, out, |x: f64| x * (PI / 180.0)),
        FloatUnary::ToFloat32 => each!(x, out, |x: f64| f64::from(x as f32)),
    }
}

#[inline(always)]
pub(crate) fn float_binary(op: FloatBinary, x: &[f64], y: &[f64], out: &mut [f64]) {
    match op {
        FloatBinary::Add => each!(x, y, out, |x: f64, y: f64| x + y),
        FloatBinary::Sub => each!(x, y, out, |x: f64, y: f64| x - y),
        FloatBinary::Mul => each!(x, y, out, |x: f64, y: f64| x * y),
        FloatBinary::Div => each!(x, y, out, |x: f64, y: f64| x / y),
        FloatBinary::Mod => each!(x, y, out, float_mod),
        FloatBinary::Pow => each!(x, y, out, libm::pow),
        FloatBinary::Atan2 => each!(x, y, out, libm::atan2),
        FloatBinary::Min => each!(x, y, out, float_min),
        FloatBinary::Max => each!(x, y, out, float_max),
    }
}

/// NaN if one is; of equals the first.
#[inline]
pub(crate) fn float_min(x: f64, y: f64) -> f64 {
    if x.is_nan() || !(y < x || y.is_nan()) { x } else { y }
}

/// NaN if one is; of equals the first.
#[inline]
pub(crate) fn float_max(x: f64, y: f64) -> f64 {
    if x.is_nan() || !(y > x || y.is_nan()) { x } else { y }
}

/// Great-circle distances in kilometres between points of latitude and longitude in degrees, by the haversine formula.
#[inline]
pub(crate) fn haversine([latitude, longitude, to_latitude, to_longitude]: [&[f64]; 4], out: &mut [f64]) {
    let points = latitude.iter().zip(longitude).zip(to_latitude.iter().zip(to_longitude));
    for (out, ((&latitude, &longitude), (&to_latitude, &to_longitude))) in out.iter_mut().zip(points) {
        let (from, to) = (latitude * (PI / 180.0), to_latitude * (PI / 180.0));
        let half_latitude = libm::sin((to - from) / 2.0);
        let half_longitude = libm::sin((to_longitude - longitude) * (PI / 180.0) / 2.0);
        let chord = half_latitude * half_latitude + libm::cos(from) * libm::cos(to) * (half_longitude * half_longitude);
        // Rounding may lift the chord of opposite points above 1.
        *out = 2.0 * EARTH_RADIUS_KM * libm::asin(libm::sqrt(float_min(chord, 1.0)));
    }
}

/// The number of boundaries at or below each value; null for NaN.
#[inline]
pub(crate) fn bucketize(boundaries: &[f64], x: &[f64], out: &mut [i64], valid: &mut [bool]) {
    int_checked(x, out, valid, |x: f64| {
        (!x.is_nan()).then(|| boundaries.partition_point(|&boundary| boundary <= x) as i64)
    });
}

/// The remainder with the sign of the divisor; a zero result has that sign too.
fn float_mod(x: f64, y: f64) -> f64 {
    let remainder = libm::fmod(x, y);
    if remainder == 0.0 {
        libm::copysign(0.0, y)
    } else if (remainder < 0.0) != (y < 0.0) {
        remainder + y
    } else {
        remainder
    }
}

/// Writes results where there is one, and clears the validity where there is none.
macro_rules! each_checked {
    ($input:expr, $out:expr, $valid:expr, $f:expr) => {{
        let f = $f;
        for ((out, valid), &x) in $out.iter_mut().zip($valid.iter_mut()).zip($input) {
            let result: Option<i64> = f(x);
            *valid &= result.is_some();
            *out = result.unwrap_or(0);
        }
    }};
    ($left:expr, $right:expr, $out:expr, $valid:expr, $f:expr) => {{
        let f = $f;
        for (((out, valid), &x), &y) in $out.iter_mut().zip($valid.iter_mut()).zip($left).zip($right) {
            let result: Option<i64> = f(x, y);
            *valid &= result.is_some();
            *out = result.unwrap_or(0);
        }
    }};
}

/// Applies a function that may have no answer, which is null.
#[inline(always)]
pub(crate) fn int_checked<T: Copy>(x: &[T], out: &mut [i64], valid: &mut [bool], f: impl Fn(T) -> Option<i64>) {
    each_checked!(x, out, valid, f);
}

#[inline]
pub(crate) fn int_unary(op: IntUnary, x: &[i64], out: &mut [i64], valid: &mut [bool]) {
    match op {
        IntUnary::Neg => each_checked!(x, out, valid, i64::checked_neg),
        IntUnary::Abs => each_checked!(x, out, valid, i64::checked_abs),
    }
}

#[inline(always)]
pub(crate) fn int_binary(op: IntBinary, x: &[i64], y: &[i64], out: &mut [i64], valid: &mut [bool]) {
    match op {
        IntBinary::Add => each_checked!(x, y, out, valid, i64::checked_add),
        IntBinary::Sub => each_checked!(x, y, out, valid, i64::checked_sub),
        IntBinary::Mul => each_checked!(x, y, out, valid, i64::checked_mul),
        IntBinary::Mod => each_checked!(x, y, out, valid, int_mod),
        IntBinary::Min => each!(x, y, out, |x: i64, y: i64| x.min(y)),
        IntBinary::Max => each!(x, y, out, |x: i64, y: i64| x.max(y)),
    }
}

/// The remainder with the sign of the divisor.
fn int_mod(x: i64, y: i64) -> Option<i64> {
    if y == 0 {
        return None;
    }
    let remainder = x.wrapping_rem(y); // `i64::MIN % -1` is 0
    Some(if remainder != 0 && (remainder < 0) != (y < 0) { remainder + y } else { remainder })
}

#[inline(always)]
pub(crate) fn float_to_int(x: &[f64], out: &mut [i64], valid: &mut [bool]) {
    // Both bounds are exact floats; 2^63 itself is outside, NaN fails both comparisons.
    const LOW: f64 = -9_223_372_036_854_775_808.0;
    const HIGH: f64 = 9_223_372_036_854_775_808.0;
    each_checked!(x, out, valid, |x: f64| (LOW..HIGH).contains(&x).then_some(x as i64));
}

#[inline]
pub(crate) fn int_within(low: i64, high: i64, x: &[i64], out: &mut [i64], valid: &mut [bool]) {
    each_checked!(x, out, valid, |x: i64| (low..=high).contains(&x).then_some(x));
}

#[inline(always)]
pub(crate) fn compare<T: PartialOrd + Copy>(op: Comparison, x: &[T], y: &[T], out: &mut [bool]) {
    match op {
        Comparison::Eq => each!(x, y, out, |x: T, y: T| x == y),
        Comparison::Ne => each!(x, y, out, |x: T, y: T| x != y),
        Comparison::Lt => each!(x, y, out, |x: T, y: T| x < y),
        Comparison::Le => each!(x, y, out, |x: T, y: T| x <= y),
        Comparison::Gt => each!(x, y, out, |x: T, y: T| x > y),
        Comparison::Ge => each!(x, y, out, |x: T, y: T| x >= y),
    }
}
