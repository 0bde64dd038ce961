//! A latency histogram that costs a few nanoseconds to record into and can be merged: log-linear buckets of atomic counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is cut into this many equal buckets, so a bucket is at most 25 % wide.
const STEPS_PER_OCTAVE: usize = 4;
/// The first octave begins at 256 ns; anything faster falls into its first bucket.
const FIRST_OCTAVE_LOG2: u32 = 8;
/// 28 octaves end at 2^36 ns = 69 s; anything slower falls into the last bucket.
const OCTAVES: usize = 28;
pub(crate) const BUCKETS_COUNT: usize = OCTAVES * STEPS_PER_OCTAVE;

/// Counts of durations, by bucket, with their sum.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_COUNT],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS_COUNT], sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub fn add_to(&self, total: &mut HistogramSnapshot) {
        for (count, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *count += bucket.load(Ordering::Relaxed);
        }
        total.sum_ns += self.sum_ns.load(Ordering::Relaxed);
    }
}

fn bucket_of(ns: u64) -> usize {
    let ns = ns.max(1 << FIRST_OCTAVE_LOG2);
    let log2 = 63 - ns.leading_zeros();
    let octave = (log2 - FIRST_OCTAVE_LOG2) as usize;
    let step = (ns >> (log2 - STEPS_PER_OCTAVE.ilog2())) as usize % STEPS_PER_OCTAVE;
    (octave * STEPS_PER_OCTAVE + step).min(BUCKETS_COUNT - 1)
}

/// The first duration that no longer belongs to the bucket.
fn bucket_end_ns(bucket: usize) -> u64 {
    let (octave, step) = (bucket / STEPS_PER_OCTAVE, bucket % STEPS_PER_OCTAVE);
    let octave_begin = 1u64 << (octave as u32 + FIRST_OCTAVE_LOG2);
    octave_begin + octave_begin / STEPS_PER_OCTAVE as u64 * (step as u64 + 1)
}

/// A histogram's counts at one moment.
#[derive(Debug, Clone)]
pub struct HistogramSnapshot {
    buckets: [u64; BUCKETS_COUNT],
    sum_ns: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS_COUNT], sum_ns: 0 }
    }
}

impl HistogramSnapshot {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// (end in ns, number of durations below it) for every octave: what a Prometheus histogram prints.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        self.buckets.chunks(STEPS_PER_OCTAVE).enumerate().map(move |(octave, steps)| {
            below += steps.iter().sum::<u64>();
            (bucket_end_ns(octave * STEPS_PER_OCTAVE + STEPS_PER_OCTAVE - 1), below)
        })
    }

    /// An upper bound of the quantile (0..=1), at most one bucket (25 %) too high; `None` without any record.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut below = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, n)| {
            below += n;
            (below >= rank).then(|| bucket_end_ns(bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_below_the_end_of_its_bucket_and_not_far() {
        let mut previous = 0;
        for ns in (1..200_000u64).step_by(7).chain([1 << 30, (1 << 36) - 1]) {
            let bucket = bucket_of(ns);
            assert!(bucket >= previous || ns == 1 << 30, "{ns}");
            previous = bucket;
            let end = bucket_end_ns(bucket);
            assert!(ns < end, "{ns} is not below {end}");
            assert!(ns < 256 || end - ns <= ns / 4 + 1, "{ns} is far from {end}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS_COUNT - 1);
        assert_eq!(bucket_of(0), 0);
    }

    #[test]
    fn counts_and_quantiles_follow_the_records() {
        let histogram = Histogram::default();
        for us in 1..=100 {
            histogram.record(Duration::from_micros(us));
        }
        let mut total = HistogramSnapshot::default();
        histogram.add_to(&mut total);
        histogram.add_to(&mut total);
        assert_eq!(total.count(), 200);
        assert_eq!(total.sum_ns(), 2 * 5_050_000);
        assert_eq!(total.cumulative().last().map(|(_, below)| below), Some(200));
        let median = total.quantile_ns(0.5).unwrap_or(0);
        assert!((50_000..=63_000).contains(&median), "{median}");
        assert_eq!(HistogramSnapshot::default().quantile_ns(0.5), None);
    }
}
