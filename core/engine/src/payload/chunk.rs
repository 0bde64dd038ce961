//! What one request served, as columns, on its way from the request to the file.

use std::mem::{size_of, take};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use headrace_types::{Column, ColumnData, DType, Error, FeatureStatus, Result, TimestampUs, Value};

use super::arrays::{array_of, struct_of};
use super::shape::Shape;

/// The status of a served value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServedStatus {
    Feature(FeatureStatus),
    /// The request brought the value itself.
    Given,
}

impl ServedStatus {
    fn name(self) -> &'static str {
        match self {
            ServedStatus::Feature(status) => status.name(),
            ServedStatus::Given => "GIVEN",
        }
    }
}

/// One feature in the sampled rows of a request.
#[derive(Debug)]
pub(crate) struct ServedFeature {
    pub(crate) values: Column,
    pub(crate) statuses: Vec<ServedStatus>,
}

/// The sampled rows of one request, or of several with the same shape.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) shape: Arc<Shape>,
    pub(crate) keys: Vec<Column>,
    pub(crate) inputs: Vec<Column>,
    pub(crate) outputs: Vec<ServedFeature>,
    /// One of each a row, as are all that follow.
    pub(crate) errors: Vec<Option<Arc<Error>>>,
    pub(crate) heads: Vec<Head>,
}

/// What all rows of one request share.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) rows: usize,
    pub(crate) request_id: Arc<str>,
    pub(crate) at_us: TimestampUs,
    pub(crate) queue_us: Option<i64>,
    pub(crate) compute_us: i64,
    pub(crate) weight: f64,
    /// Rows that the online store had applied by then, at least; negative where nobody has said.
    pub(crate) applied_rows: i64,
}

impl Chunk {
    pub(super) fn rows(&self) -> usize {
        self.errors.len()
    }

    /// Bytes that the rows take, as columns whose texts are repeated in every row.
    pub(super) fn bytes(&self) -> usize {
        let columns = self.keys.iter().chain(&self.inputs).chain(self.outputs.iter().map(|output| &output.values));
        let ids = self.heads.iter().map(|head| head.rows * (head.request_id.len() + size_of::<Head>()));
        let statuses = self.rows() * self.outputs.len() * size_of::<ServedStatus>();
        columns.map(bytes_of).sum::<usize>() + ids.sum::<usize>() + statuses + size_of::<Self>()
    }

    /// Adds the rows of another chunk of the same shape.
    pub(super) fn append(&mut self, mut other: Chunk) -> Result<()> {
        self.heads.append(&mut other.heads);
        self.errors.append(&mut other.errors);
        let own = self.keys.iter_mut().chain(&mut self.inputs);
        for (own, column) in own.zip(other.keys.into_iter().chain(other.inputs)) {
            append_column(own, column)?;
        }
        for (own, mut output) in self.outputs.iter_mut().zip(other.outputs) {
            append_column(&mut own.values, output.values)?;
            own.statuses.append(&mut output.statuses);
        }
        Ok(())
    }

    pub(super) fn to_batch(&self) -> Result<RecordBatch> {
        let shape = &*self.shape;
        let rows = self.rows();
        let arrays = |columns: &[Column]| columns.iter().map(array_of).collect::<Result<Vec<_>>>();
        let mut outputs = Vec::new();
        for (output, has_status) in self.outputs.iter().zip(&shape.has_status) {
            outputs.push(array_of(&output.values)?);
            if *has_status {
                let names = output.statuses.iter().map(|status| Some(status.name()));
                outputs.push(Arc::new(names.collect::<StringArray>()));
            }
        }
        let (model, version) = shape.model.as_ref().map(|(name, version)| (name.as_str(), *version)).unzip();
        let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
        let failed = |error: &Option<Arc<Error>>| Some(if error.is_some() { "invalid" } else { "ok" });
        let columns = shape.schema.fields().iter().map(|field| -> Result<ArrayRef> {
            Ok(match field.name().as_str() {
                "request_id" => Arc::new(self.each(|head| &*head.request_id).map(Some).collect::<StringArray>()),
                "at" => {
                    let times = TimestampMicrosecondArray::from_iter_values(self.each(|head| head.at_us));
                    Arc::new(times.with_timezone("UTC"))
                }
                "deployment" => text(Some(&shape.deployment)),
                "node" => text(Some(shape.node)),
                "model" => text(model),
                "model_version" => Arc::new(UInt32Array::from(vec![version; rows])),
                "plan_digest" => text(Some(&shape.plan_digest)),
                "keys" => struct_of(field.data_type(), arrays(&self.keys)?, rows)?,
                "inputs" => struct_of(field.data_type(), arrays(&self.inputs)?, rows)?,
                "outputs" => struct_of(field.data_type(), take(&mut outputs), rows)?,
                "status" => Arc::new(self.errors.iter().map(failed).collect::<StringArray>()),
                "error" => {
                    let texts = self.errors.iter().map(|error| error.as_ref().map(ToString::to_string));
                    Arc::new(texts.collect::<StringArray>())
                }
                "queue_us" => Arc::new(self.each(|head| head.queue_us).collect::<Int64Array>()),
                "compute_us" => Arc::new(Int64Array::from_iter_values(self.each(|head| head.compute_us))),
                "sampled_weight" => Arc::new(Float64Array::from_iter_values(self.each(|head| head.weight))),
                "applied_rows" => {
                    let known = |head: &Head| (head.applied_rows >= 0).then_some(head.applied_rows);
                    Arc::new(self.each(known).collect::<Int64Array>())
                }
                // What is measured or decided by parts of the engine that are not there yet.
                _ => new_null_array(field.data_type(), rows),
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(&shape.schema), columns)
            .map_err(|error| Error::internal(format!("a payload does not fit its columns: {error}")))
    }

    /// What a request says, for each of its rows.
    fn each<'a, T: 'a>(&'a self, of: impl Fn(&'a Head) -> T + 'a) -> impl Iterator<Item = T> + 'a {
        self.heads.iter().flat_map(move |head| {
            let rows = head.rows;
            let of = &of;
            (0..rows).map(move |_| of(head)).collect::<Vec<_>>()
        })
    }
}

fn bytes_of(column: &Column) -> usize {
    let values = match &column.data {
        ColumnData::String(v) => v.iter().map(|text| text.len() + size_of::<String>()).sum(),
        ColumnData::Bytes(v) => v.iter().map(|bytes| bytes.len() + size_of::<Vec<u8>>()).sum(),
        ColumnData::List(_, v) => {
            let item = |value: &Value| match value {
                Value::String(text) => text.len() + size_of::<Value>(),
                Value::Bytes(bytes) => bytes.len() + size_of::<Value>(),
                _ => size_of::<Value>(),
            };
            v.iter().map(|items| items.iter().map(item).sum::<usize>() + size_of::<Vec<Value>>()).sum()
        }
        data => data.len() * size_of::<u64>(),
    };
    values + column.validity.as_ref().map_or(0, Vec::len)
}

fn append_column(own: &mut Column, other: Column) -> Result<()> {
    let (before, added) = (own.len(), other.len());
    if own.validity.is_some() || other.validity.is_some() {
        let validity = own.validity.get_or_insert_with(|| vec![true; before]);
        validity.extend(other.validity.unwrap_or_else(|| vec![true; added]));
    }
    append_data(&mut own.data, other.data)
}

macro_rules! append_same {
    ($own:expr, $other:expr, $($variant:ident)*) => {
        match ($own, $other) {
            $((ColumnData::$variant(own), ColumnData::$variant(mut other)) => own.append(&mut other),)*
            (ColumnData::List(_, own), ColumnData::List(_, mut other)) => own.append(&mut other),
            (own, other) => return Err(differs(own.dtype(), other.dtype())),
        }
    };
}

fn append_data(own: &mut ColumnData, other: ColumnData) -> Result<()> {
    append_same!(own, other, Bool Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float32 Float64 String Bytes Timestamp);
    Ok(())
}

fn differs(own: DType, other: DType) -> Error {
    Error::internal(format!("a payload's column is a {own} in one request and a {other} in another"))
}
