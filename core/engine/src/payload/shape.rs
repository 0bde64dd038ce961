//! The columns of a segment: those that every payload has, and the structs of one deployment under one plan.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};
use headrace_features::{STATUS_SUFFIX, arrow_type};
use headrace_types::Field;
use serde_json::json;

/// The version of the form; a reader refuses a higher one.
const FORMAT: u32 = 1;
/// Under this name a segment's file says what it is.
const METADATA_KEY: &str = "headrace.payload";
/// The node that looks features up and computes them.
const LOOKUP: &str = "lookup";

/// What all rows of a segment have in common.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(super) deployment: String,
    pub(super) node: &'static str,
    pub(super) model: Option<(String, u32)>,
    pub(super) plan_digest: String,
    keys: Vec<Field>,
    inputs: Vec<Field>,
    /// For each output, whether it has a column of statuses: not where another feature has taken its name.
    pub(super) has_status: Vec<bool>,
    pub(super) schema: SchemaRef,
}

impl Shape {
    /// The lookup of a service's features, for a model or on its own.
    pub(crate) fn of_lookup(
        service: &str,
        plan_digest: &str,
        model: Option<(&str, u32)>,
        keys: &[Field],
        inputs: &[Field],
        outputs: &[Field],
    ) -> Self {
        let names: HashSet<&str> = outputs.iter().map(|field| field.name.as_str()).collect();
        let status_of = |field: &Field| format!("{}{STATUS_SUFFIX}", field.name);
        let has_status: Vec<bool> = outputs.iter().map(|field| !names.contains(status_of(field).as_str())).collect();
        let of = |field: &Field| ArrowField::new(&field.name, arrow_type(field.dtype), true);
        let mut served: Vec<ArrowField> = Vec::new();
        for (field, has_status) in outputs.iter().zip(&has_status) {
            served.push(of(field));
            if *has_status {
                served.push(ArrowField::new(status_of(field), DataType::Utf8, true));
            }
        }
        let deployment = model.map_or(service, |(name, _)| name).to_owned();
        let said = json!({
            "format": FORMAT, "deployment": deployment, "node": LOOKUP, "service": service, "plan_digest": plan_digest,
            "keys": keys, "inputs": inputs, "outputs": outputs,
        });
        let columns =
            columns(keys.iter().map(of).collect(), inputs.iter().map(of).collect(), served.into_iter().collect());
        let metadata = [(METADATA_KEY.to_owned(), said.to_string())].into();
        Self {
            deployment,
            node: LOOKUP,
            model: model.map(|(name, version)| (name.to_owned(), version)),
            plan_digest: plan_digest.to_owned(),
            keys: keys.to_vec(),
            inputs: inputs.to_vec(),
            has_status,
            schema: Arc::new(Schema::new_with_metadata(columns, metadata)),
        }
    }
}

impl Shape {
    /// The join keys, in the order of the struct.
    pub(crate) fn keys(&self) -> &[Field] {
        &self.keys
    }

    /// What the request brought, in the order of the struct.
    pub(crate) fn inputs(&self) -> &[Field] {
        &self.inputs
    }
}

/// Parquet has no struct without a member: a column of nulls stands for it.
fn structure(fields: Fields) -> DataType {
    if fields.is_empty() { DataType::Null } else { DataType::Struct(fields) }
}

fn columns(keys: Fields, inputs: Fields, outputs: Fields) -> Vec<ArrowField> {
    let required = |name: &str, kind| ArrowField::new(name, kind, false);
    let optional = |name: &str, kind| ArrowField::new(name, kind, true);
    vec![
        required("request_id", DataType::Utf8),
        required("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        required("deployment", DataType::Utf8),
        optional("route", DataType::Utf8),
        optional("generation", DataType::Int64),
        optional("propensity", DataType::Float64),
        required("node", DataType::Utf8),
        optional("model", DataType::Utf8),
        optional("model_version", DataType::UInt32),
        required("plan_digest", DataType::Utf8),
        optional("subject", DataType::Utf8),
        optional("keys", structure(keys)),
        optional("inputs", structure(inputs)),
        optional("outputs", structure(outputs)),
        required("status", DataType::Utf8),
        optional("error", DataType::Utf8),
        optional("queue_us", DataType::Int64),
        required("compute_us", DataType::Int64),
        optional("cpu_us", DataType::Int64),
        optional("gpu_us", DataType::Int64),
        required("sampled_weight", DataType::Float64),
        optional("applied_rows", DataType::Int64),
    ]
}
