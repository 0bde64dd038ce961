//! The compiled lookup of a service: one reader a table, and where each value goes.

use headrace_cpu::{EncodedKeys, GatherFeature, KeyEncoder, KeysRef};
use headrace_types::{Batch, Column, ColumnData, Error, ErrorCode, Field, Result, TimestampUs};

use super::store::{OnlineStore, TableReader};
use crate::plan::{Plan, ServicePlan, StoredFeature};

/// The keys that a table of the service is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableKeys {
    /// The names of the join keys joined by commas.
    pub name: String,
    /// The join keys, in the table's order.
    pub join_keys: Vec<Field>,
}

/// What a lookup of columns found: the service's stored features in order, and the status of each value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredColumns {
    /// Rows asked for.
    pub rows: usize,
    /// One column for each of [`ServicePlan::stored`].
    pub columns: Vec<Column>,
    /// Row-major `[rows, columns]`: numbers of [`FeatureStatus`](headrace_types::FeatureStatus).
    pub status: Vec<u8>,
}

/// A service's stored features, ready to be looked up: those of [`ServicePlan::stored`], in that order.
#[derive(Debug)]
pub struct OnlinePlan {
    service: String,
    join_keys: Vec<Field>,
    stored: Vec<StoredFeature>,
    tables: Vec<TableLookup>,
}

#[derive(Debug)]
struct TableLookup {
    keys: TableKeys,
    encoder: KeyEncoder,
    reader: Box<dyn TableReader>,
}

impl OnlinePlan {
    /// # Errors
    /// `unknown_feature_service`; `invalid_definition` for a view that is not online; the store's own.
    pub fn compile(store: &dyn OnlineStore, plan: &Plan, service: &str) -> Result<Self> {
        let service = plan.service(service)?;
        Self::compile_service(store, plan, service)
            .map_err(|error| error.within(format!("feature service '{}'", service.name)))
    }

    fn compile_service(store: &dyn OnlineStore, plan: &Plan, service: &ServicePlan) -> Result<Self> {
        let width = service.stored.len();
        let mut tables = Vec::new();
        for (index, table) in plan.tables().iter().enumerate() {
            let of_table = service.stored.iter().enumerate().filter(|(_, feature)| feature.table == index);
            let features: Vec<GatherFeature> = of_table
                .map(|(position, feature)| GatherFeature {
                    view: feature.view_index,
                    field: feature.field_index,
                    position,
                })
                .collect();
            if features.is_empty() {
                continue;
            }
            for feature in &features {
                check_online(plan, &table.views[feature.view])?;
            }
            let ttl_us: Vec<Option<i64>> =
                table.views.iter().map(|view| Ok(plan.view(view)?.ttl_us)).collect::<Result<_>>()?;
            tables.push(TableLookup {
                keys: TableKeys { name: table.name.clone(), join_keys: table.join_keys.clone() },
                encoder: KeyEncoder::new(&table.join_keys),
                reader: store.table_reader(table, &features, &ttl_us, width)?,
            });
        }
        Ok(Self {
            service: service.name.clone(),
            join_keys: service.join_keys.clone(),
            stored: service.stored.clone(),
            tables,
        })
    }

    /// The name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The join keys of the service.
    pub fn join_keys(&self) -> &[Field] {
        &self.join_keys
    }

    /// What is read, in the order of the columns.
    pub fn stored(&self) -> &[StoredFeature] {
        &self.stored
    }

    /// Columns of the matrix: the number of stored features.
    pub fn width(&self) -> usize {
        self.stored.len()
    }

    /// The tables that are read, in the order in which their keys are given.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &TableKeys> {
        self.tables.iter().map(|table| &table.keys)
    }

    /// Looks up by keys given for each of [`Self::tables`], into a row-major matrix `[rows, width]`; NaN where there is no value.
    ///
    /// # Errors
    /// `length_mismatch` for another number of tables or a slice of another length; `type_mismatch` for a service with a
    /// stored feature that is no number.
    pub fn read_f32(
        &self,
        keys: &[KeysRef<'_>],
        now_us: TimestampUs,
        out: &mut [f32],
        mut status: Option<&mut [u8]>,
    ) -> Result<()> {
        self.check_keys(keys)?;
        for (table, &keys) in self.tables.iter().zip(keys) {
            table.reader.read_f32(keys, now_us, out, status.as_deref_mut())?;
        }
        Ok(())
    }

    /// As [`Self::read_f32`], in float64.
    ///
    /// # Errors
    /// As [`Self::read_f32`].
    pub fn read_f64(
        &self,
        keys: &[KeysRef<'_>],
        now_us: TimestampUs,
        out: &mut [f64],
        mut status: Option<&mut [u8]>,
    ) -> Result<()> {
        self.check_keys(keys)?;
        for (table, &keys) in self.tables.iter().zip(keys) {
            table.reader.read_f64(keys, now_us, out, status.as_deref_mut())?;
        }
        Ok(())
    }

    /// Looks up columns of any type, by keys given for each of [`Self::tables`]. `out` keeps its buffers from call to call.
    ///
    /// # Errors
    /// `length_mismatch` for another number of tables or keys of different lengths; `corrupt_store` for a value that cannot
    /// be read.
    pub fn read_columns_into(
        &self,
        keys: &[KeysRef<'_>],
        rows: usize,
        now_us: TimestampUs,
        out: &mut StoredColumns,
    ) -> Result<()> {
        self.check_keys(keys)?;
        out.rows = rows;
        out.columns.truncate(self.width());
        for feature in &self.stored[out.columns.len()..] {
            out.columns.push(Column::new(ColumnData::with_capacity(feature.dtype, rows)));
        }
        out.status.clear();
        out.status.resize(rows * self.width(), 0);
        for (table, &keys) in self.tables.iter().zip(keys) {
            table.reader.read_columns(keys, now_us, &mut out.columns, &mut out.status)?;
        }
        Ok(())
    }

    /// Looks up columns of any type, by a batch that has the service's join keys.
    ///
    /// # Errors
    /// As [`Self::encode_keys`] and [`Self::read_columns_into`].
    pub fn read_columns(&self, keys: &Batch, now_us: TimestampUs) -> Result<StoredColumns> {
        let mut buffers = Vec::new();
        let encoded = self.encode_keys(keys, &mut buffers)?;
        let mut out = StoredColumns::default();
        self.read_columns_into(&encoded, keys.rows, now_us, &mut out)?;
        Ok(out)
    }

    /// The keys for each table, from a batch that has the service's join keys. An int64 key without nulls is not copied.
    ///
    /// # Errors
    /// `missing_column` or `type_mismatch` naming the join key; `length_mismatch` for columns of different lengths.
    pub fn encode_keys<'a>(&self, keys: &'a Batch, buffers: &'a mut Vec<EncodedKeys>) -> Result<Vec<KeysRef<'a>>> {
        buffers.resize_with(self.tables.len().max(buffers.len()), EncodedKeys::default);
        self.tables
            .iter()
            .zip(buffers.iter_mut())
            .map(|(table, buffer)| {
                let columns = table
                    .keys
                    .join_keys
                    .iter()
                    .map(|field| keys.column(&field.name).ok_or_else(|| self.missing_key(&field.name)))
                    .collect::<Result<Vec<&Column>>>()?;
                table.encoder.keys(&columns, keys.rows, buffer)
            })
            .collect()
    }

    fn missing_key(&self, name: &str) -> Error {
        let names: Vec<&str> = self.join_keys.iter().map(|key| key.name.as_str()).collect();
        Error::new(
            ErrorCode::MissingColumn,
            format!("feature service '{}' needs the join key '{name}'", self.service),
            format!("give a column for each of: {}", names.join(", ")),
        )
    }

    fn check_keys(&self, keys: &[KeysRef<'_>]) -> Result<()> {
        if keys.len() == self.tables.len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::LengthMismatch,
            format!(
                "feature service '{}' reads {} tables, keys were given for {}",
                self.service,
                self.tables.len(),
                keys.len()
            ),
            "give the keys of each table, in the order of the lookup's tables",
        ))
    }
}

fn check_online(plan: &Plan, view: &str) -> Result<()> {
    if plan.view(view)?.online {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidDefinition,
        format!("view '{view}' is not online, so its features cannot be looked up"),
        "set online=True on the view and apply, or leave it out of the service",
    ))
}
