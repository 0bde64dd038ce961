//! Count, mean and variance that merge: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
//! variances" (1979).

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
        // A value that is not finite makes the sum so too: then, and where finite ones overflow, each is looked at.
        let all = sum(values, |value| value);
        if all.is_finite() && !values.is_empty() {
            let mean = all / values.len() as f64;
            let m2 = sum(values, |value| (value - mean) * (value - mean));
            return Self { count: values.len() as u64, mean, m2 };
        }
        let count = values.iter().filter(|value| value.is_finite()).count() as u64;
        if count == 0 {
            return Self::default();
        }
        let mean = sum(values, |value| if value.is_finite() { value } else { 0.0 }) / count as f64;
        let distance = |value: f64| if value.is_finite() { value - mean } else { 0.0 };
        Self { count, mean, m2: sum(values, |value| distance(value) * distance(value)) }
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

/// Independent sums, so that the processor can add several at once.
const LANES: usize = 8;

fn sum(values: &[f64], part: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += part(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += part(*value);
    }
    sums.iter().sum()
}
