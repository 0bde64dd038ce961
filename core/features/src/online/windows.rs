//! The online aggregates of a plan's views: how batches of events get in, and how lookups get them out.

use std::sync::Arc;

use headrace_cpu::{ImageLayout, KeysRef, MemoryBudget};
use headrace_expr::ColumnView;
use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, FeatureStatus, Result, TimestampUs, Value};

use super::batch::EncodedBatch;
use super::store::ApplyCounts;
use crate::plan::{Plan, TablePlan};
use crate::windows::{Events, Incoming, Outcome, WindowPlan, WindowTable};

/// The aggregates of one view of a table.
#[derive(Debug, Clone)]
pub(super) struct LocalWindows {
    /// The view's name.
    pub(super) name: String,
    /// Its place among the table's views.
    pub(super) view_index: usize,
    pub(super) table: Arc<WindowTable>,
}

/// The views of a table that aggregate, with the state that `old` has for them or none.
pub(super) fn windows_of(
    plan: &Plan,
    table: &TablePlan,
    mut old: impl FnMut(&str, &Arc<WindowPlan>) -> Result<Option<Arc<WindowTable>>>,
    budget: &Arc<MemoryBudget>,
) -> Result<Vec<LocalWindows>> {
    let mut found = Vec::new();
    for (view_index, name) in table.views.iter().enumerate() {
        let view = plan.view(name)?;
        let Some(windows) = view.windows.as_ref().filter(|_| view.online) else { continue };
        let table = match old(name, windows)? {
            Some(table) => table,
            None => Arc::new(WindowTable::new(windows.clone(), Arc::clone(budget))),
        };
        found.push(LocalWindows { name: name.clone(), view_index, table });
    }
    Ok(found)
}

/// Takes in a batch of events and tombstones.
pub(super) fn apply_events(table: &WindowTable, batch: &EncodedBatch<'_>) -> Result<ApplyCounts> {
    if batch.resets() {
        table.reset(batch.first_sequence());
    }
    let columns = columns_of(table.plan(), batch)?;
    let views: Vec<ColumnView<'_>> = columns.iter().map(ColumnView::from).collect();
    let events = Events::new(table.plan(), &views, batch.rows())?;
    let now_us = batch.now_us().unwrap_or(i64::MAX);
    let mut counts = ApplyCounts::default();
    for row in 0..batch.rows() {
        let incoming =
            Incoming { key: batch.key(row)?, row, version: batch.version(row), is_tombstone: batch.is_tombstone(row) };
        match table.apply(&incoming, &events, now_us)? {
            Outcome::Counted => counts.inserted += 1,
            Outcome::Late | Outcome::Again => counts.stale += 1,
            Outcome::Deleted => counts.deleted += 1,
        }
    }
    Ok(counts)
}

/// The columns of the plan, from the images of a batch; one that the batch does not have, or that nothing looks at, is null.
fn columns_of(plan: &WindowPlan, batch: &EncodedBatch<'_>) -> Result<Vec<Column>> {
    let layout = ImageLayout::new(batch.fields());
    let place = |(index, column)| {
        let known = batch.fields().iter().position(|field| field == column);
        known.filter(|_| plan.looks_at(index))
    };
    let places: Vec<Option<usize>> = plan.columns.iter().enumerate().map(place).collect();
    let mut columns: Vec<(ColumnData, Vec<bool>)> = plan
        .columns
        .iter()
        .map(|column| (ColumnData::with_capacity(column.dtype, batch.rows()), Vec::with_capacity(batch.rows())))
        .collect();
    for row in 0..batch.rows() {
        let image = if batch.is_tombstone(row) { None } else { Some(batch.image(row)?) };
        image.map_or(Ok(()), |image| layout.check(image))?;
        for ((data, validity), place) in columns.iter_mut().zip(&places) {
            let value = image.zip(*place).map_or(Ok(Value::Null), |(image, place)| layout.value(image, place))?;
            validity.push(!value.is_null());
            data.push(value)?;
        }
    }
    Ok(columns.into_iter().map(|(data, validity)| Column { data, validity: Some(validity) }).collect())
}

/// A compiled lookup of some aggregates of one view.
#[derive(Debug)]
pub(super) struct WindowReader {
    table: Arc<WindowTable>,
    /// The number of each feature among the view's, its type, and its column in the matrix.
    features: Vec<(usize, DType, usize)>,
    width: usize,
}

impl WindowReader {
    pub(super) fn new(table: Arc<WindowTable>, features: Vec<(usize, DType, usize)>, width: usize) -> Self {
        Self { table, features, width }
    }

    /// Fills this reader's columns of a row-major matrix through `set(place, number)`.
    pub(super) fn read_numbers(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        mut status: Option<&mut [u8]>,
        mut set: impl FnMut(usize, f64),
    ) -> Result<()> {
        for (_, dtype, _) in &self.features {
            if !matches!(dtype, DType::Scalar(scalar) if scalar.is_numeric()) {
                return Err(Error::new(
                    ErrorCode::TypeMismatch,
                    format!("an aggregate of the service is a {dtype}, and the buffer takes numbers"),
                    "read columns instead, or leave the feature out of the service",
                ));
            }
        }
        for row in 0..keys.len() {
            let mut put = |at: usize, value: Option<Value>| {
                let place = row * self.width + self.features[at].2;
                set(place, value.as_ref().map_or(f64::NAN, number));
                if let Some(status) = status.as_deref_mut() {
                    status[place] = status_of(value.as_ref()) as u8;
                }
            };
            self.read(keys, row, now_us, &mut put);
        }
        Ok(())
    }

    /// Empties and fills this reader's columns.
    pub(super) fn read_columns(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        columns: &mut [Column],
        status: &mut [u8],
    ) -> Result<()> {
        for (_, dtype, place) in &self.features {
            columns[*place].reset(*dtype, keys.len());
        }
        let mut outcome = Ok(());
        for row in 0..keys.len() {
            self.read(keys, row, now_us, &mut |at, value| {
                let place = self.features[at].2;
                status[row * self.width + place] = status_of(value.as_ref()) as u8;
                if outcome.is_ok() {
                    outcome = columns[place].push(value.unwrap_or(Value::Null));
                }
            });
        }
        outcome
    }

    /// Calls `put` once for each feature, with none where the key is not known.
    fn read(&self, keys: KeysRef<'_>, row: usize, now_us: TimestampUs, put: &mut dyn FnMut(usize, Option<Value>)) {
        let features = self.features.iter().map(|(feature, _, _)| *feature);
        let is_known = keys
            .canonical(row)
            .is_some_and(|key| self.table.read(&key, features, now_us, |at, value| put(at, Some(value))));
        if !is_known {
            (0..self.features.len()).for_each(|at| put(at, None));
        }
    }
}

fn status_of(value: Option<&Value>) -> FeatureStatus {
    match value {
        None => FeatureStatus::NotFound,
        Some(Value::Null) => FeatureStatus::NullValue,
        Some(_) => FeatureStatus::Present,
    }
}

#[allow(clippy::cast_precision_loss)] // a tensor is of floats
fn number(value: &Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Int(value) => *value as f64,
        Value::UInt(value) => *value as f64,
        Value::Float32(value) => f64::from(*value),
        Value::Float64(value) => *value,
        _ => f64::NAN,
    }
}
