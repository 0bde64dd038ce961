//! Rows of features: how they are held, checked, and spread over threads.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

use headrace_types::{Error, ErrorCode, Result};

/// Row-major features as the caller holds them. A missing value is NaN.
#[derive(Debug, Clone, Copy)]
pub enum Features<'a> {
    Float32(&'a [f32]),
    Float64(&'a [f64]),
}

impl Features<'_> {
    /// The number of values.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        match self {
            Features::Float32(values) => values.len(),
            Features::Float64(values) => values.len(),
        }
    }

    /// The values at these places.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn slice(&self, places: Range<usize>) -> Self {
        match self {
            Features::Float32(values) => Features::Float32(&values[places]),
            Features::Float64(values) => Features::Float64(&values[places]),
        }
    }
}

/// Checks that features and margins are those of `rows` rows.
///
/// # Errors
/// `length_mismatch` naming which of them are not.
pub fn check_lengths(
    features_count: usize,
    outputs_count: usize,
    features_len: usize,
    rows: usize,
    margins_len: usize,
) -> Result<()> {
    let wrong = |what: &str, have: usize, count: usize| {
        Error::new(
            ErrorCode::LengthMismatch,
            format!("{what} have {have} values, {rows} rows of {count} were expected"),
            "give one value for each feature of the model, in its order, and room for each output",
        )
    };
    if rows.checked_mul(features_count) != Some(features_len) {
        return Err(wrong("features", features_len, features_count));
    }
    if rows.checked_mul(outputs_count) != Some(margins_len) {
        return Err(wrong("margins", margins_len, outputs_count));
    }
    Ok(())
}

/// As [`check_lengths`], of contributions: one for each feature and the expected value, for each output.
///
/// # Errors
/// `length_mismatch`.
pub fn check_contributions_lengths(
    features_count: usize,
    outputs_count: usize,
    features_len: usize,
    rows: usize,
    contributions_len: usize,
) -> Result<()> {
    let width = outputs_count * (features_count + 1);
    if rows.checked_mul(features_count) == Some(features_len) && rows.checked_mul(width) == Some(contributions_len) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::LengthMismatch,
        format!(
            "{rows} rows take {features_count} features and {width} contributions each, there are {features_len} and \
             {contributions_len}"
        ),
        "give one value for each feature of the model, and room for each feature and the expected value of each output",
    ))
}

/// Parts that each thread is given, where there are enough rows: one that a busy core holds up leaves the rest to the others.
const PARTS_PER_THREAD: usize = 8;
/// Rows of a part, so that what each call of a kernel costs does not count.
const PART_ROWS_MIN: usize = 512;

/// Runs rows on up to `threads` threads, of which the calling one is the first: each takes the next part when it is done with one.
///
/// Lengths were checked by the caller: `features` has `features_count` values a row, `results` has `width`. All parts but the last
/// have a multiple of `step` rows.
///
/// # Errors
/// One of `run`'s.
pub fn spread<'a>(
    features: Features<'a>,
    features_count: usize,
    results: &mut [f64],
    width: usize,
    threads: usize,
    step: usize,
    run: impl Fn(Features<'a>, &mut [f64]) -> Result<()> + Sync,
) -> Result<()> {
    if threads < 2 || results.is_empty() {
        return run(features, results);
    }
    let share = (results.len() / width).div_ceil(threads);
    let part_rows = share.div_ceil(PARTS_PER_THREAD).max(PART_ROWS_MIN).min(share).next_multiple_of(step);
    let parts = Mutex::new(results.chunks_mut(part_rows * width).enumerate());
    let next_part = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((part, results)) = next_part() {
            let begin = part * part_rows * features_count;
            let end = begin + results.len() / width * features_count;
            run(features.slice(begin..end), results)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        helpers
            .into_iter()
            .map(|helper| helper.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    /// Two features a row; each result is their sum.
    fn sums(features: Features<'_>, results: &mut [f64]) {
        let Features::Float64(features) = features else { panic!("float64 was given") };
        for (features, result) in features.chunks_exact(2).zip(results) {
            *result = features.iter().sum();
        }
    }

    fn features_of(rows: usize) -> Vec<f64> {
        (0..2 * rows).map(|value| value as f64).collect()
    }

    fn expected(rows: usize) -> Vec<f64> {
        (0..rows).map(|row| (4 * row + 1) as f64).collect()
    }

    #[test]
    fn each_row_is_run_once_on_any_number_of_threads() {
        for rows in [0, 1, 63, 64, 511, 513, 1025, 5000, 20_001] {
            for (threads, step) in [(1, 1), (2, 64), (3, 1), (5, 7)] {
                let (features, mut results) = (features_of(rows), vec![f64::NAN; rows]);
                spread(Features::Float64(&features), 2, &mut results, 1, threads, step, |features, results| {
                    assert!(results.iter().all(|result| result.is_nan()));
                    sums(features, results);
                    Ok(())
                })
                .unwrap();
                assert_eq!(results, expected(rows), "{rows} rows, {threads} threads");
            }
        }
    }

    #[test]
    fn a_thread_that_is_held_up_leaves_the_rest_to_the_others() {
        let rows = 20_000;
        let (features, mut results) = (features_of(rows), vec![f64::NAN; rows]);
        let (done, dones) = channel();
        let dones = Mutex::new(dones);
        spread(Features::Float64(&features), 2, &mut results, 1, 2, 1, |features, results| {
            let is_first = matches!(features, Features::Float64([0.0, ..]));
            sums(features, results);
            let mut others = rows - results.len();
            while is_first && others > 0 {
                match dones.lock().unwrap().recv_timeout(Duration::from_secs(60)) {
                    Ok(rows) => others -= rows,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        panic!("{others} rows wait for the thread that is held up")
                    }
                }
            }
            done.send(results.len()).unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(results, expected(rows));
    }

    #[test]
    fn what_fails_on_one_thread_fails_the_call() {
        let features = features_of(4000);
        let mut results = vec![0.0; 4000];
        let error = spread(Features::Float64(&features), 2, &mut results, 1, 3, 1, |_, results| {
            results[0] = f64::NAN;
            Err(Error::internal("broken"))
        });
        assert_eq!(error.unwrap_err().code, ErrorCode::Internal);
    }
}
