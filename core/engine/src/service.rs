//! A feature service in force: its compiled lookup, its expressions, and how a model's inputs come out of the two.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_expr::ColumnView;
use headrace_features::{FeatureFrom, InputFrom, LocalStore, OnlinePlan, Plan, ServicePlan};
use headrace_types::{Batch, Column, ColumnData, Error, ErrorCode, Field, Result, ScalarType, TimestampUs};

use crate::deployment::{Deployment, Section};
use crate::inputs::{Inputs, missing_column};
use crate::numbers::Target;
use crate::payload::Shape;
use crate::request::{RowError, RowErrors};
use crate::response::Timing;
use crate::scratch::{Matrix, Scratch};

/// A service of the installed plan.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) plan: ServicePlan,
    pub(crate) online: OnlinePlan,
    /// For each feature of the service, what its value is made from.
    needs: Vec<Needs>,
    plan_digest: String,
}

/// What a feature's value is made from: places in the service's `stored` and `request_fields`.
#[derive(Debug, Default, Clone)]
struct Needs {
    stored: Vec<usize>,
    request: Vec<usize>,
}

/// A model's features and columns within a service, matched by name once, when plan and model meet.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) service: Arc<Service>,
    /// For each feature of the model, its place among the service's features.
    pub(crate) features: Vec<usize>,
    /// For each join key of the service, its place in the signature.
    keys: Vec<Option<usize>>,
    /// For each request field of the service, its place in the signature.
    request: Vec<Option<usize>>,
    /// What a request without given features must bring.
    demands: Demands,
    /// How the lookup fills the model's matrix by itself: where the model takes all stored features, in their order, and nothing else.
    direct: Option<Direct>,
    /// The columns of its payloads.
    pub(crate) shape: Arc<Shape>,
}

/// The precision in which a lookup loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direct {
    Float32,
    Float64,
}

/// Which of a service's parts a request needs, after the features that it gives itself.
#[derive(Debug)]
struct Demands {
    stored: Vec<bool>,
    keys: Vec<bool>,
    request: Vec<bool>,
    /// Whether any on-demand feature is still to be computed.
    program: bool,
}

impl Service {
    pub(crate) fn new(store: &LocalStore, plan: &Plan, name: &str) -> Result<Self> {
        let service = plan.service(name)?.clone();
        let online = store.online_plan(plan, name)?;
        let needs = service
            .features
            .iter()
            .map(|feature| match feature.from {
                FeatureFrom::Stored(stored) => Needs { stored: vec![stored], request: Vec::new() },
                FeatureFrom::OnDemand(_) => needs_of_view(plan, &service, &feature.view),
            })
            .collect();
        Ok(Self { plan: service, online, needs, plan_digest: plan.digest().to_owned() })
    }

    /// Which parts are needed for some of the features.
    fn demands(&self, features: impl Iterator<Item = usize>, is_given: impl Fn(usize) -> bool) -> Demands {
        let plan = &self.plan;
        let mut demands = Demands {
            stored: vec![false; plan.stored.len()],
            keys: vec![false; plan.join_keys.len()],
            request: vec![false; plan.request_fields.len()],
            program: false,
        };
        for feature in features.filter(|feature| !is_given(*feature)) {
            let needs = &self.needs[feature];
            needs.stored.iter().for_each(|&stored| demands.stored[stored] = true);
            needs.request.iter().for_each(|&field| demands.request[field] = true);
            demands.program |= matches!(plan.features[feature].from, FeatureFrom::OnDemand(_));
        }
        for (feature, _) in plan.features.iter().enumerate().filter(|(feature, _)| is_given(*feature)) {
            if let FeatureFrom::Stored(stored) = plan.features[feature].from {
                demands.stored[stored] = false;
            }
        }
        for (stored, _) in demands.stored.iter().enumerate().filter(|(_, needed)| **needed) {
            plan.stored[stored].key_positions.iter().for_each(|&key| demands.keys[key] = true);
        }
        demands
    }
}

fn needs_of_view(plan: &Plan, service: &ServicePlan, view: &str) -> Needs {
    let mut needs = Needs::default();
    for input in plan.on_demand_views().get(view).map_or(&[][..], |view| &view.inputs) {
        match &input.view {
            None => {
                needs.request.extend(service.request_fields.iter().position(|field| field.name == input.field.name))
            }
            Some(view) => needs.stored.extend(
                service.stored.iter().position(|stored| stored.view == *view && stored.field == input.field.name),
            ),
        }
    }
    needs
}

impl Binding {
    /// Without a version it is not for a model, but for a service's own features.
    ///
    /// # Errors
    /// `unavailable` with what keeps the model from being served by this service.
    pub(crate) fn new(
        service: &Arc<Service>,
        model: &str,
        version: Option<u32>,
        features: &[Field],
        join_keys: &[Field],
        request_fields: &[Field],
    ) -> Result<Self> {
        let plan = &service.plan;
        let misfit = |what: String| {
            Error::new(
                ErrorCode::Unavailable,
                format!("model '{model}' does not fit feature service '{}': {what}", plan.name),
                "apply the definitions that it was trained with, or train it again",
            )
        };
        let places = features.iter().map(|field| {
            let place = plan.features.iter().position(|feature| feature.name == field.name);
            let place = place.ok_or_else(|| misfit(format!("the service has no feature '{}'", field.name)))?;
            let dtype = plan.features[place].dtype;
            if dtype != field.dtype {
                return Err(misfit(format!("feature '{}' was a {}, it is a {dtype} now", field.name, field.dtype)));
            }
            Ok(place)
        });
        let places = places.collect::<Result<Vec<usize>>>()?;
        let demands = service.demands(places.iter().copied(), |_| false);
        let matched = |own: &[Field], theirs: &[Field], needed: &[bool]| {
            let places = theirs.iter().zip(needed).map(|(field, needed)| {
                let place = own.iter().position(|other| other == field);
                if place.is_none() && *needed {
                    return Err(misfit(format!(
                        "it needs '{}' ({}), which the signature lacks",
                        field.name, field.dtype
                    )));
                }
                Ok(place)
            });
            places.collect::<Result<Vec<Option<usize>>>>()
        };
        let keys = matched(join_keys, &plan.join_keys, &demands.keys)?;
        let request = matched(request_fields, &plan.request_fields, &demands.request)?;
        let direct = Direct::of(plan, &places);
        let model = version.map(|version| (model, version));
        let (digest, keys_of, fields) = (&service.plan_digest, &plan.join_keys, &plan.request_fields);
        let shape = Arc::new(Shape::of_lookup(&plan.name, digest, model, keys_of, fields, features));
        Ok(Self { service: Arc::clone(service), features: places, keys, request, demands, direct, shape })
    }

    /// Fills the scratch's matrix with the model's features: looks up, computes, and puts given features in their place.
    ///
    /// # Errors
    /// `missing_column` for a join key or request field that is needed; the store's own.
    pub(crate) fn fill(
        &self,
        deployment: &Deployment,
        inputs: &Inputs<'_>,
        rows: usize,
        now_us: TimestampUs,
        scratch: &mut Scratch,
        timing: &mut Timing,
    ) -> Result<()> {
        let given_demands = (!inputs.overrides.is_empty()).then(|| {
            let is_given = |feature| self.given(inputs, feature).is_some();
            self.service.demands(self.features.iter().copied(), is_given)
        });
        let demands = given_demands.as_ref().unwrap_or(&self.demands);
        timing.lookup = self.look_up(inputs, rows, now_us, demands, scratch)?;
        if demands.program {
            let fields = self.service.plan.request_fields.iter().enumerate();
            for (index, field) in fields.filter(|(index, _)| demands.request[*index]) {
                if let Some(column) = self.request_column(inputs, index) {
                    note_nulls(field, column, &mut scratch.row_errors);
                }
            }
            self.compute(inputs, rows, demands, scratch)?;
        }
        let width = self.features.len();
        let model = deployment.row_model()?;
        scratch.missing_float64(rows * width);
        let Scratch { matrix: Matrix { float64: matrix, .. }, row_errors, stored, expr, .. } = scratch;
        for (index, (&feature, field)) in self.features.iter().zip(deployment.features()).enumerate() {
            let mut target = Target { model, field, index, width, matrix, row_errors };
            if let Some(column) = inputs.overrides(index) {
                target.take_column(column);
                continue;
            }
            match self.service.plan.features[feature].from {
                FeatureFrom::Stored(place) => target.take_column(&stored.columns[place]),
                FeatureFrom::OnDemand(output) => target.take_output(&expr.outputs()[output]),
            }
        }
        Ok(())
    }

    /// As [`Binding::fill`], where the lookup's rows are the model's: false, and nothing done, where they are not.
    ///
    /// # Errors
    /// As [`Binding::fill`].
    pub(crate) fn fill_by_lookup(
        &self,
        inputs: &Inputs<'_>,
        rows: usize,
        now_us: TimestampUs,
        scratch: &mut Scratch,
        timing: &mut Timing,
    ) -> Result<bool> {
        let Some(direct) = self.direct.filter(|_| inputs.overrides.is_empty()) else { return Ok(false) };
        let started = Instant::now();
        let keys = self.keys(inputs, rows, &self.demands)?;
        let online = &self.service.online;
        let encoded = online.encode_keys(&keys, &mut scratch.keys)?;
        let (matrix, values) = (&mut scratch.matrix, rows * self.features.len());
        matrix.is_float32 = direct == Direct::Float32;
        // Every value is written: a lookup says NaN where it finds nothing.
        match direct {
            Direct::Float32 => {
                matrix.float32.resize(values, f32::NAN);
                online.read_f32(&encoded, now_us, &mut matrix.float32, None)?;
            }
            Direct::Float64 => {
                matrix.float64.resize(values, f64::NAN);
                online.read_f64(&encoded, now_us, &mut matrix.float64, None)?;
            }
        }
        timing.lookup = started.elapsed();
        Ok(true)
    }

    /// As [`Binding::fill`], without given features, and the values stay columns in the scratch: `stored` and `expr`.
    ///
    /// # Errors
    /// As [`Binding::fill`].
    pub(crate) fn fill_columns(
        &self,
        inputs: &Inputs<'_>,
        rows: usize,
        now_us: TimestampUs,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.look_up(inputs, rows, now_us, &self.demands, scratch)?;
        if self.demands.program {
            self.compute(inputs, rows, &self.demands, scratch)?;
        }
        Ok(())
    }

    fn look_up(
        &self,
        inputs: &Inputs<'_>,
        rows: usize,
        now_us: TimestampUs,
        demands: &Demands,
        scratch: &mut Scratch,
    ) -> Result<Duration> {
        let started = Instant::now();
        if demands.stored.contains(&true) {
            let keys = self.keys(inputs, rows, demands)?;
            let online = &self.service.online;
            let encoded = online.encode_keys(&keys, &mut scratch.keys)?;
            online.read_columns_into(&encoded, rows, now_us, &mut scratch.stored)?;
        } else {
            scratch.stored.columns.clear(); // what an earlier request has found is not this one's
        }
        Ok(started.elapsed())
    }

    /// The column that the request gives for a feature of the service.
    pub(crate) fn given<'a>(&self, inputs: &'a Inputs<'_>, feature: usize) -> Option<&'a Column> {
        inputs.overrides.iter().find(|(index, _)| self.features[*index] == feature).map(|(_, column)| &**column)
    }

    /// The join keys by the service's names; a key that nothing needs may be absent, and is null.
    fn keys<'a>(&self, inputs: &'a Inputs<'_>, rows: usize, demands: &Demands) -> Result<Cow<'a, Batch>> {
        let plan = &self.service.plan;
        let mut columns = Vec::with_capacity(plan.join_keys.len());
        for ((field, place), needed) in plan.join_keys.iter().zip(&self.keys).zip(&demands.keys) {
            let column = place.and_then(|place| inputs.keys[place].as_deref());
            if column.is_none() && *needed {
                return Err(missing_column(&plan.name, Section::Entities, field));
            }
            columns.push((field, column));
        }
        if let Some(entities) = inputs.entities_as_given(rows).filter(|_| columns.iter().all(|(_, key)| key.is_some()))
        {
            return Ok(Cow::Borrowed(entities));
        }
        let columns = columns
            .into_iter()
            .map(|(field, column)| (field.name.clone(), column.map_or_else(|| nulls(field, rows), Column::clone)));
        Ok(Cow::Owned(Batch { rows, columns: columns.collect() }))
    }

    /// Runs the expressions over the request's columns and the stored ones.
    fn compute(&self, inputs: &Inputs<'_>, rows: usize, demands: &Demands, scratch: &mut Scratch) -> Result<()> {
        let plan = &self.service.plan;
        let Some(program) = &plan.program else { return Ok(()) };
        let Scratch { stored, expr, .. } = scratch;
        let mut absent: Vec<Option<Column>> = vec![None; plan.request_fields.len()];
        for (index, field) in plan.request_fields.iter().enumerate() {
            if self.request_column(inputs, index).is_none() {
                if demands.request[index] {
                    return Err(missing_column(&plan.name, Section::Request, field));
                }
                absent[index] = Some(nulls(field, rows));
            }
        }
        let mut absent_stored: Vec<(usize, Column)> = Vec::new();
        for input in &plan.program_inputs {
            if let InputFrom::Stored(index) = *input
                && self.stored_column(inputs, stored, index).is_none()
            {
                let feature = &plan.stored[index];
                absent_stored.push((index, nulls(&Field::new(&*feature.field, feature.dtype), rows)));
            }
        }
        let views: Vec<ColumnView<'_>> = plan
            .program_inputs
            .iter()
            .map(|input| {
                let column = match *input {
                    InputFrom::Request(index) => self.request_column(inputs, index).or(absent[index].as_ref()),
                    InputFrom::Stored(index) => {
                        let absent = absent_stored.iter().find(|(other, _)| *other == index).map(|(_, column)| column);
                        absent.or_else(|| self.stored_column(inputs, stored, index))
                    }
                };
                column.map(ColumnView::from).ok_or_else(|| Error::internal("an input of an expression has no column"))
            })
            .collect::<Result<_>>()?;
        program.run(&views, rows, expr)
    }

    /// The column that the request gives for a join key of the service.
    pub(crate) fn key_column<'a>(&self, inputs: &'a Inputs<'_>, index: usize) -> Option<&'a Column> {
        inputs.keys[self.keys[index]?].as_deref()
    }

    pub(crate) fn request_column<'a>(&self, inputs: &'a Inputs<'_>, index: usize) -> Option<&'a Column> {
        inputs.request[self.request[index]?].as_deref()
    }

    /// A stored input of the expressions. A feature that the request gives counts here too.
    fn stored_column<'a>(
        &self,
        inputs: &'a Inputs<'_>,
        stored: &'a headrace_features::StoredColumns,
        index: usize,
    ) -> Option<&'a Column> {
        if !inputs.overrides.is_empty() {
            let of_stored = |feature: &usize| self.service.plan.features[*feature].from == FeatureFrom::Stored(index);
            let given = self.features.iter().copied().find(of_stored).and_then(|feature| self.given(inputs, feature));
            if given.is_some() {
                return given;
            }
        }
        stored.columns.get(index)
    }
}

impl Direct {
    /// `places` are those of the model's features among the service's.
    fn of(plan: &ServicePlan, places: &[usize]) -> Option<Self> {
        if places.len() != plan.stored.len() {
            return None;
        }
        let mut direct = Direct::Float32;
        for (place, &feature) in places.iter().enumerate() {
            let feature = &plan.features[feature];
            if feature.from != FeatureFrom::Stored(place) || feature.dtype.is_list() {
                return None;
            }
            match feature.dtype.element() {
                ScalarType::Bool
                | ScalarType::Int8
                | ScalarType::Int16
                | ScalarType::UInt8
                | ScalarType::UInt16
                | ScalarType::Float32 => {}
                ScalarType::Timestamp | ScalarType::String | ScalarType::Bytes => return None,
                _ => direct = Direct::Float64,
            }
        }
        Some(direct)
    }
}

pub(crate) fn nulls(field: &Field, rows: usize) -> Column {
    let mut column = Column::new(ColumnData::with_capacity(field.dtype, rows));
    for _ in 0..rows {
        // A null fits every type.
        drop(column.data.push(headrace_types::Value::Null));
    }
    column.validity = (rows > 0).then(|| vec![false; rows]);
    column
}

/// Rows without a value for a field that on-demand features are computed from cannot be answered.
fn note_nulls(field: &Field, column: &Column, row_errors: &mut Vec<RowError>) {
    let nulls = column.validity.iter().flatten().enumerate().filter(|(_, valid)| !**valid);
    let mut found = RowErrors::default();
    for (row, _) in nulls {
        found.note(row, || {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("row {row}: request field '{}' is null", field.name),
                "give a value, or give the features that are computed from it",
            )
        });
    }
    row_errors.extend(found.into_vec());
}
