//! What a lookup has served, on its way into the payload log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use headrace_features::FeatureFrom;
use headrace_types::{Column, Error, FeatureStatus, TimestampUs};

use crate::inputs::Inputs;
use crate::payload::{Chunk, Head, PayloadLog, ServedFeature, ServedStatus};
use crate::request_id::new_request_id;
use crate::scratch::Scratch;
use crate::service::{Binding, nulls};

/// A lookup whose values lie in the scratch.
#[derive(Debug)]
pub(crate) struct Served<'a, 'b> {
    pub(crate) inputs: &'a Inputs<'b>,
    /// The time as of which was looked up.
    pub(crate) at_us: TimestampUs,
    /// `None` where the answer has none; the log makes one.
    pub(crate) request_id: Option<&'a str>,
    pub(crate) queue: Option<Duration>,
    pub(crate) compute: Duration,
}

impl Binding {
    /// The rows of a request whose keys are sampled: those that are to be logged.
    pub(crate) fn sampled(&self, log: &PayloadLog, inputs: &Inputs<'_>, rows: usize) -> Vec<usize> {
        let key = |index: usize| self.key_column(inputs, index);
        let keys_count = self.shape.keys().len();
        (0..rows).filter(|&row| log.takes((0..keys_count).map(key), row)).collect()
    }

    /// Logs some rows.
    pub(crate) fn log(&self, log: &PayloadLog, served: &Served<'_, '_>, scratch: &Scratch, rows: &[usize]) {
        if !rows.is_empty() {
            log.offer(self.chunk(log, served, scratch, rows));
        }
    }

    fn chunk(&self, log: &PayloadLog, served: &Served<'_, '_>, scratch: &Scratch, rows: &[usize]) -> Chunk {
        let inputs = served.inputs;
        let errors: HashMap<usize, &Arc<Error>> =
            scratch.row_errors.iter().rev().map(|failed| (failed.row, &failed.error)).collect(); // the first one found stays
        let taken = |column: Option<&Column>, field| column.map_or_else(|| nulls(field, rows.len()), |c| c.take(rows));
        let keys = self.shape.keys().iter().enumerate();
        let fields = self.shape.inputs().iter().enumerate();
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Chunk {
            shape: Arc::clone(&self.shape),
            keys: keys.map(|(index, field)| taken(self.key_column(inputs, index), field)).collect(),
            inputs: fields.map(|(index, field)| taken(self.request_column(inputs, index), field)).collect(),
            outputs: self
                .features
                .iter()
                .map(|&feature| self.served(feature, inputs, scratch, rows, &errors))
                .collect(),
            errors: rows.iter().map(|row| errors.get(row).map(|error| Arc::clone(error))).collect(),
            heads: vec![Head {
                rows: rows.len(),
                request_id: served.request_id.map_or_else(|| new_request_id(served.at_us).into(), Into::into),
                at_us: served.at_us,
                queue_us: served.queue.map(us),
                compute_us: us(served.compute),
                weight: log.weight(),
                applied_rows: log.applied_rows(),
            }],
        }
    }

    fn served(
        &self,
        feature: usize,
        inputs: &Inputs<'_>,
        scratch: &Scratch,
        rows: &[usize],
        errors: &HashMap<usize, &Arc<Error>>,
    ) -> ServedFeature {
        if let Some(column) = self.given(inputs, feature) {
            return ServedFeature { values: column.take(rows), statuses: vec![ServedStatus::Given; rows.len()] };
        }
        let (mut values, mut statuses): (Column, Vec<FeatureStatus>) = match self.service.plan.features[feature].from {
            FeatureFrom::Stored(index) => {
                let statuses = rows.iter().map(|&row| scratch.stored_status(row, index));
                (scratch.stored.columns[index].take(rows), statuses.collect())
            }
            FeatureFrom::OnDemand(output) => {
                let values = scratch.expr.outputs()[output].to_column().take(rows);
                let status = |at| if values.is_null(at) { FeatureStatus::NullValue } else { FeatureStatus::Present };
                let statuses = (0..rows.len()).map(status).collect();
                (values, statuses)
            }
        };
        for (at, _) in rows.iter().enumerate().filter(|(_, row)| errors.contains_key(row)) {
            values.validity.get_or_insert_with(|| vec![true; rows.len()])[at] = false;
            statuses[at] = FeatureStatus::Invalid;
        }
        ServedFeature { values, statuses: statuses.into_iter().map(ServedStatus::Feature).collect() }
    }
}
