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
        let (count, sum) = finite_sum(values);
        if count == 0 {
            return Self::default();
        }
        let mean = sum / count as f64;
        Self { count, mean, m2: squares(values, mean) }
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

fn finite_sum(values: &[f64]) -> (u64, f64) {
    let (mut counts, mut sums) = ([0u64; LANES], [0.0; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut add = |lane: usize, value: f64| {
        let is_finite = value.is_finite();
        counts[lane] += u64::from(is_finite);
        sums[lane] += if is_finite { value } else { 0.0 };
    };
    for chunk in chunks {
        for (lane, value) in chunk.iter().enumerate() {
            add(lane, *value);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        add(lane, *value);
    }
    (counts.iter().sum(), sums.iter().sum())
}

fn squares(values: &[f64], mean: f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut add = |lane: usize, value: f64| {
        let distance = if value.is_finite() { value - mean } else { 0.0 };
        sums[lane] += distance * distance;
    };
    for chunk in chunks {
        for (lane, value) in chunk.iter().enumerate() {
            add(lane, *value);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        add(lane, *value);
    }
    sums.iter().sum()
}
