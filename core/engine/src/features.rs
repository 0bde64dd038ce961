//! Feature lookup without a model: the stored and computed features of some keys, as typed columns with statuses.

use std::sync::Arc;
use std::time::Instant;

use headrace_features::{FeatureFrom, LocalStore, Plan};
use headrace_types::{Batch, Column, Error, ErrorCode, FeatureStatus, Field, Result};

use crate::engine::Engine;
use crate::inputs::Inputs;
use crate::request::{RowError, shortened};
use crate::scratch::{Scratch, ScratchPool};
use crate::served::Served;
use crate::service::{Binding, Service};

/// A feature service of the installed plan.
#[derive(Debug)]
pub struct FeatureService {
    /// All features of the service, each in its own place.
    binding: Binding,
    features: Vec<Field>,
    scratches: ScratchPool,
}

/// Keys to look up, and what their on-demand features are computed from.
#[derive(Debug, Clone, Default)]
pub struct FeatureRequest {
    pub entities: Batch,
    pub request: Batch,
    /// Rows that the transport could not decode; their features are `INVALID`.
    pub row_errors: Vec<RowError>,
}

/// The features of each key.
#[derive(Debug, Clone)]
pub struct FeatureResponse {
    pub rows: usize,
    /// The features in the order of the service.
    pub features: Vec<Field>,
    /// One column a feature; a value that is not present is null.
    pub columns: Vec<Column>,
    /// One list a feature, with a status for each row.
    pub statuses: Vec<Vec<FeatureStatus>>,
}

impl FeatureRequest {
    /// Rows of the request: the length of its longest column.
    pub fn rows(&self) -> usize {
        let columns = self.entities.columns.iter().chain(&self.request.columns);
        columns.map(|(_, column)| column.len()).max().unwrap_or(0)
    }
}

impl FeatureService {
    pub(crate) fn new(store: &LocalStore, plan: &Plan, name: &str) -> Result<Self> {
        let service = Arc::new(Service::new(store, plan, name)?);
        let plan = &service.plan;
        let features: Vec<Field> =
            plan.features.iter().map(|feature| Field::new(&*feature.name, feature.dtype)).collect();
        let binding = Binding::new(&service, &plan.name, None, &features, &plan.join_keys, &plan.request_fields)?;
        Ok(Self { binding, features, scratches: ScratchPool::default() })
    }

    pub(crate) fn compiled(&self) -> &Arc<Service> {
        &self.binding.service
    }

    pub fn name(&self) -> &str {
        &self.compiled().plan.name
    }

    pub fn join_keys(&self) -> &[Field] {
        &self.compiled().plan.join_keys
    }

    /// What the on-demand features are computed from.
    pub fn request_fields(&self) -> &[Field] {
        &self.compiled().plan.request_fields
    }

    /// The features, by the names they have in answers.
    pub fn features(&self) -> &[Field] {
        &self.features
    }

    /// The features as `view__feature`.
    pub fn full_names(&self) -> Vec<String> {
        let features = self.compiled().plan.features.iter();
        features.map(|feature| format!("{}__{}", feature.view, feature.feature)).collect()
    }

    /// The join key or request field of that name.
    ///
    /// # Errors
    /// `unknown_entity` naming what there is.
    pub fn field(&self, name: &str) -> Result<&Field> {
        let mut fields = self.join_keys().iter().chain(self.request_fields());
        fields.find(|field| field.name == name).ok_or_else(|| {
            let known = self.join_keys().iter().chain(self.request_fields()).map(|field| field.name.as_str());
            Error::new(
                ErrorCode::UnknownEntity,
                format!("feature service '{}' has no join key or request field '{}'", self.name(), shortened(name)),
                format!("use only: {}", known.collect::<Vec<_>>().join(", ")),
            )
        })
    }
}

impl Engine {
    /// Looks up and computes the features of a service.
    ///
    /// # Errors
    /// `unknown_feature_service`, `unknown_entity`, `missing_column`, `length_mismatch`, `too_large`. A value that does not fit makes
    /// its row `INVALID`; a null in a request field makes what is computed from it null.
    pub fn get_online_features(&self, service: &str, request: &FeatureRequest) -> Result<FeatureResponse> {
        self.look_up(&*self.feature_service(service)?, request)
    }

    /// As [`Engine::get_online_features`], with a service found before.
    ///
    /// # Errors
    /// As [`Engine::get_online_features`].
    pub fn look_up(&self, service: &FeatureService, request: &FeatureRequest) -> Result<FeatureResponse> {
        let rows = request.rows();
        self.check_rows(rows)?;
        let mut scratch = service.scratches.take();
        let result = self.look_up_in(service, request, rows, &mut scratch);
        service.scratches.give(scratch);
        result
    }

    fn look_up_in(
        &self,
        service: &FeatureService,
        request: &FeatureRequest,
        rows: usize,
        scratch: &mut Scratch,
    ) -> Result<FeatureResponse> {
        scratch.start(rows, 0);
        scratch.row_errors.extend(request.row_errors.iter().filter(|error| error.row < rows).cloned());
        let inputs = Inputs::of_lookup(service, request, rows, &mut scratch.row_errors)?;
        let (now_us, started) = (self.clock().now_us(), Instant::now());
        service.binding.fill_columns(&inputs, rows, now_us, scratch)?;
        if let Some(log) = &self.options.payload {
            let served =
                Served { inputs: &inputs, at_us: now_us, request_id: None, queue: None, compute: started.elapsed() };
            let logged = service.binding.sampled(log, &inputs, rows);
            service.binding.log(log, &served, scratch, &logged);
        }
        let plan = &service.compiled().plan;
        let (mut columns, mut statuses) = (Vec::new(), Vec::new());
        for feature in &plan.features {
            let (column, status) = match feature.from {
                FeatureFrom::Stored(index) => stored(scratch, rows, index),
                FeatureFrom::OnDemand(output) => {
                    let column = scratch.expr.outputs()[output].to_column();
                    let status = (0..rows)
                        .map(|row| if column.is_null(row) { FeatureStatus::NullValue } else { FeatureStatus::Present });
                    let status = status.collect();
                    (column, status)
                }
            };
            columns.push(column);
            statuses.push(status);
        }
        for failed in scratch.take_row_errors() {
            for (column, status) in columns.iter_mut().zip(&mut statuses) {
                column.validity.get_or_insert_with(|| vec![true; rows])[failed.row] = false;
                status[failed.row] = FeatureStatus::Invalid;
            }
        }
        Ok(FeatureResponse { rows, features: service.features.clone(), columns, statuses })
    }
}

fn stored(scratch: &Scratch, rows: usize, index: usize) -> (Column, Vec<FeatureStatus>) {
    let status = |row: usize| scratch.stored_status(row, index);
    (scratch.stored.columns[index].clone(), (0..rows).map(status).collect())
}
