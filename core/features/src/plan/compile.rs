//! From checked definitions to tables and service plans.

use std::collections::{BTreeMap, HashMap};

use headrace_expr::ProgramBuilder;
use headrace_types::{DType, Error, ErrorCode, Field, Result};
use serde_json::Value;

use super::check::{FEATURES_PER_SERVICE_MAX, invalid, unknown_feature};
use super::json::{self, FeatureJson, ServiceJson};
use super::service::{FeatureFrom, InputFrom, ServiceFeature, ServicePlan, StoredFeature};
use super::{OnDemandViewPlan, TablePlan, ViewPlan, unknown_view};

/// Groups the views by their ordered join keys and tells each its place. A key name has one type in a project, so names identify a table.
pub(super) fn tables(views: &mut BTreeMap<String, ViewPlan>) -> Vec<TablePlan> {
    let mut by_name: BTreeMap<String, TablePlan> = BTreeMap::new();
    for view in views.values() {
        let names: Vec<&str> = view.join_keys.iter().map(|key| key.name.as_str()).collect();
        let name = names.join(",");
        let table = by_name.entry(name.clone()).or_insert_with(|| TablePlan {
            name,
            join_keys: view.join_keys.clone(),
            views: Vec::new(),
        });
        table.views.push(view.name.clone());
    }
    let tables: Vec<TablePlan> = by_name.into_values().collect();
    for (table_index, table) in tables.iter().enumerate() {
        for (view_index, name) in table.views.iter().enumerate() {
            if let Some(view) = views.get_mut(name) {
                (view.table, view.view_index) = (table_index, view_index);
            }
        }
    }
    tables
}

pub(super) fn services(
    definitions: BTreeMap<String, Value>,
    views: &BTreeMap<String, ViewPlan>,
    on_demand_views: &BTreeMap<String, OnDemandViewPlan>,
) -> Result<BTreeMap<String, ServicePlan>> {
    definitions
        .into_iter()
        .map(|(name, value)| {
            let place = format!("service '{name}'");
            let compiler = ServiceCompiler::new(views, on_demand_views);
            let service = compiler.compile(&name, value).map_err(|error| error.within(place))?;
            Ok((name, service))
        })
        .collect()
}

/// Collects what the features of one service need.
struct ServiceCompiler<'a> {
    views: &'a BTreeMap<String, ViewPlan>,
    on_demand_views: &'a BTreeMap<String, OnDemandViewPlan>,
    join_keys: Vec<Field>,
    request_fields: Vec<Field>,
    stored: Vec<StoredFeature>,
    stored_indexes: HashMap<(String, String), usize>,
    /// Program inputs so far, and the input of each source of values.
    inputs: Vec<(Field, InputFrom)>,
    /// On-demand features in order of use: view and field index.
    computed: Vec<(&'a OnDemandViewPlan, usize)>,
}

impl<'a> ServiceCompiler<'a> {
    fn new(views: &'a BTreeMap<String, ViewPlan>, on_demand_views: &'a BTreeMap<String, OnDemandViewPlan>) -> Self {
        Self {
            views,
            on_demand_views,
            join_keys: Vec::new(),
            request_fields: Vec::new(),
            stored: Vec::new(),
            stored_indexes: HashMap::new(),
            inputs: Vec::new(),
            computed: Vec::new(),
        }
    }

    fn compile(mut self, name: &str, value: Value) -> Result<ServicePlan> {
        super::check::check_name("a service", name)?;
        let ServiceJson { features: definitions, full_feature_names, description, tags, owner } =
            json::definition(value)?;
        if definitions.is_empty() {
            return Err(invalid("it has no features", "list at least one"));
        }
        super::check::check_limit("features", definitions.len(), FEATURES_PER_SERVICE_MAX)?;
        let mut features = Vec::with_capacity(definitions.len());
        for definition in definitions {
            features.push(self.feature(definition, full_feature_names)?);
        }
        let (program, program_inputs) = self.program()?;
        self.check_clashes(&features)?;
        Ok(ServicePlan {
            name: name.into(),
            join_keys: self.join_keys,
            request_fields: self.request_fields,
            stored: self.stored,
            program,
            program_inputs,
            features,
            description,
            tags,
            owner,
        })
    }

    fn feature(&mut self, definition: FeatureJson, full_feature_names: bool) -> Result<ServiceFeature> {
        let FeatureJson { view, feature, name } = definition;
        let expected = if full_feature_names { format!("{view}__{feature}") } else { feature.clone() };
        if name != expected {
            return Err(invalid(
                format!("the feature '{feature}' of view '{view}' is named '{name}'"),
                format!("its name here is '{expected}'"),
            ));
        }
        let (dtype, from) = if let Some(stored) = self.views.get(&view) {
            let (index, dtype) = self.stored(stored, &feature)?;
            (dtype, FeatureFrom::Stored(index))
        } else if let Some(on_demand) = self.on_demand_views.get(&view) {
            let Some(field_index) = on_demand.fields.iter().position(|(field, _)| field.name == feature) else {
                return Err(unknown_feature(&view, &feature, on_demand.fields.iter().map(|(field, _)| field)));
            };
            self.computed.push((on_demand, field_index));
            (on_demand.fields[field_index].0.dtype, FeatureFrom::OnDemand(self.computed.len() - 1))
        } else {
            return Err(unknown_view(&view, self.views.keys().chain(self.on_demand_views.keys())));
        };
        Ok(ServiceFeature { name, view, feature, dtype, from })
    }

    /// The index of a stored feature, added when it is new.
    fn stored(&mut self, view: &ViewPlan, feature: &str) -> Result<(usize, DType)> {
        let Some(field_index) = view.fields.iter().position(|field| field.name == feature) else {
            return Err(unknown_feature(&view.name, feature, view.fields.iter()));
        };
        let dtype = view.fields[field_index].dtype;
        let name = (view.name.clone(), feature.to_owned());
        if let Some(&index) = self.stored_indexes.get(&name) {
            return Ok((index, dtype));
        }
        let mut key_positions = Vec::with_capacity(view.join_keys.len());
        for key in &view.join_keys {
            key_positions.push(position_or_push(&mut self.join_keys, key));
        }
        self.stored.push(StoredFeature {
            table: view.table,
            view: view.name.clone(),
            view_index: view.view_index,
            field: feature.to_owned(),
            field_index,
            dtype,
            ttl_us: view.ttl_us,
            key_positions,
        });
        self.stored_indexes.insert(name, self.stored.len() - 1);
        Ok((self.stored.len() - 1, dtype))
    }

    /// One program for all on-demand features used. Two views may call different things by one name, so inputs are told apart by origin.
    fn program(&mut self) -> Result<(Option<headrace_expr::Program>, Vec<InputFrom>)> {
        if self.computed.is_empty() {
            return Ok((None, Vec::new()));
        }
        let mut columns_by_view: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
        for (view, _) in self.computed.clone() {
            if columns_by_view.contains_key(view.name.as_str()) {
                continue;
            }
            let mut columns = HashMap::with_capacity(view.inputs.len());
            for input in &view.inputs {
                columns.insert(input.field.name.as_str(), self.input(&view.name, input)?);
            }
            columns_by_view.insert(&view.name, columns);
        }
        let mut builder = ProgramBuilder::new(self.inputs.iter().map(|(field, _)| field.clone()).collect());
        for (view, field_index) in &self.computed {
            let (field, expr) = &view.fields[*field_index];
            builder
                .output(field.clone(), expr, &columns_by_view[view.name.as_str()])
                .map_err(|error| error.within(format!("view '{}'", view.name)))?;
        }
        Ok((Some(builder.finish()), self.inputs.iter().map(|(_, from)| *from).collect()))
    }

    /// The index of a program input, added when it is new.
    fn input(&mut self, view: &str, input: &super::OnDemandInput) -> Result<usize> {
        let views = self.views;
        let from = match &input.view {
            None => {
                let index = position_or_push(&mut self.request_fields, &input.field);
                let known = &self.request_fields[index];
                if known.dtype != input.field.dtype {
                    return Err(Error::new(
                        ErrorCode::NameClash,
                        format!(
                            "the request's field '{}' is {} in one on-demand view and {} in '{view}'",
                            known.name, known.dtype, input.field.dtype
                        ),
                        "rename one of them, or give both the same type",
                    ));
                }
                InputFrom::Request(index)
            }
            Some(name) => {
                let view = views.get(name).ok_or_else(|| unknown_view(name, views.keys()))?;
                InputFrom::Stored(self.stored(view, &input.field.name)?.0)
            }
        };
        if let Some(index) = self.inputs.iter().position(|(_, known)| *known == from) {
            return Ok(index);
        }
        self.inputs.push((input.field.clone(), from));
        Ok(self.inputs.len() - 1)
    }

    fn check_clashes(&self, features: &[ServiceFeature]) -> Result<()> {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for feature in features {
            if let Some(other) = seen.insert(&feature.name, &feature.view) {
                let (message, hint) = if other == feature.view {
                    (format!("the feature '{}' of view '{other}' is listed twice", feature.feature), "list it once")
                } else {
                    let message =
                        format!("views '{other}' and '{}' both have a feature '{}'", feature.view, feature.name);
                    (message, "set full_feature_names, or leave one of them out")
                };
                return Err(Error::new(ErrorCode::NameClash, message, hint));
            }
        }
        // Entity columns and features stand side by side in a training set.
        for column in self.join_keys.iter().chain(&self.request_fields) {
            if seen.contains_key(column.name.as_str()) {
                return Err(Error::new(
                    ErrorCode::NameClash,
                    format!("'{}' is a feature and also a join key or a field of the request", column.name),
                    "rename the feature, or set full_feature_names",
                ));
            }
        }
        for key in &self.join_keys {
            let twin = self.request_fields.iter().find(|field| field.name == key.name && field.dtype != key.dtype);
            if let Some(field) = twin {
                return Err(Error::new(
                    ErrorCode::NameClash,
                    format!(
                        "'{}' is a join key of type {} and a field of the request of type {}",
                        key.name, key.dtype, field.dtype
                    ),
                    "rename the request's field, or give it the key's type",
                ));
            }
        }
        Ok(())
    }
}

fn position_or_push(fields: &mut Vec<Field>, field: &Field) -> usize {
    fields.iter().position(|known| known.name == field.name).unwrap_or_else(|| {
        fields.push(field.clone());
        fields.len() - 1
    })
}
