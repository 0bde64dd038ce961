//! The rows of a view, as the caller hands them over.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow_schema::DataType;
use arrow_select::concat::concat;
use headrace_types::{DType, EVENT_TS_ALWAYS, Error, ErrorCode, Result};

use super::entities::{check_rows, times};
use crate::arrow::{arrow_type, plain_column};
use crate::plan::ViewPlan;

/// The column of event times in source rows. Null where a row has none, and of the null type or absent for static views.
pub const EVENT_TS_COLUMN: &str = "__event_ts";
/// The column of creation times in source rows.
pub const CREATED_TS_COLUMN: &str = "__created_ts";
/// The optional column that is true where a source row is a tombstone.
pub const DELETED_COLUMN: &str = "__deleted";

/// All rows of a view in the order of their sequence: keys, fields, and the time columns above.
#[derive(Debug, Clone, Default)]
pub struct SourceRows {
    /// The rows, in any number of batches.
    pub batches: Vec<RecordBatch>,
}

impl SourceRows {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// A column over all batches, as a plain array.
    pub(super) fn column(&self, name: &str, dtype: DType) -> Result<ArrayRef> {
        let columns =
            self.batches.iter().map(|batch| plain_column(batch, name, dtype)).collect::<Result<Vec<ArrayRef>>>()?;
        match columns.as_slice() {
            [] => Ok(new_empty_array(&arrow_type(dtype))),
            [one] => Ok(Arc::clone(one)),
            many => {
                let many: Vec<&dyn Array> = many.iter().map(|column| column.as_ref()).collect();
                concat(&many).map_err(|error| {
                    Error::new(
                        ErrorCode::TooLarge,
                        format!("column '{name}': {error}"),
                        "join a part of the rows at a time",
                    )
                })
            }
        }
    }
}

/// The times of the source rows, and which of them take part.
pub(super) struct SourceTimes {
    pub(super) event_ts: Vec<i64>,
    pub(super) created_ts: Vec<i64>,
    /// False for rows without an event time or, with a cutoff, without a creation time.
    pub(super) takes_part: Vec<bool>,
    pub(super) null_event_ts: u64,
    pub(super) null_created_ts: u64,
    /// True for tombstones; none when there are none.
    pub(super) deleted: Option<Vec<bool>>,
}

impl SourceTimes {
    /// A null creation time is what the view's definition makes of it. Where it makes nothing of it, the row sorts before all others of its
    /// event time, and is never known at a cutoff. Static rows are always known.
    pub(super) fn new(view: &ViewPlan, source: &SourceRows, has_cutoff: bool) -> Result<Self> {
        let rows = source.rows();
        check_rows(rows)?;
        let mut this = Self {
            event_ts: Vec::with_capacity(rows),
            created_ts: Vec::with_capacity(rows),
            takes_part: Vec::with_capacity(rows),
            null_event_ts: 0,
            null_created_ts: 0,
            deleted: deleted(source)?,
        };
        for batch in &source.batches {
            let has_created_ts = batch.schema_ref().column_with_name(CREATED_TS_COLUMN).is_some();
            let created_ts = if has_created_ts { Some(times(batch, CREATED_TS_COLUMN)?) } else { None };
            let event_ts = if view.is_static() { None } else { Some(times(batch, EVENT_TS_COLUMN)?) };
            for row in 0..batch.num_rows() {
                let created_ts = created_ts.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row));
                match &event_ts {
                    None => this.push(EVENT_TS_ALWAYS, created_ts.unwrap_or(i64::MIN), true),
                    Some(event_ts) if event_ts.is_null(row) => {
                        this.null_event_ts += 1;
                        this.push(i64::MIN, i64::MIN, false);
                    }
                    Some(event_ts) => {
                        let event_ts = event_ts.value(row);
                        let created_ts = created_ts.or_else(|| view.known_from(event_ts));
                        this.null_created_ts += u64::from(created_ts.is_none());
                        this.push(event_ts, created_ts.unwrap_or(i64::MIN), created_ts.is_some() || !has_cutoff);
                    }
                }
            }
        }
        Ok(this)
    }

    fn push(&mut self, event_ts: i64, created_ts: i64, takes_part: bool) {
        self.event_ts.push(event_ts);
        self.created_ts.push(created_ts);
        self.takes_part.push(takes_part);
    }
}

fn deleted(source: &SourceRows) -> Result<Option<Vec<bool>>> {
    let mut flags = Vec::new();
    let mut any = false;
    for batch in &source.batches {
        match batch.column_by_name(DELETED_COLUMN) {
            None => flags.resize(flags.len() + batch.num_rows(), false),
            Some(column) => match column.data_type() {
                DataType::Null => flags.resize(flags.len() + batch.num_rows(), false),
                DataType::Boolean => {
                    let column = column.as_boolean();
                    flags.extend((0..column.len()).map(|row| column.is_valid(row) && column.value(row)));
                    any |= column.true_count() > 0;
                }
                other => {
                    return Err(Error::new(
                        ErrorCode::TypeMismatch,
                        format!("column '{DELETED_COLUMN}': it is {other}, expected bool"),
                        "convert the column",
                    ));
                }
            },
        }
    }
    Ok(any.then_some(flags))
}
