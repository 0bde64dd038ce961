//! The rows of a view, as the caller hands them over.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_empty_array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use arrow_select::concat::concat;
use headrace_types::{DType, EVENT_TS_ALWAYS, Error, ErrorCode, Field, Result};

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

/// A record batch of source rows, taken apart into plain arrays.
pub(super) struct Block {
    pub(super) rows: usize,
    pub(super) keys: Vec<ArrayRef>,
    times: BlockTimes,
    /// Which rows are tombstones; none when none is.
    pub(super) deleted: Option<BooleanArray>,
    /// The fields asked for.
    pub(super) values: Vec<ArrayRef>,
}

impl Block {
    pub(super) fn new(view: &ViewPlan, fields: &[Field], batch: &RecordBatch) -> Result<Self> {
        let plain = |field: &Field| plain_column(batch, &field.name, field.dtype);
        Ok(Self {
            rows: batch.num_rows(),
            keys: view.join_keys.iter().map(plain).collect::<Result<_>>()?,
            times: BlockTimes::new(view, batch)?,
            deleted: deleted(batch)?,
            values: fields.iter().map(plain).collect::<Result<_>>()?,
        })
    }
}

struct BlockTimes {
    /// None for static rows.
    event_ts: Option<TimestampMicrosecondArray>,
    created_ts: Option<TimestampMicrosecondArray>,
}

impl BlockTimes {
    fn new(view: &ViewPlan, batch: &RecordBatch) -> Result<Self> {
        let has_created_ts = batch.schema_ref().column_with_name(CREATED_TS_COLUMN).is_some();
        Ok(Self {
            event_ts: if view.is_static() { None } else { Some(times(batch, EVENT_TS_COLUMN)?) },
            created_ts: if has_created_ts { Some(times(batch, CREATED_TS_COLUMN)?) } else { None },
        })
    }

    /// Both times, where there are no nulls to be judged.
    fn without_nulls(&self) -> Option<(&TimestampMicrosecondArray, &TimestampMicrosecondArray)> {
        let (event_ts, created_ts) = (self.event_ts.as_ref()?, self.created_ts.as_ref()?);
        (event_ts.null_count() + created_ts.null_count() == 0).then_some((event_ts, created_ts))
    }
}

/// The times of source rows, and which of them take part.
pub(super) struct SourceTimes {
    pub(super) event_ts: ScalarBuffer<i64>,
    pub(super) created_ts: ScalarBuffer<i64>,
    /// False for rows without an event time or, with a cutoff, without a creation time; none where all take part.
    takes_part: Option<Vec<bool>>,
    pub(super) null_event_ts: u64,
    pub(super) null_created_ts: u64,
    /// True for tombstones; none when there are none.
    pub(super) deleted: Option<Vec<bool>>,
}

impl SourceTimes {
    /// The times of all rows of a source.
    pub(super) fn new(view: &ViewPlan, source: &SourceRows, has_cutoff: bool) -> Result<Self> {
        let rows = source.rows();
        check_rows(rows)?;
        let times = source.batches.iter().map(|batch| BlockTimes::new(view, batch)).collect::<Result<Vec<_>>>()?;
        let mut this = match times.as_slice() {
            [one] => Self::of_rows(view, one, 0..rows, has_cutoff),
            many => {
                let mut builder = TimesBuilder::with_capacity(rows);
                for (times, batch) in many.iter().zip(&source.batches) {
                    builder.extend(view, times, 0..batch.num_rows(), has_cutoff);
                }
                builder.finish()
            }
        };
        this.deleted = all_deleted(source)?;
        Ok(this)
    }

    /// The times of some rows of a block; `deleted` is not set.
    pub(super) fn of_block(view: &ViewPlan, block: &Block, rows: Range<usize>, has_cutoff: bool) -> Self {
        Self::of_rows(view, &block.times, rows, has_cutoff)
    }

    /// Times without nulls are shared, not copied.
    fn of_rows(view: &ViewPlan, times: &BlockTimes, rows: Range<usize>, has_cutoff: bool) -> Self {
        let Some((event_ts, created_ts)) = times.without_nulls() else {
            let mut builder = TimesBuilder::with_capacity(rows.len());
            builder.extend(view, times, rows, has_cutoff);
            return builder.finish();
        };
        Self {
            event_ts: event_ts.values().slice(rows.start, rows.len()),
            created_ts: created_ts.values().slice(rows.start, rows.len()),
            takes_part: None,
            null_event_ts: 0,
            null_created_ts: 0,
            deleted: None,
        }
    }

    /// Whether a row takes part.
    pub(super) fn takes_part(&self, row: usize) -> bool {
        self.takes_part.as_ref().is_none_or(|takes_part| takes_part[row])
    }

    /// The rows that do not take part.
    pub(super) fn left_out(&self) -> impl Iterator<Item = usize> {
        let rows = self.takes_part.iter().flatten().enumerate();
        rows.filter(|(_, takes_part)| !**takes_part).map(|(row, _)| row)
    }
}

#[derive(Default)]
struct TimesBuilder {
    event_ts: Vec<i64>,
    created_ts: Vec<i64>,
    takes_part: Vec<bool>,
    null_event_ts: u64,
    null_created_ts: u64,
}

impl TimesBuilder {
    fn with_capacity(rows: usize) -> Self {
        Self {
            event_ts: Vec::with_capacity(rows),
            created_ts: Vec::with_capacity(rows),
            takes_part: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// A null creation time is what the view's definition makes of it. Where it makes nothing of it, the row sorts before all others of its
    /// event time, and is never known at a cutoff. Static rows are always known.
    fn extend(&mut self, view: &ViewPlan, times: &BlockTimes, rows: Range<usize>, has_cutoff: bool) {
        if let Some((event_ts, created_ts)) = times.without_nulls() {
            self.event_ts.extend_from_slice(&event_ts.values()[rows.clone()]);
            self.created_ts.extend_from_slice(&created_ts.values()[rows.clone()]);
            self.takes_part.resize(self.takes_part.len() + rows.len(), true);
            return;
        }
        for row in rows {
            let created_ts =
                times.created_ts.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row));
            match &times.event_ts {
                None => self.push(EVENT_TS_ALWAYS, created_ts.unwrap_or(i64::MIN), true),
                Some(event_ts) if event_ts.is_null(row) => {
                    self.null_event_ts += 1;
                    self.push(i64::MIN, i64::MIN, false);
                }
                Some(event_ts) => {
                    let event_ts = event_ts.value(row);
                    let created_ts = created_ts.or_else(|| view.known_from(event_ts));
                    self.null_created_ts += u64::from(created_ts.is_none());
                    self.push(event_ts, created_ts.unwrap_or(i64::MIN), created_ts.is_some() || !has_cutoff);
                }
            }
        }
    }

    fn push(&mut self, event_ts: i64, created_ts: i64, takes_part: bool) {
        self.event_ts.push(event_ts);
        self.created_ts.push(created_ts);
        self.takes_part.push(takes_part);
    }

    fn finish(self) -> SourceTimes {
        SourceTimes {
            event_ts: self.event_ts.into(),
            created_ts: self.created_ts.into(),
            takes_part: self.takes_part.contains(&false).then_some(self.takes_part),
            null_event_ts: self.null_event_ts,
            null_created_ts: self.null_created_ts,
            deleted: None,
        }
    }
}

/// Which rows of a source are tombstones; none when none is.
fn all_deleted(source: &SourceRows) -> Result<Option<Vec<bool>>> {
    let flags = source.batches.iter().map(deleted).collect::<Result<Vec<_>>>()?;
    if flags.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(source.rows());
    for (flags, batch) in flags.iter().zip(&source.batches) {
        match flags {
            None => rows.resize(rows.len() + batch.num_rows(), false),
            Some(flags) => rows.extend(flags.iter().map(|flag| flag == Some(true))),
        }
    }
    Ok(Some(rows))
}

/// Which rows of a batch are tombstones; none when none is.
fn deleted(batch: &RecordBatch) -> Result<Option<BooleanArray>> {
    let Some(column) = batch.column_by_name(DELETED_COLUMN) else { return Ok(None) };
    match column.data_type() {
        DataType::Null => Ok(None),
        DataType::Boolean => {
            let flags = column.as_boolean();
            Ok((flags.true_count() > 0).then(|| flags.clone()))
        }
        other => Err(Error::new(
            ErrorCode::TypeMismatch,
            format!("column '{DELETED_COLUMN}': it is {other}, expected bool"),
            "convert the column",
        )),
    }
}
