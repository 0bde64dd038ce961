//! The columns of the entity rows that the join reads, as plain arrays.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use headrace_types::{DType, Error, ErrorCode, Result, ScalarType};

use super::{AsKnownAt, JOIN_ROWS_MAX, JoinOptions};
use crate::arrow::plain_column;
use crate::plan::ServicePlan;

#[derive(Debug)]
pub(super) struct EntityRows {
    pub(super) count: usize,
    /// Those of the service's join keys that are used, by their place among all.
    pub(super) keys: BTreeMap<usize, ArrayRef>,
    pub(super) event_ts: TimestampMicrosecondArray,
    /// The cutoff of each row, when there is one.
    pub(super) cutoff: Option<TimestampMicrosecondArray>,
}

impl EntityRows {
    /// Reads the join keys at `positions` among the service's.
    pub(super) fn new(
        service: &ServicePlan,
        positions: impl IntoIterator<Item = usize>,
        batch: &RecordBatch,
        options: &JoinOptions,
    ) -> Result<Self> {
        check_rows(batch.num_rows())?;
        let event_ts = times(batch, &options.event_ts_column)?;
        let cutoff = match &options.as_known_at {
            AsKnownAt::Off => None,
            AsKnownAt::EventTime => Some(event_ts.clone()),
            AsKnownAt::Column(name) => Some(times(batch, name)?),
        };
        let key = |position: usize| {
            let field = &service.join_keys[position];
            Ok((position, plain_column(batch, &field.name, field.dtype)?))
        };
        let keys = positions.into_iter().map(key).collect::<Result<_>>()?;
        Ok(Self { count: batch.num_rows(), keys, event_ts, cutoff })
    }

    /// The columns of a view's key.
    pub(super) fn keys_at(&self, positions: &[usize]) -> Vec<ArrayRef> {
        positions.iter().filter_map(|position| self.keys.get(position)).cloned().collect()
    }

    /// The time and the cutoff of a row; none where one of them is null, and nothing can be found.
    pub(super) fn times(&self, row: usize) -> Option<(i64, Option<i64>)> {
        if self.event_ts.is_null(row) {
            return None;
        }
        let cutoff = match &self.cutoff {
            None => None,
            Some(cutoff) if cutoff.is_null(row) => return None,
            Some(cutoff) => Some(cutoff.value(row)),
        };
        Some((self.event_ts.value(row), cutoff))
    }
}

/// A column of times in microseconds.
pub(super) fn times(batch: &RecordBatch, name: &str) -> Result<TimestampMicrosecondArray> {
    let column = plain_column(batch, name, DType::Scalar(ScalarType::Timestamp))?;
    Ok(column.as_primitive::<TimestampMicrosecondType>().clone())
}

/// Row numbers are kept in 32 bits.
pub(super) fn check_rows(rows: usize) -> Result<()> {
    if rows <= JOIN_ROWS_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::TooLarge,
        format!("there are {rows} rows, the limit is {JOIN_ROWS_MAX}"),
        "join a part of them at a time",
    ))
}
