//! Count, mean and variance that merge: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
//! variances" (1979).

use crate::numbers::{Number, Seen, look, squared_distances};

/// Of the finite values among some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    pub count: u64,
    pub mean: f64,
    /// The sum of squared distances from the mean.
    pub m2: f64,
}

impl Moments {
    /// Of a slice, in two passes over it: the sum, then the squares of what is left without the mean.
    pub fn of(values: &[f64]) -> Self {
        Self::of_seen(values, &look(values))
    }

    /// The second pass, where the first has been.
    pub(crate) fn of_seen<T: Number>(values: &[T], seen: &Seen<T>) -> Self {
        if seen.finite == 0 {
            return Self::default();
        }
        let mean = seen.sum / seen.finite as f64;
        Self { count: seen.finite, mean, m2: squared_distances(values, seen, mean) }
    }

    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * (m / (n + m));
        self.m2 += other.m2 + delta * delta * (n * m / (n + m));
        self.count = self.count.saturating_add(other.count);
    }

    /// Of the values as a sample (divided by count - 1); `None` of fewer than two.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.m2 / (self.count - 1) as f64)
    }
}
