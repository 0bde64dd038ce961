use std::collections::BTreeMap;

use headrace_expr::Program;
use headrace_types::{DType, Field};

/// A stored feature that a service reads, and where it lies in the online tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFeature {
    /// The number of the table in [`Plan::tables`](crate::Plan::tables).
    pub table: usize,
    /// The view's name.
    pub view: String,
    /// The view's place among the table's views.
    pub view_index: usize,
    /// The field's name.
    pub field: String,
    /// The field's place among the view's fields.
    pub field_index: usize,
    /// The field's type.
    pub dtype: DType,
    /// The view's time to live, in microseconds.
    pub ttl_us: Option<i64>,
    /// For each join key of the view, in order, its place among the service's join keys.
    pub key_positions: Vec<usize>,
}

/// Where the value of a service's feature comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureFrom {
    /// An index into [`ServicePlan::stored`].
    Stored(usize),
    /// An index into the outputs of [`ServicePlan::program`].
    OnDemand(usize),
}

/// A feature of a service, in the order of the model's inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFeature {
    /// The name in results: `feature`, or `view__feature`.
    pub name: String,
    /// The view that defines it.
    pub view: String,
    /// Its name in that view.
    pub feature: String,
    /// Its type.
    pub dtype: DType,
    /// Where its value comes from.
    pub from: FeatureFrom,
}

/// Where an input of the service's program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFrom {
    /// An index into [`ServicePlan::request_fields`].
    Request(usize),
    /// An index into [`ServicePlan::stored`].
    Stored(usize),
}

/// A feature service, compiled: what to ask for, what to read, what to compute, and the order of the result.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// The service's name.
    pub name: String,
    /// The union of the join keys of all views read, in the order of first use.
    pub join_keys: Vec<Field>,
    /// What the request must bring for the on-demand views, in the order of first use.
    pub request_fields: Vec<Field>,
    /// Every stored feature to read: the service's own, then inputs of on-demand views that are not among them.
    pub stored: Vec<StoredFeature>,
    /// The expressions of all on-demand views used, as one program; none when there are none.
    pub program: Option<Program>,
    /// Where each input of the program comes from.
    pub program_inputs: Vec<InputFrom>,
    /// The features in the model's order.
    pub features: Vec<ServiceFeature>,
    /// What it is for, in words.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Who answers for it.
    pub owner: String,
}

impl ServicePlan {
    /// The names of the stored views that the service reads, each once, in the order of first use.
    pub fn views(&self) -> Vec<&str> {
        let mut views: Vec<&str> = Vec::new();
        for feature in &self.stored {
            if !views.contains(&feature.view.as_str()) {
                views.push(&feature.view);
            }
        }
        views
    }
}
