//! A line of a panel in registers. What several rows do together is written over lines: arrays of as many single sums would lie in
//! memory.

use super::activation::Float;
use super::plain::Activation;

/// Some values of one type that are computed together.
///
/// # Safety
/// Of every function: the processor has the instructions that the type stands for. Its caller must be compiled for them too, or they
/// are called one by one.
pub(super) trait Line: Copy {
    type Value: Float;
    /// Number of values.
    const WIDTH: usize;
    /// Whether a product and a sum are rounded once.
    const FMA: bool;

    /// `from` points to [`Self::WIDTH`] values.
    unsafe fn load(from: *const Self::Value) -> Self;
    /// `to` points to room for [`Self::WIDTH`] values.
    unsafe fn store(self, to: *mut Self::Value);
    /// `value * weights + self`, in each place.
    unsafe fn multiply_add(self, value: Self::Value, weights: Self) -> Self;
    /// Zero for what is negative; NaN stays NaN.
    unsafe fn relu(self) -> Self;
}

/// Values of a panel's line: 64 bytes.
pub(super) const fn panel_width<T>() -> usize {
    64 / size_of::<T>()
}

/// A line for any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain<T, const WIDTH: usize>([T; WIDTH]);

impl<T: Float, const WIDTH: usize> Line for Plain<T, WIDTH> {
    type Value = T;
    const WIDTH: usize = WIDTH;
    const FMA: bool = false;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's pointer is to as many values.
        Self(unsafe { *from.cast() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's pointer is to as much room.
        unsafe { *to.cast() = self.0 }
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, value: T, weights: Self) -> Self {
        self.0.iter_mut().zip(weights.0).for_each(|(sum, weight)| *sum = T::multiply_add::<false>(value, weight, *sum));
        self
    }

    #[inline(always)]
    unsafe fn relu(mut self) -> Self {
        T::activate::<false>(&mut self.0, Activation::Relu);
        self
    }
}

/// A line in two registers of AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2<V>(V, V);

/// A line in one register of AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512<V>(V);

#[cfg(target_arch = "x86_64")]
macro_rules! lines {
    ($type:ty, $two:ident: $load2:ident $store2:ident $splat2:ident $fma2:ident $max2:ident $zero2:ident,
     $one:ident: $load:ident $store:ident $splat:ident $fma:ident $max:ident $zero:ident) => {
        impl Line for Avx2<std::arch::x86_64::$two> {
            type Value = $type;
            const WIDTH: usize = panel_width::<$type>();
            const FMA: bool = true;

            #[inline(always)]
            unsafe fn load(from: *const $type) -> Self {
                // SAFETY: both halves lie within what the caller's pointer is to; it promises the instructions.
                unsafe { Self(std::arch::x86_64::$load2(from), std::arch::x86_64::$load2(from.add(Self::WIDTH / 2))) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $type) {
                // SAFETY: as for `load`.
                unsafe {
                    std::arch::x86_64::$store2(to, self.0);
                    std::arch::x86_64::$store2(to.add(Self::WIDTH / 2), self.1);
                }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, value: $type, weights: Self) -> Self {
                // SAFETY: the caller promises the instructions.
                unsafe {
                    let value = std::arch::x86_64::$splat2(value);
                    let fma = |weights, sum| std::arch::x86_64::$fma2(value, weights, sum);
                    Self(fma(weights.0, self.0), fma(weights.1, self.1))
                }
            }

            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: the caller promises the instructions. Where one value is NaN they give the second.
                unsafe {
                    let zero = std::arch::x86_64::$zero2();
                    Self(std::arch::x86_64::$max2(zero, self.0), std::arch::x86_64::$max2(zero, self.1))
                }
            }
        }

        impl Line for Avx512<std::arch::x86_64::$one> {
            type Value = $type;
            const WIDTH: usize = panel_width::<$type>();
            const FMA: bool = true;

            #[inline(always)]
            unsafe fn load(from: *const $type) -> Self {
                // SAFETY: the caller's pointer is to as many values; it promises the instructions.
                unsafe { Self(std::arch::x86_64::$load(from)) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $type) {
                // SAFETY: as for `load`.
                unsafe { std::arch::x86_64::$store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, value: $type, weights: Self) -> Self {
                // SAFETY: the caller promises the instructions.
                unsafe { Self(std::arch::x86_64::$fma(std::arch::x86_64::$splat(value), weights.0, self.0)) }
            }

            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: the caller promises the instructions. Where one value is NaN they give the second.
                unsafe { Self(std::arch::x86_64::$max(std::arch::x86_64::$zero(), self.0)) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
lines!(
    f32,
    __m256: _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_max_ps _mm256_setzero_ps,
    __m512: _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_max_ps _mm512_setzero_ps
);
#[cfg(target_arch = "x86_64")]
lines!(
    f64,
    __m256d: _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd _mm256_fmadd_pd _mm256_max_pd _mm256_setzero_pd,
    __m512d: _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd _mm512_fmadd_pd _mm512_max_pd _mm512_setzero_pd
);

/// The lines of a float type, by what a processor has.
pub(super) trait Lines: Float {
    type Plain: Line<Value = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Line<Value = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx512: Line<Value = Self>;
}

impl Lines for f32 {
    type Plain = Plain<f32, 16>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Avx2<std::arch::x86_64::__m256>;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Avx512<std::arch::x86_64::__m512>;
}

impl Lines for f64 {
    type Plain = Plain<f64, 8>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Avx2<std::arch::x86_64::__m256d>;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Avx512<std::arch::x86_64::__m512d>;
}
