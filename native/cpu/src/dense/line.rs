//! A line of a panel in registers. What several rows do together is written over lines: arrays of as many single sums would lie in
//! memory.

use std::array;

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

/// Some registers side by side.
#[derive(Clone, Copy)]
pub(super) struct Registers<R, const COUNT: usize>([R; COUNT]);

impl<R: Register, const COUNT: usize> Line for Registers<R, COUNT> {
    type Value = R::Value;
    const WIDTH: usize = COUNT * R::WIDTH;
    const FMA: bool = R::FMA;

    #[inline(always)]
    unsafe fn load(from: *const R::Value) -> Self {
        // SAFETY: what the caller promises of the line holds for its parts.
        Self(array::from_fn(|at| unsafe { R::load(from.add(at * R::WIDTH)) }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut R::Value) {
        for (at, register) in self.0.into_iter().enumerate() {
            // SAFETY: as for `load`.
            unsafe { register.store(to.add(at * R::WIDTH)) };
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, value: R::Value, weights: Self) -> Self {
        // SAFETY: as for `load`.
        Self(array::from_fn(|at| unsafe { self.0[at].multiply_add(value, weights.0[at]) }))
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: as for `load`.
        Self(array::from_fn(|at| unsafe { self.0[at].relu() }))
    }
}

/// One register: what a line is made of, under the same rules.
pub(super) trait Register: Copy {
    type Value: Float;
    const WIDTH: usize;
    const FMA: bool;

    unsafe fn load(from: *const Self::Value) -> Self;
    unsafe fn store(self, to: *mut Self::Value);
    unsafe fn multiply_add(self, value: Self::Value, weights: Self) -> Self;
    unsafe fn relu(self) -> Self;
}

/// What stands for a register on any processor.
impl<T: Float, const WIDTH: usize> Register for [T; WIDTH] {
    type Value = T;
    const WIDTH: usize = WIDTH;
    const FMA: bool = false;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's pointer is to as many values.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's pointer is to as much room.
        unsafe { *to.cast() = self }
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, value: T, weights: Self) -> Self {
        self.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = T::multiply_add::<false>(value, weight, *sum));
        self
    }

    #[inline(always)]
    unsafe fn relu(mut self) -> Self {
        T::activate::<false>(&mut self, Activation::Relu);
        self
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! register {
    ($register:ident of $type:ty: $load:ident $store:ident $splat:ident $fma:ident $max:ident $zero:ident) => {
        impl Register for x86_64::$register {
            type Value = $type;
            const WIDTH: usize = size_of::<Self>() / size_of::<$type>();
            const FMA: bool = true;

            #[inline(always)]
            unsafe fn load(from: *const $type) -> Self {
                // SAFETY: the caller's pointer is to as many values; it promises the instructions.
                unsafe { x86_64::$load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $type) {
                // SAFETY: as for `load`.
                unsafe { x86_64::$store(to, self) }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, value: $type, weights: Self) -> Self {
                // SAFETY: the caller promises the instructions.
                unsafe { x86_64::$fma(x86_64::$splat(value), weights, self) }
            }

            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: the caller promises the instructions. Where one value is NaN they give the second.
                unsafe { x86_64::$max(x86_64::$zero(), self) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::x86_64;

    use super::Register;

    register!(__m256 of f32: _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_max_ps _mm256_setzero_ps);
    register!(__m256d of f64: _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd _mm256_fmadd_pd _mm256_max_pd _mm256_setzero_pd);
    register!(__m512 of f32: _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_max_ps _mm512_setzero_ps);
    register!(__m512d of f64: _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd _mm512_fmadd_pd _mm512_max_pd _mm512_setzero_pd);
}

/// The lines of a float type, by what a processor has. All are as wide as a panel.
pub(super) trait Lines: Float {
    type Plain: Line<Value = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Line<Value = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx512: Line<Value = Self>;
}

impl Lines for f32 {
    type Plain = Registers<[f32; panel_width::<f32>()], 1>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Registers<std::arch::x86_64::__m256, 2>;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Registers<std::arch::x86_64::__m512, 1>;
}

impl Lines for f64 {
    type Plain = Registers<[f64; panel_width::<f64>()], 1>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Registers<std::arch::x86_64::__m256d, 2>;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Registers<std::arch::x86_64::__m512d, 1>;
}
