//! The second half of a join: what is stored is at hand, on-demand features are computed, and the training set is put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int8Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field as ArrowField, Schema};
use headrace_types::{Error, ErrorCode, FeatureStatus, Result};

use super::computed::compute;
use super::parallel::Cancel;
use super::{JoinOptions, STATUS_SUFFIX};
use crate::arrow::plain_column;
use crate::plan::{FeatureFrom, Plan, ServicePlan};

const PRESENT: i8 = FeatureStatus::Present as i8;

/// What was found for each entity row.
pub(super) struct Stored {
    /// The service's stored features, in its order.
    pub(super) columns: Vec<ArrayRef>,
    /// By view: `FeatureStatus` numbers of how its row was found.
    pub(super) statuses: BTreeMap<String, Int8Array>,
}

impl Stored {
    /// The features and statuses of some views as a frame: columns named by the feature's number, and `VIEW__status`.
    pub(super) fn into_batch(
        columns: BTreeMap<usize, ArrayRef>,
        statuses: BTreeMap<String, Int8Array>,
    ) -> Result<RecordBatch> {
        let columns = columns.into_iter().map(|(number, column)| (number.to_string(), column));
        let statuses =
            statuses.into_iter().map(|(view, status)| (format!("{view}{STATUS_SUFFIX}"), Arc::new(status) as ArrayRef));
        RecordBatch::try_from_iter_with_nullable(columns.chain(statuses).map(|(name, column)| (name, column, true)))
            .map_err(|error| Error::internal(format!("the features found cannot be put together: {error}")))
    }

    fn from_batch(service: &ServicePlan, batch: &RecordBatch) -> Result<Self> {
        let columns = service
            .stored
            .iter()
            .enumerate()
            .map(|(number, feature)| plain_column(batch, &number.to_string(), feature.dtype));
        let statuses = service.views().into_iter().map(|view| {
            let name = format!("{view}{STATUS_SUFFIX}");
            match batch.column_by_name(&name) {
                Some(column) if *column.data_type() == DataType::Int8 => {
                    Ok((view.to_owned(), column.as_primitive::<Int8Type>().clone()))
                }
                _ => Err(Error::new(
                    ErrorCode::MissingColumn,
                    format!("there is no column '{name}' of int8"),
                    "give what the partitions of the join have found",
                )),
            }
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, statuses: statuses.collect::<Result<_>>()? })
    }
}

/// Completes a join that was run in partitions: `stored` is what they found for these entity rows, in their order.
///
/// # Errors
/// `unknown_feature_service`, `missing_column`, `type_mismatch`, `name_clash`, `cancelled`.
pub fn complete_join(
    plan: &Plan,
    service: &str,
    entities: &RecordBatch,
    options: &JoinOptions,
    stored: &RecordBatch,
) -> Result<RecordBatch> {
    let service = plan.service(service)?;
    if stored.num_rows() != entities.num_rows() && !service.stored.is_empty() {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("there are {} entity rows and {} rows found", entities.num_rows(), stored.num_rows()),
            "give what was found for each entity row",
        ));
    }
    complete(service, entities, options, &Stored::from_batch(service, stored)?)
}

pub(super) fn complete(
    service: &ServicePlan,
    entities: &RecordBatch,
    options: &JoinOptions,
    stored: &Stored,
) -> Result<RecordBatch> {
    check_names(service, entities, options.statuses)?;
    let request = request_columns(service, entities)?;
    let cancel = Cancel::new(options.cancel.as_deref());
    let computed =
        compute(service, entities.num_rows(), &request, &stored.columns, options.threads_or_cores(), &cancel)?;
    assemble(service, entities, stored, &computed, options.statuses)
}

/// The request's fields, in the service's order.
pub(super) fn request_columns(service: &ServicePlan, entities: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let plain = |field: &headrace_types::Field| plain_column(entities, &field.name, field.dtype);
    service.request_fields.iter().map(plain).collect::<Result<_>>().map_err(|error| error.within("entity rows"))
}

pub(super) fn check_names(service: &ServicePlan, entities: &RecordBatch, statuses: bool) -> Result<()> {
    let schema = entities.schema();
    for feature in &service.features {
        let status = statuses.then(|| format!("{}{STATUS_SUFFIX}", feature.name));
        for name in [Some(&feature.name), status.as_ref()].into_iter().flatten() {
            if schema.column_with_name(name).is_some() {
                return Err(Error::new(
                    ErrorCode::NameClash,
                    format!("the entity rows have a column '{name}', which the service '{}' adds", service.name),
                    "drop or rename the column, or set full_feature_names on the service",
                ));
            }
        }
    }
    Ok(())
}

fn assemble(
    service: &ServicePlan,
    entities: &RecordBatch,
    stored: &Stored,
    computed: &[ArrayRef],
    statuses: bool,
) -> Result<RecordBatch> {
    let mut fields: Vec<_> = entities.schema().fields().iter().cloned().collect();
    let mut columns = entities.columns().to_vec();
    for feature in &service.features {
        let column = match feature.from {
            FeatureFrom::Stored(index) => &stored.columns[index],
            FeatureFrom::OnDemand(index) => &computed[index],
        };
        fields.push(Arc::new(ArrowField::new(&feature.name, column.data_type().clone(), true)));
        columns.push(Arc::clone(column));
    }
    if statuses {
        for (feature, column) in service.features.iter().zip(&columns[entities.num_columns()..].to_vec()) {
            let status = status_column(column, stored.statuses.get(&feature.view))?;
            fields.push(Arc::new(ArrowField::new(
                format!("{}{STATUS_SUFFIX}", feature.name),
                status.data_type().clone(),
                false,
            )));
            columns.push(status);
        }
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, entities.schema().metadata().clone()));
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(entities.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal(format!("the training set cannot be put together: {error}")))
}

/// The names of the statuses of one feature, as a dictionary. `found` is how its row was found; a computed feature has none.
fn status_column(column: &ArrayRef, found: Option<&Int8Array>) -> Result<ArrayRef> {
    let keys: Int8Array = (0..column.len())
        .map(|row| match found.map_or(PRESENT, |found| found.value(row)) {
            PRESENT if column.is_null(row) => FeatureStatus::NullValue as i8,
            status => status,
        })
        .collect::<Vec<i8>>()
        .into();
    let names = StringArray::from_iter_values(FeatureStatus::ALL.map(FeatureStatus::name));
    let array = DictionaryArray::<Int8Type>::try_new(keys, Arc::new(names))
        .map_err(|error| Error::internal(format!("statuses: {error}")))?;
    Ok(Arc::new(array))
}
