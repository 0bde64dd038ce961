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
    /// `FMA` as for [`Self::multiply_add`].
    fn activate<const FMA: bool>(values: &mut [Self], activation: Activation);
}

macro_rules! float {
    ($type:ty, $logistic:ident, $tanh:ident) => {
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
            fn activate<const FMA: bool>(values: &mut [Self], activation: Activation) {
                match activation {
                    Activation::Identity => {}
                    // Written as a comparison, so that NaN stays NaN.
                    Activation::Relu => each(values, |value| if value < 0.0 { 0.0 } else { value }),
                    Activation::Logistic => each(
                        values,
                        #[inline(always)]
                        |value| $logistic::<FMA>(value),
                    ),
                    Activation::Tanh => each(
                        values,
                        #[inline(always)]
                        |value| $tanh::<FMA>(value),
                    ),
                }
            }
        }
    };
}
float!(f32, logistic_f32, tanh_f32);
float!(f64, logistic_f64, tanh_f64);

/// A loop that is inlined wherever it is called from, and so is compiled for the same instructions: without them each `mul_add` would
/// be a call.
#[inline(always)]
fn each<T: Copy>(values: &mut [T], function: impl Fn(T) -> T) {
    for value in values {
        *value = function(*value);
    }
}

/// `factors[0] * x^(n - 1) + ... + factors[n - 1]`
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(factors: [f32; N], x: f32) -> f32 {
    let mut sum = factors[0];
    for factor in &factors[1..] {
        sum = f32::multiply_add::<FMA>(sum, x, *factor);
    }
    sum
}

fn logistic_f64<const FMA: bool>(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

fn tanh_f64<const FMA: bool>(value: f64) -> f64 {
    value.tanh()
}

/// Within 3 units in the last place.
#[inline(always)]
fn logistic_f32<const FMA: bool>(value: f32) -> f32 {
    1.0 / (1.0 + exp_f32::<FMA>(-value))
}

/// Within 3 units in the last place. Below 0.3 a series in odd powers, as 1 is then too large to be subtracted from.
#[inline(always)]
fn tanh_f32<const FMA: bool>(value: f32) -> f32 {
    let square = value * value;
    let series = [-8.863_236e-3, 2.186_948_2e-2, -5.396_825e-2, 0.133_333_34, -0.333_333_34, 0.0];
    let small = f32::multiply_add::<FMA>(polynomial::<FMA, 6>(series, square), value, value);
    let magnitude = 1.0 - 2.0 / (exp_f32::<FMA>(2.0 * value.abs()) + 1.0);
    if value.abs() < SMALL { small } else { magnitude.copysign(value) }
}

/// Where the two forms of tanh meet.
const SMALL: f32 = 0.3;

/// `e^value`, within 2 units in the last place: `2^n e^r` with `|r| <= ln 2 / 2`, and a series for `e^r`.
///
/// Nothing is rounded or cast by an instruction of its own: a cast that saturates keeps the compiler from vectors. The fewer steps wait
/// for each other the better: a processor looks only some hundred instructions ahead, so there is little else to do meanwhile.
#[inline(always)]
fn exp_f32<const FMA: bool>(value: f32) -> f32 {
    // ln 2 in two parts: the first has few bits, so that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // A small number that is added to 1.5 * 2^23 is rounded to a whole one, which stands in the last bits of the sum.
    const WHOLE: f32 = 12_582_912.0;
    // Beyond these the result is 0 or infinite in float32, and the sum below keeps it so.
    let limited = value.clamp(-104.0, 89.0);
    let whole = f32::multiply_add::<FMA>(limited, std::f32::consts::LOG2_E, WHOLE);
    let n = whole - WHOLE;
    let r = f32::multiply_add::<FMA>(n, -LN2_LOW, f32::multiply_add::<FMA>(n, -LN2_HIGH, limited));
    let square = r * r;
    let highest = f32::multiply_add::<FMA>(1.984_127e-4, r, 1.388_888_9e-3);
    let middle = f32::multiply_add::<FMA>(8.333_334e-3, r, 4.166_666_8e-2);
    let lowest = f32::multiply_add::<FMA>(0.166_666_67, r, 0.5);
    let sum = f32::multiply_add::<FMA>(f32::multiply_add::<FMA>(highest, square, middle), square, lowest);
    let power = f32::multiply_add::<FMA>(sum, square, r) + 1.0;
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
        are_near_the_exact_ones::<true>();
        are_near_the_exact_ones::<false>();
    }

    fn are_near_the_exact_ones<const FMA: bool>() {
        let mut worst = [0.0f64; 3];
        for step in -200_000..200_000 {
            let value = step as f32 * 4e-4;
            let exact = f64::from(value);
            worst[0] = worst[0].max(ulps(exp_f32::<FMA>(value), exact.exp()));
            worst[1] = worst[1].max(ulps(logistic_f32::<FMA>(value), 1.0 / (1.0 + (-exact).exp())));
            worst[2] = worst[2].max(ulps(tanh_f32::<FMA>(value), exact.tanh()));
        }
        assert!(worst[0] <= 2.0 && worst[1] <= 3.0 && worst[2] <= 3.0, "{worst:?}");
    }

    #[test]
    fn the_ends_of_the_number_line_are_right() {
        ends_are_right::<true>();
        ends_are_right::<false>();
    }

    fn ends_are_right<const FMA: bool>() {
        assert_eq!((exp_f32::<FMA>(f32::NEG_INFINITY), exp_f32::<FMA>(-200.0), exp_f32::<FMA>(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp_f32::<FMA>(f32::INFINITY), exp_f32::<FMA>(1000.0)), (f32::INFINITY, f32::INFINITY));
        assert_eq!((logistic_f32::<FMA>(f32::NEG_INFINITY), logistic_f32::<FMA>(f32::INFINITY)), (0.0, 1.0));
        assert_eq!(
            (tanh_f32::<FMA>(f32::NEG_INFINITY), tanh_f32::<FMA>(-50.0), tanh_f32::<FMA>(f32::INFINITY)),
            (-1.0, -1.0, 1.0)
        );
        assert_eq!((tanh_f32::<FMA>(-0.0).to_bits(), tanh_f32::<FMA>(1e-40)), ((-0.0f32).to_bits(), 1e-40));
        assert!(
            exp_f32::<FMA>(f32::NAN).is_nan()
                && logistic_f32::<FMA>(f32::NAN).is_nan()
                && tanh_f32::<FMA>(f32::NAN).is_nan()
        );
    }
}
