//! One piece of code compiled twice: for every processor of the architecture, and for those with AVX2.

/// Work whose loops the compiler may turn into vector instructions.
///
/// `run` must be `#[inline(always)]`, and so must what its loops call: only what is inlined is compiled for AVX2 too. Both forms
/// have the same answers, because the compiler does not reorder arithmetic on floats.
pub trait Vectorized {
    type Output;

    fn run(self) -> Self::Output;
}

/// Runs the work in the widest form that this processor has.
#[inline]
pub fn vectorized<W: Vectorized>(work: W) -> W::Output {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if has_avx2() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { with_avx2(work) };
    }
    work.run()
}

/// Whether the processor has AVX2, and what every processor with AVX2 has beside it.
#[inline]
pub(crate) fn has_avx2() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("lzcnt") && has!("popcnt")
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// Whether it has AVX2, and those parts of AVX-512 that every server processor with it has.
#[inline]
pub(crate) fn has_avx512() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::is_x86_feature_detected as has;
        has_avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2,bmi1,bmi2,fma,lzcnt,popcnt")]
fn with_avx2<W: Vectorized>(work: W) -> W::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [f32]);

    impl Vectorized for Sum<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let mut sums = [0.0; 8];
            for chunk in self.0.as_chunks::<8>().0 {
                sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value * 0.1);
            }
            sums.iter().sum()
        }
    }

    #[test]
    fn both_forms_have_the_same_bits() {
        let values: Vec<f32> = (0..4096u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / 7e3).collect();
        assert_eq!(vectorized(Sum(&values)).to_bits(), Sum(&values).run().to_bits());
    }
}
