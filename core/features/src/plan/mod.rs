//! The plan: all definitions of a project, checked as a whole, with every service compiled.
//!
//! A plan is immutable and named by the digest of its canonical JSON. Whatever is wrong with a definition is found here, once, so that
//! neither a join nor a lookup can meet it later.

mod check;
mod compile;
mod diff;
mod json;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use headrace_expr::{Function, Program, did_you_mean};
use headrace_types::{DType, Error, ErrorCode, Field, Result, TimestampUs, digest_bytes};
use serde_json::Value;

use crate::windows::WindowPlan;

pub use check::{
    ENTITIES_PER_VIEW_MAX, FEATURES_PER_SERVICE_MAX, FIELDS_PER_VIEW_MAX, JOIN_KEYS_MAX, NAME_BYTES_MAX, REQUEST,
};
pub use diff::{Breaking, DefinitionKind, DefinitionRef, PlanDiff};
pub(crate) use json::definition;
pub use json::{PLAN_BYTES_MAX, PLAN_FORMAT, Source};
pub use service::{FeatureFrom, InputFrom, ServiceFeature, ServicePlan, StoredFeature};

/// An entity: what features are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityPlan {
    /// The entity's name.
    pub name: String,
    /// The columns that identify one, in order.
    pub join_keys: Vec<Field>,
    /// What it is, in words.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Who answers for it.
    pub owner: String,
}

/// A view of stored features.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// The view's name.
    pub name: String,
    /// The names of its entities, in order.
    pub entities: Vec<String>,
    /// All join keys of its entities, in order. Empty for a view with one global row.
    pub join_keys: Vec<Field>,
    /// Its features.
    pub fields: Vec<Field>,
    /// Of a view of aggregates, what they are made of; its rows are events.
    pub(crate) windows: Option<Arc<WindowPlan>>,
    /// A row older than this does not count; none keeps rows for ever.
    pub ttl_us: Option<i64>,
    /// Whether the online table is to be filled from it.
    pub online: bool,
    /// Where its rows come from.
    pub source: Source,
    /// Its table among [`Plan::tables`].
    pub table: usize,
    /// Its place among the table's views.
    pub view_index: usize,
    /// What it is, in words.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Who answers for it.
    pub owner: String,
}

impl ViewPlan {
    /// The columns of its rows beside the join keys: its features, or, in a view of aggregates, what they are computed from.
    pub fn row_fields(&self) -> &[Field] {
        self.windows.as_ref().map_or(&self.fields, |windows| &windows.columns)
    }

    /// Whether its rows are events over which its features are aggregates.
    pub fn is_windowed(&self) -> bool {
        self.windows.is_some()
    }

    /// Whether its rows have no event time and are always true.
    pub fn is_static(&self) -> bool {
        self.source.event_ts.is_none()
    }

    /// When a row without a creation time became known, as far as the definition tells: after the declared delay, or, in a file that
    /// has no creation times at all, at its event time. None means: when it was ingested.
    pub fn known_from(&self, event_ts: TimestampUs) -> Option<TimestampUs> {
        match self.source.available_after_us {
            Some(delay_us) => Some(event_ts.saturating_add(delay_us)),
            None => (self.source.kind == "file" && self.source.created_ts.is_none()).then_some(event_ts),
        }
    }
}

/// An input of an on-demand view: `view` is none for a field of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemandInput {
    /// The name in the expressions, which is the field's name in its view or in the request.
    pub field: Field,
    /// The stored view that it comes from.
    pub view: Option<String>,
}

/// A view of features that are computed by expressions.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDemandViewPlan {
    /// The view's name.
    pub name: String,
    /// What the expressions may use.
    pub inputs: Vec<OnDemandInput>,
    /// The features and their expressions.
    pub fields: Vec<(Field, Value)>,
    /// What it is, in words.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Who answers for it.
    pub owner: String,
}

/// An online table: all views with the same ordered join keys share its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    /// The names of the join keys joined by commas; empty for the table of views without entities.
    pub name: String,
    /// The join keys, in order.
    pub join_keys: Vec<Field>,
    /// The names of the table's views, in alphabetical order.
    pub views: Vec<String>,
}

/// All definitions of a project, compiled.
#[derive(Debug)]
pub struct Plan {
    project: String,
    digest: String,
    canonical_json: String,
    entities: BTreeMap<String, EntityPlan>,
    views: BTreeMap<String, ViewPlan>,
    on_demand_views: BTreeMap<String, OnDemandViewPlan>,
    services: BTreeMap<String, ServicePlan>,
    tables: Vec<TablePlan>,
}

impl Plan {
    /// Reads, checks and compiles a plan.
    ///
    /// # Errors
    /// `invalid_json`, `newer_format`, `too_large`, or what is wrong with a definition: `invalid_definition`, `invalid_expression`,
    /// `name_clash`, `type_mismatch`, `unknown_entity`, `unknown_feature_view`, `unknown_feature`. The message names the definition.
    pub fn from_json(text: &str) -> Result<Self> {
        let (json, canonical_json) = json::read(text)?;
        check::project_name(&json.project)?;
        let entities = check::entities(json.entities)?;
        let mut views = check::views(json.views, &entities)?;
        let on_demand_views = check::on_demand_views(json.on_demand_views, &views)?;
        let tables = compile::tables(&mut views);
        let services = compile::services(json.services, &views, &on_demand_views)?;
        Ok(Self {
            project: json.project,
            digest: digest_bytes(canonical_json.as_bytes()),
            canonical_json,
            entities,
            views,
            on_demand_views,
            services,
            tables,
        })
    }

    /// The project's name.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// `sha256:<hex>` of the canonical JSON: the plan's name.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The plan as JSON with sorted keys and no white space.
    pub fn canonical_json(&self) -> &str {
        &self.canonical_json
    }

    /// The online tables, ordered by name.
    pub fn tables(&self) -> &[TablePlan] {
        &self.tables
    }

    /// The entities by name.
    pub fn entities(&self) -> &BTreeMap<String, EntityPlan> {
        &self.entities
    }

    /// The stored views by name.
    pub fn views(&self) -> &BTreeMap<String, ViewPlan> {
        &self.views
    }

    /// The on-demand views by name.
    pub fn on_demand_views(&self) -> &BTreeMap<String, OnDemandViewPlan> {
        &self.on_demand_views
    }

    /// The services by name.
    pub fn services(&self) -> &BTreeMap<String, ServicePlan> {
        &self.services
    }

    /// The functions that services call; one that several services call is here once for each. They need their code before a service
    /// is read.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.services.values().filter_map(|service| service.program.as_ref()).flat_map(Program::functions)
    }

    /// A stored view.
    ///
    /// # Errors
    /// `unknown_feature_view`, with the nearest names.
    pub fn view(&self, name: &str) -> Result<&ViewPlan> {
        self.views.get(name).ok_or_else(|| unknown_view(name, self.views.keys()))
    }

    /// A service.
    ///
    /// # Errors
    /// `unknown_feature_service`, with the nearest names.
    pub fn service(&self, name: &str) -> Result<&ServicePlan> {
        self.services.get(name).ok_or_else(|| {
            Error::new(
                ErrorCode::UnknownFeatureService,
                format!("there is no feature service '{name}'"),
                did_you_mean(name, "feature services", self.services.keys().map(String::as_str)),
            )
        })
    }

    /// The type of a feature of a stored or on-demand view.
    fn feature_dtype(&self, view: &str, feature: &str) -> Option<DType> {
        let stored = self.views.get(view).and_then(|view| view.fields.iter().find(|field| field.name == feature));
        let computed = || {
            let view = self.on_demand_views.get(view)?;
            view.fields.iter().map(|(field, _)| field).find(|field| field.name == feature)
        };
        stored.or_else(computed).map(|field| field.dtype)
    }
}

fn unknown_view<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    Error::new(
        ErrorCode::UnknownFeatureView,
        format!("there is no feature view '{name}'"),
        did_you_mean(name, "feature views", known.map(String::as_str)),
    )
}
