//! When the requests of an open loop are due.

/// The times of a Poisson process, in nanoseconds from its start: gaps are exponential, and the same for the same seed.
#[derive(Debug, Clone)]
pub struct Arrivals {
    mean_gap_ns: f64,
    at_ns: f64,
    state: u64,
}

impl Arrivals {
    pub fn new(per_second: f64, seed: u64) -> Self {
        Self { mean_gap_ns: 1e9 / per_second, at_ns: 0.0, state: seed }
    }

    /// splitmix64.
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 53 bits of nanoseconds
    fn next(&mut self) -> Option<u64> {
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        self.at_ns -= uniform.ln() * self.mean_gap_ns;
        Some(self.at_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let times: Vec<u64> = Arrivals::new(1000.0, 7).take(100_000).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
        assert!(times.iter().eq(Arrivals::new(1000.0, 7).take(100_000).collect::<Vec<_>>().iter()));
        assert!(Arrivals::new(1000.0, 8).next() != Arrivals::new(1000.0, 7).next());
    }
}
