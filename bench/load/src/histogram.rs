//! Latencies, counted in buckets that are narrow relative to their value.

/// Buckets of each doubling: a quantile is off by less than 1 in 128.
const BUCKETS: u32 = 128;
const BITS: u32 = BUCKETS.ilog2();

/// A log-linear histogram of nanoseconds. Below 128 ns each value has a bucket of its own.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; ((64 - BITS + 1) * BUCKETS) as usize], count: 0, max_ns: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, ns: u64) {
        self.counts[place(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The upper end of the bucket that holds the quantile, at most the largest value; 0 when nothing was recorded.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts are below 2^53
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let wanted = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        found.map_or(0, |place| end_ns(place).min(self.max_ns))
    }
}

fn place(ns: u64) -> usize {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(BITS + 1);
    (u64::from(shift * BUCKETS) + (ns >> shift)) as usize
}

/// The largest value of a bucket.
fn end_ns(place: usize) -> u64 {
    let shift = (place as u64 / u64::from(BUCKETS)).saturating_sub(1);
    let first = (place as u64 - shift * u64::from(BUCKETS)) << shift;
    first + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_less_than_a_hundredth_wide() {
        let mut last = 0;
        for ns in (0..4096).chain((12..63).flat_map(|bit| [(1u64 << bit), (1 << bit) + 1234, (2 << bit) - 1])) {
            let place = place(ns);
            assert!(place >= last, "{ns}");
            last = place;
            assert!(end_ns(place) >= ns && (end_ns(place) - ns) as f64 <= ns as f64 / 100.0, "{ns} {}", end_ns(place));
        }
        assert!(place(u64::MAX) < Histogram::default().counts.len());
    }

    #[test]
    fn quantiles_of_a_thousand_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), 0);
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        assert_eq!((histogram.count(), histogram.max_ns()), (1000, 1_000_000));
        for (quantile, expected) in [(0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let found = histogram.quantile_ns(quantile);
            assert!(found.abs_diff(expected) < expected / 100, "{quantile}: {found}");
        }
    }
}
