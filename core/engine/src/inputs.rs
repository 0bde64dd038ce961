//! A request's columns matched with the signature: known names, equal lengths, the right types.

use std::borrow::Cow;

use headrace_types::{Batch, Column, Error, ErrorCode, Field, Result};

use crate::column_builder::coerce_column;
use crate::deployment::{Deployment, Section};
use crate::request::{PredictRequest, RowError};

/// The columns that a request gives, at the places of the signature's fields.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) keys: Vec<Option<Cow<'a, Column>>>,
    pub(crate) request: Vec<Option<Cow<'a, Column>>>,
    /// Given features, by their place in the signature.
    pub(crate) overrides: Vec<(usize, Cow<'a, Column>)>,
}

impl<'a> Inputs<'a> {
    /// # Errors
    /// `unknown_entity`, `unknown_feature`, `invalid_argument` for a column given twice, `length_mismatch`.
    pub(crate) fn resolve(
        deployment: &Deployment,
        request: &'a PredictRequest,
        rows: usize,
        row_errors: &mut Vec<RowError>,
    ) -> Result<Self> {
        let keys = matched(deployment, Section::Entities, &request.entities, rows, row_errors)?;
        let fields = matched(deployment, Section::Request, &request.request, rows, row_errors)?;
        let mut overrides = Vec::new();
        if !request.features.columns.is_empty() {
            let given = matched(deployment, Section::Features, &request.features, rows, row_errors)?;
            overrides = given.into_iter().enumerate().filter_map(|(index, column)| Some((index, column?))).collect();
        }
        Ok(Self { keys, request: fields, overrides })
    }

    pub(crate) fn overrides(&self, feature: usize) -> Option<&Column> {
        self.overrides.iter().find(|(index, _)| *index == feature).map(|(_, column)| &**column)
    }
}

fn matched<'a>(
    deployment: &Deployment,
    section: Section,
    batch: &'a Batch,
    rows: usize,
    row_errors: &mut Vec<RowError>,
) -> Result<Vec<Option<Cow<'a, Column>>>> {
    let fields = deployment.fields(section);
    let mut places: Vec<Option<Cow<'a, Column>>> = vec![None; fields.len()];
    for (name, column) in &batch.columns {
        let Some(place) = fields.iter().position(|field| field.name == *name) else {
            return Err(deployment
                .field(section, name)
                .err()
                .unwrap_or_else(|| Error::internal("a field came and went")));
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
