//! Activations of whole layers. Those of float32 networks are written so that the compiler makes vector instructions of them.

use super::plain::Activation;

/// A float type that a network computes in.
pub(super) trait Float: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn is_zero(self) -> bool;
    /// `a * b + c`, rounded once with `FMA`, which the processor must have; else twice.
    fn multiply_add<const FMA: bool>(a: Self, b: Self, c: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn activate(values: &mut [Self], activation: Activation);
}

macro_rules! float {
    ($type:ty, $logistic:path, $tanh:path) => {
        #[allow(clippy::cast_possible_truncation)] // rounding to the network's precision is the purpose
        impl Float for $type {
            #[inline(always)]
            #[allow(clippy::cast_lossless)] // one of the two types is the value's own
            fn from_f32(value: f32) -> Self {
                value as $type
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                self == 0.0
            }
            #[inline(always)]
            fn multiply_add<const FMA: bool>(a: Self, b: Self, c: Self) -> Self {
                if FMA { a.mul_add(b, c) } else { a * b + c }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn activate(values: &mut [Self], activation: Activation) {
                match activation {
                    Activation::Identity => {}
                    // Written as a comparison, so that NaN stays NaN.
                    Activation::Relu => {
                        values.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value })
                    }
                    Activation::Logistic => values.iter_mut().for_each(|value| *value = $logistic(*value)),
                    Activation::Tanh => values.iter_mut().for_each(|value| *value = $tanh(*value)),
                }
            }
        }
    };
}
float!(f32, logistic_f32, tanh_f32);
float!(f64, logistic_f64, f64::tanh);

fn logistic_f64(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

#[inline(always)]
fn logistic_f32(value: f32) -> f32 {
    1.0 / (1.0 + exp_f32(-value))
}

/// Within 3 units in the last place. Below 0.3 a series in odd powers, as 1 is then too large to be subtracted from.
#[inline(always)]
fn tanh_f32(value: f32) -> f32 {
    let square = value * value;
    let series = [2.186_948_2e-2, -5.396_825e-2, 0.133_333_34, -0.333_333_34];
    let small = value * (1.0 + square * series.iter().fold(-8.863_236e-3, |sum, factor| sum * square + factor));
    let magnitude = 1.0 - 2.0 / (exp_f32(2.0 * value.abs()) + 1.0);
    let large = if value < 0.0 { -magnitude } else { magnitude };
    if value.abs() < SMALL { small } else { large }
}

/// Where the two forms of tanh meet.
const SMALL: f32 = 0.3;

/// `e^value`, within 2 units in the last place: `2^n e^r` with `|r| <= ln 2 / 2`, and a series for `e^r`.
///
/// Nothing is rounded or cast by an instruction of its own: a cast that saturates keeps the compiler from vectors.
#[inline(always)]
fn exp_f32(value: f32) -> f32 {
    // ln 2 in two parts: the first has few bits, so that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // A small number that is added to 1.5 * 2^23 is rounded to a whole one, which stands in the last bits of the sum.
    const WHOLE: f32 = 12_582_912.0;
    // Beyond these the result is 0 or infinite in float32, and the sum below keeps it so.
    let limited = value.clamp(-104.0, 89.0);
    let whole = limited * std::f32::consts::LOG2_E + WHOLE;
    let n = whole - WHOLE;
    let r = (limited - n * LN2_HIGH) - n * LN2_LOW;
    let series = [1.388_888_9e-3, 8.333_334e-3, 4.166_666_8e-2, 0.166_666_67, 0.5];
    let sum = series.iter().fold(1.984_127e-4, |sum, factor| sum * r + factor);
    let power = (sum * r) * r + r + 1.0;
    // 2^n in two factors, each of which a float32 holds. Of NaN the bits are any, and the product is NaN.
    let n = whole.to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
    let half = n >> 1;
    let power_of_two = |n: i32| f32::from_bits((n.wrapping_add(127).cast_unsigned()) << 23);
    power * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance in units in the last place of the exact result.
    fn ulps(found: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if found == nearest {
            return 0.0;
        }
        (f64::from(found) - exact).abs() / f64::from(nearest.abs().next_up() - nearest.abs())
    }

    #[test]
    fn the_functions_of_float32_are_near_the_exact_ones() {
        let mut worst = [0.0f64; 3];
        for step in -200_000..200_000 {
            let value = step as f32 * 4e-4;
            let exact = f64::from(value);
            worst[0] = worst[0].max(ulps(exp_f32(value), exact.exp()));
            worst[1] = worst[1].max(ulps(logistic_f32(value), 1.0 / (1.0 + (-exact).exp())));
            worst[2] = worst[2].max(ulps(tanh_f32(value), exact.tanh()));
        }
        assert!(worst[0] <= 2.0 && worst[1] <= 3.0 && worst[2] <= 3.0, "{worst:?}");
    }

    #[test]
    fn the_ends_of_the_number_line_are_right() {
        assert_eq!((exp_f32(f32::NEG_INFINITY), exp_f32(-200.0), exp_f32(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp_f32(f32::INFINITY), exp_f32(1000.0)), (f32::INFINITY, f32::INFINITY));
        assert_eq!((logistic_f32(f32::NEG_INFINITY), logistic_f32(f32::INFINITY)), (0.0, 1.0));
        assert_eq!((tanh_f32(f32::NEG_INFINITY), tanh_f32(-50.0), tanh_f32(f32::INFINITY)), (-1.0, -1.0, 1.0));
        assert_eq!((tanh_f32(-0.0).to_bits(), tanh_f32(1e-40)), ((-0.0f32).to_bits(), 1e-40));
        assert!(exp_f32(f32::NAN).is_nan() && logistic_f32(f32::NAN).is_nan() && tanh_f32(f32::NAN).is_nan());
    }
}
