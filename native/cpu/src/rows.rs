//! Rows of features: how they are held, checked, and spread over threads.

use std::ops::Range;
use std::panic::resume_unwind;

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

/// Runs rows on up to `threads` threads (fewer than 2: on the calling one), a part of them on each.
///
/// Lengths were checked by the caller: `features` has `features_count` values a row, `results` has `width`. All parts but the last
/// have a multiple of `step` rows.
///
/// # Errors
/// The first of `run`'s.
pub fn spread<'a>(
    features: Features<'a>,
    features_count: usize,
    results: &mut [f64],
    width: usize,
    threads: usize,
    step: usize,
    run: impl Fn(Features<'a>, &mut [f64]) -> Result<()> + Sync,
) -> Result<()> {
    if threads < 2 {
        return run(features, results);
    }
    let part_rows = (results.len() / width).div_ceil(threads).next_multiple_of(step);
    let run = &run;
    std::thread::scope(|scope| {
        let mut begin = 0;
        let mut workers = Vec::with_capacity(threads);
        for results in results.chunks_mut(part_rows * width) {
            let end = begin + results.len() / width * features_count;
            let features = features.slice(begin..end);
            begin = end;
            workers.push(scope.spawn(move || run(features, results)));
        }
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
