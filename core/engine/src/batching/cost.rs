//! What a call of a model costs, learned from its calls: a line through time and rows.

use std::time::Duration;

/// What an observation counts after the next one: of the last 50 calls about two thirds of the weight.
const MEMORY: f64 = 0.98;
/// A call that took longer than this many times what was expected counts as so long only: a page fault or a busy neighbour says
/// little about the model.
const SURPRISE_MAX: f64 = 4.0;
/// Observations before a surprise is one.
const TRUSTED_WEIGHT: f64 = 8.0;
/// Rows differ enough to tell the fixed cost from that of a row when their deviation is above this share of their mean.
const SPREAD_MIN: f64 = 0.1;

/// `fixed + per_row * rows`, in seconds, by least squares over the observations, the older ones fading.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CostModel {
    weight: f64,
    rows: f64,
    rows_squared: f64,
    seconds: f64,
    rows_seconds: f64,
}

impl CostModel {
    /// Notes that a call of so many rows took so long.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration) {
        if rows == 0 {
            return;
        }
        let mut seconds = took.as_secs_f64();
        if let Some(expected) = self.predict(rows).filter(|_| self.weight >= TRUSTED_WEIGHT) {
            seconds = seconds.min(expected.as_secs_f64() * SURPRISE_MAX);
        }
        #[allow(clippy::cast_precision_loss)]
        let rows = rows as f64;
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows_squared, rows * rows),
            (&mut self.seconds, seconds),
            (&mut self.rows_seconds, rows * seconds),
        ] {
            *sum = *sum * MEMORY + value;
        }
    }

    /// What a call of so many rows will take; `None` before the first observation.
    pub(crate) fn predict(&self, rows: usize) -> Option<Duration> {
        self.predict_calls(1, rows)
    }

    /// What several calls will take one after the other, with so many rows in all; `None` before the first observation.
    pub(crate) fn predict_calls(&self, calls: usize, rows: usize) -> Option<Duration> {
        let (fixed, per_row) = self.line()?;
        #[allow(clippy::cast_precision_loss)]
        Duration::try_from_secs_f64(fixed * calls as f64 + per_row * rows as f64).ok()
    }

    /// Most rows that a call may have to end within `time`; at least one. `None` before the first observation.
    pub(crate) fn rows_within(&self, time: Duration) -> Option<usize> {
        let (fixed, per_row) = self.line()?;
        let left = time.as_secs_f64() - fixed;
        // A float beyond the range of usize becomes its largest value.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(((left / per_row) as usize).max(1))
    }

    /// (fixed, per row), neither below zero. While all calls have had about the same rows the cost counts as all of the rows': that never
    /// promises that a larger call will be cheap.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (mean_rows, mean_seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_squared / self.weight - mean_rows * mean_rows;
        let through_zero = (0.0, self.rows_seconds / self.rows_squared);
        if variance <= (SPREAD_MIN * mean_rows).powi(2) {
            return Some(through_zero);
        }
        let per_row = (self.rows_seconds / self.weight - mean_rows * mean_seconds) / variance;
        let fixed = mean_seconds - per_row * mean_rows;
        Some(if per_row < 0.0 {
            (mean_seconds, 0.0)
        } else if fixed < 0.0 {
            through_zero
        } else {
            (fixed, per_row)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    fn close(found: Option<Duration>, expected: Duration) -> bool {
        found.unwrap().abs_diff(expected) < US(1)
    }

    #[test]
    fn a_line_is_found_from_calls_of_several_sizes_and_follows_a_change() {
        let mut cost = CostModel::default();
        assert!(cost.predict(1).is_none() && cost.rows_within(US(100)).is_none());
        for rows in [1, 4, 2, 8, 16] {
            cost.observe(rows, US(1000 + 10 * rows as u64));
        }
        assert!(close(cost.predict(100), US(2000)), "{cost:?}");
        assert_eq!(cost.rows_within(US(2005)), Some(100));
        assert_eq!(cost.rows_within(US(500)), Some(1));
        for rows in (1..20).cycle().take(600) {
            cost.observe(rows, US(100 + 20 * rows as u64));
        }
        assert!(close(cost.predict(10), US(300)), "{cost:?}");
    }

    #[test]
    fn calls_of_one_size_promise_nothing_for_larger_ones() {
        let mut cost = CostModel::default();
        for _ in 0..20 {
            cost.observe(1, US(1000));
        }
        assert!(close(cost.predict(8), US(8000)));
        assert_eq!(cost.rows_within(US(4500)), Some(4));
    }

    #[test]
    fn neither_part_is_below_zero() {
        let mut falling = CostModel::default();
        let mut steep = CostModel::default();
        for rows in 1..6u64 {
            falling.observe(rows as usize, US(1000 - 100 * rows));
            steep.observe(rows as usize, US(100 * rows * rows));
        }
        assert!(falling.predict(1_000_000).unwrap() < US(1000));
        assert_eq!(falling.rows_within(US(1_000_000)), Some(usize::MAX));
        assert!(steep.predict(0).unwrap() == Duration::ZERO, "{steep:?}");
    }

    #[test]
    fn one_long_call_does_not_spoil_what_was_learned() {
        let mut cost = CostModel::default();
        for rows in (1..10).cycle().take(60) {
            cost.observe(rows, US(1000));
        }
        cost.observe(5, Duration::from_secs(10));
        assert!(cost.predict(5).unwrap() < US(1200), "{cost:?}");
    }
}
