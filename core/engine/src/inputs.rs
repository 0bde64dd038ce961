//! A request's columns matched with the signature: known names, equal lengths, the right types.

use std::borrow::Cow;

use headrace_types::{Batch, Column, Error, ErrorCode, Field, Result};

use crate::column_builder::coerce_column;
use crate::deployment::{Deployment, Section};
use crate::features::{FeatureRequest, FeatureService};
use crate::request::{PredictRequest, RowError};

/// The columns that a request gives, at the places of the signature's fields.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    entities: &'a Batch,
    pub(crate) keys: Vec<Option<Cow<'a, Column>>>,
    pub(crate) request: Vec<Option<Cow<'a, Column>>>,
    /// Given features, by their place in the signature.
    pub(crate) overrides: Vec<(usize, Cow<'a, Column>)>,
}

impl<'a> Inputs<'a> {
    /// A predict request's columns by the model's signature.
    ///
    /// # Errors
    /// `unknown_entity`, `unknown_feature`, `invalid_argument` for a column given twice, `length_mismatch`.
    pub(crate) fn of_predict(
        deployment: &Deployment,
        request: &'a PredictRequest,
        rows: usize,
        row_errors: &mut Vec<RowError>,
    ) -> Result<Self> {
        let mut matched = |section: Section, batch: &'a Batch| {
            let unknown = |name: &str| deployment.field(section, name).err();
            matched(section, deployment.fields(section), batch, rows, unknown, row_errors)
        };
        let keys = matched(Section::Entities, &request.entities)?;
        let fields = matched(Section::Request, &request.request)?;
        let mut overrides = Vec::new();
        if !request.features.columns.is_empty() {
            let given = matched(Section::Features, &request.features)?;
            overrides = given.into_iter().enumerate().filter_map(|(index, column)| Some((index, column?))).collect();
        }
        Ok(Self { entities: &request.entities, keys, request: fields, overrides })
    }

    /// A feature request's columns by the service's fields.
    ///
    /// # Errors
    /// As [`Inputs::of_predict`].
    pub(crate) fn of_lookup(
        service: &FeatureService,
        request: &'a FeatureRequest,
        rows: usize,
        row_errors: &mut Vec<RowError>,
    ) -> Result<Self> {
        let unknown = |name: &str| service.field(name).err();
        let (key_fields, fields) = (service.join_keys(), service.request_fields());
        let keys = matched(Section::Entities, key_fields, &request.entities, rows, unknown, row_errors)?;
        let fields = matched(Section::Request, fields, &request.request, rows, unknown, row_errors)?;
        Ok(Self { entities: &request.entities, keys, request: fields, overrides: Vec::new() })
    }

    pub(crate) fn overrides(&self, feature: usize) -> Option<&Column> {
        // All that come before it have places before it, so it stands at its own place where every feature is given.
        let found = self.overrides.get(feature).filter(|(index, _)| *index == feature);
        let found = found.or_else(|| self.overrides.iter().find(|(index, _)| *index == feature));
        found.map(|(_, column)| &**column)
    }

    /// The entities as they came, when all have their types already.
    pub(crate) fn entities_as_given(&self, rows: usize) -> Option<&'a Batch> {
        let is_as_given = |key: &Option<Cow<'_, Column>>| matches!(key, Some(Cow::Borrowed(_)));
        (self.entities.rows == rows && self.keys.iter().all(is_as_given)).then_some(self.entities)
    }
}

fn matched<'a>(
    section: Section,
    fields: &[Field],
    batch: &'a Batch,
    rows: usize,
    unknown: impl Fn(&str) -> Option<Error>,
    row_errors: &mut Vec<RowError>,
) -> Result<Vec<Option<Cow<'a, Column>>>> {
    let mut places: Vec<Option<Cow<'a, Column>>> = vec![None; fields.len()];
    for (index, (name, column)) in batch.columns.iter().enumerate() {
        let is_named = |field: &Field| field.name == *name;
        // Columns mostly come in the order of the signature.
        let expected = fields.get(index).is_some_and(is_named).then_some(index);
        let Some(place) = expected.or_else(|| fields.iter().position(is_named)) else {
            return Err(unknown(name).unwrap_or_else(|| misplaced(section, name)));
        };
        if places[place].is_some() {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("column '{name}' is given twice in '{}'", section.name()),
                "give each column once",
            ));
        }
        if column.len() != rows {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("column '{name}' has {} rows, the request's longest column has {rows}", column.len()),
                "give every column the same number of rows",
            ));
        }
        places[place] = Some(typed(column, &fields[place], row_errors));
    }
    Ok(places)
}

fn misplaced(section: Section, name: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("column '{name}' does not belong into '{}'", section.name()),
        "join keys belong into 'entities', request fields into 'request'",
    )
}

fn typed<'a>(column: &'a Column, field: &Field, row_errors: &mut Vec<RowError>) -> Cow<'a, Column> {
    if column.dtype() == field.dtype {
        return Cow::Borrowed(column);
    }
    let (column, errors) = coerce_column(&field.name, column, field.dtype);
    row_errors.extend(errors);
    Cow::Owned(column)
}

/// The error for a column that the signature needs and the request lacks.
pub(crate) fn missing_column(deployment: &str, section: Section, field: &Field) -> Error {
    Error::new(
        ErrorCode::MissingColumn,
        format!("'{}' lacks the column '{}' ({}), which '{deployment}' needs", section.name(), field.name, field.dtype),
        match section {
            Section::Features => "give every feature of a model that has no feature service".to_owned(),
            _ => format!("add \"{}\" to \"{}\"", field.name, section.name()),
        },
    )
}
