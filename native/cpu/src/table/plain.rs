//! The plain twin of the row table: a map of keys to values, with the same answers.

use std::collections::HashMap;

use headrace_types::{Column, FeatureStatus, Result, RowVersion, Value};

use super::image::{ImageLayout, RowValues};
use super::key::KeysRef;
use super::plan::GatherFeature;
use super::schema::TableSchema;
use super::store::UpsertOutcome;

/// What [`super::RowTable`] must answer, in the plainest code.
#[derive(Debug)]
pub struct PlainTable {
    schema: TableSchema,
    images: Vec<ImageLayout>,
    rows: HashMap<Vec<u8>, Vec<Option<PlainRow>>>,
}

#[derive(Debug, Clone)]
struct PlainRow {
    version: RowVersion,
    /// `None` for a tombstone.
    values: Option<Vec<Value>>,
}

/// What [`super::GatherPlan`] is compiled from.
#[derive(Debug, Clone)]
pub struct PlainPlan {
    pub features: Vec<GatherFeature>,
    /// One for each view of the table.
    pub ttl_us: Vec<Option<i64>>,
    pub width: usize,
}

impl PlainTable {
    pub fn create(schema: TableSchema) -> Self {
        let images = schema.views.iter().map(|view| ImageLayout::new(&view.fields)).collect();
        Self { schema, images, rows: HashMap::new() }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// # Errors
    /// `corrupt_store` for an image that is not one of the view's fields.
    pub fn upsert(
        &mut self,
        view: usize,
        key: &[u8],
        version: RowVersion,
        values: RowValues<'_>,
    ) -> Result<UpsertOutcome> {
        let values = match values {
            RowValues::Live(image) => Some(self.images[view].decode(image)?),
            RowValues::Tombstone => None,
        };
        let row = self.rows.entry(key.to_vec()).or_insert_with(|| vec![None; self.schema.views.len()]);
        if row[view].as_ref().is_some_and(|old| version <= old.version) {
            return Ok(UpsertOutcome::Stale);
        }
        let outcome = match (&values, &row[view]) {
            (None, _) => UpsertOutcome::Deleted,
            (Some(_), Some(_)) => UpsertOutcome::Replaced,
            (Some(_), None) => UpsertOutcome::Inserted,
        };
        row[view] = Some(PlainRow { version, values });
        Ok(outcome)
    }

    /// One value and its status.
    pub fn get(
        &self,
        plan: &PlainPlan,
        feature: &GatherFeature,
        key: Option<&[u8]>,
        now_us: i64,
    ) -> (Value, FeatureStatus) {
        let row = key.and_then(|key| self.rows.get(key)).and_then(|row| row[feature.view].as_ref());
        let Some(PlainRow { version, values: Some(values) }) = row else {
            return (Value::Null, FeatureStatus::NotFound);
        };
        if plan.ttl_us[feature.view].is_some_and(|ttl_us| version.event_ts < now_us.saturating_sub(ttl_us)) {
            return (Value::Null, FeatureStatus::OutsideMaxAge);
        }
        match &values[feature.field] {
            Value::Null => (Value::Null, FeatureStatus::NullValue),
            value => (value.clone(), FeatureStatus::Present),
        }
    }

    /// As [`super::RowTable::gather_f32`].
    pub fn gather_f32(&self, plan: &PlainPlan, keys: KeysRef<'_>, now_us: i64, out: &mut [f32], status: &mut [u8]) {
        self.for_each_value(plan, keys, now_us, |at, value, found| {
            out[at] = match value {
                Value::Bool(v) => f32::from(u8::from(v)),
                Value::Int(v) => v as f32,
                Value::UInt(v) => v as f32,
                Value::Float32(v) => v,
                Value::Float64(v) => v as f32,
                _ => f32::NAN,
            };
            status[at] = found as u8;
        });
    }

    /// As [`super::RowTable::gather_f64`].
    pub fn gather_f64(&self, plan: &PlainPlan, keys: KeysRef<'_>, now_us: i64, out: &mut [f64], status: &mut [u8]) {
        self.for_each_value(plan, keys, now_us, |at, value, found| {
            out[at] = match value {
                Value::Bool(v) => f64::from(u8::from(v)),
                Value::Int(v) => v as f64,
                Value::UInt(v) => v as f64,
                Value::Float32(v) => v.into(),
                Value::Float64(v) => v,
                _ => f64::NAN,
            };
            status[at] = found as u8;
        });
    }

    /// As [`super::RowTable::gather_columns`], with new columns in the order of the features.
    ///
    /// # Errors
    /// `type_mismatch` never: the values are of their types.
    pub fn gather_columns(
        &self,
        plan: &PlainPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        status: &mut [u8],
    ) -> Result<Vec<Column>> {
        self.for_each_value(plan, keys, now_us, |at, _, found| status[at] = found as u8);
        let column = |feature: &GatherFeature| {
            let dtype = self.schema.views[feature.view].fields[feature.field].dtype;
            let value = |row| self.get(plan, feature, keys.canonical(row).as_deref(), now_us).0;
            Column::from_values(dtype, (0..keys.len()).map(value))
        };
        plan.features.iter().map(column).collect()
    }

    fn for_each_value(
        &self,
        plan: &PlainPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        mut visit: impl FnMut(usize, Value, FeatureStatus),
    ) {
        for row in 0..keys.len() {
            let key = keys.canonical(row);
            for feature in &plan.features {
                let (value, found) = self.get(plan, feature, key.as_deref(), now_us);
                visit(row * plan.width + feature.position, value, found);
            }
        }
    }
}
