//! The columns of some events in the forms that partials take, with the filters applied.

use std::borrow::Cow;

use headrace_expr::{ColumnSlice, ColumnView, Scratch};
use headrace_types::{ColumnData, Error, Result};

use super::definition::{Series, WindowPlan};
use super::partial::{Item, Scalar, State};

/// Events as a view's aggregates see them.
pub(crate) struct Events<'a> {
    columns: Vec<Option<EventColumn<'a>>>,
    /// For each filter, the rows that pass.
    filters: Vec<Vec<bool>>,
}

struct EventColumn<'a> {
    values: Values<'a>,
    validity: Option<&'a [bool]>,
}

enum Values<'a> {
    Int(Cow<'a, [i64]>),
    UInt(Cow<'a, [u64]>),
    Float(Cow<'a, [f64]>),
    Strings(&'a [String]),
    Texts(&'a [&'a str]),
    Bytes(&'a [Vec<u8>]),
    Slices(&'a [&'a [u8]]),
    /// Only whether there is a value can be asked.
    Present,
}

impl<'a> Events<'a> {
    /// `columns` are those of the plan, each of `rows` rows.
    pub(crate) fn new(plan: &WindowPlan, columns: &[ColumnView<'a>], rows: usize) -> Result<Self> {
        let is_used = |index| plan.series.iter().any(|series| series.reads(index));
        let filters = match &plan.filters {
            None => Vec::new(),
            Some(program) => {
                let mut scratch = Scratch::new();
                program.run(columns, rows, &mut scratch)?;
                scratch
                    .take_outputs()
                    .into_iter()
                    .map(|output| passes(&output.data, &output.validity))
                    .collect::<Result<_>>()?
            }
        };
        let columns = columns
            .iter()
            .enumerate()
            .map(|(index, column)| is_used(index).then(|| EventColumn::new(*column)))
            .collect();
        Ok(Self { columns, filters })
    }

    /// The value of an event for a series; none when it or its group is null, or it does not pass the filter.
    pub(super) fn item(&self, series: &Series, row: usize) -> Option<Item<'_>> {
        if series.filter.is_some_and(|filter| !self.filters[filter][row]) {
            return None;
        }
        let value = match series.column {
            None => Scalar::Int(1),
            Some(column) => self.columns[column].as_ref()?.value(row)?,
        };
        let group = match series.by {
            None => None,
            Some(by) => Some(self.columns[by.column].as_ref()?.value(row)?),
        };
        Some(Item { value, group })
    }

    /// Whether the series only counts, and every event counts.
    pub(super) fn counts_all(&self, series: &Series) -> bool {
        let is_present = |column: usize| self.columns[column].as_ref().is_some_and(|column| column.validity.is_none());
        series.state == State::Count
            && series.filter.is_none()
            && series.by.is_none()
            && series.column.is_none_or(is_present)
    }

    /// The column, and its values, of a series that looks at every event of a column of floats without nulls.
    pub(super) fn all_floats(&self, series: &Series) -> Option<(usize, &[f64])> {
        let index = series.column?;
        let column = self.columns[index].as_ref()?;
        match &column.values {
            Values::Float(values) if series.filter.is_none() && series.by.is_none() && column.validity.is_none() => {
                Some((index, values))
            }
            _ => None,
        }
    }
}

fn passes(data: &ColumnData, validity: &[bool]) -> Result<Vec<bool>> {
    let ColumnData::Bool(values) = data else { return Err(Error::internal("a filter gave no bools")) };
    Ok(values.iter().zip(validity).map(|(value, valid)| *value && *valid).collect())
}

impl<'a> EventColumn<'a> {
    fn new(view: ColumnView<'a>) -> Self {
        macro_rules! wide {
            ($variant:ident, $values:expr) => {
                Values::$variant($values.iter().map(|&value| value.into()).collect::<Vec<_>>().into())
            };
        }
        let values = match view.data {
            ColumnSlice::Bool(values) => wide!(Int, values),
            ColumnSlice::Int8(values) => wide!(Int, values),
            ColumnSlice::Int16(values) => wide!(Int, values),
            ColumnSlice::Int32(values) => wide!(Int, values),
            ColumnSlice::Int64(values) | ColumnSlice::Timestamp(values) => Values::Int(values.into()),
            ColumnSlice::UInt8(values) => wide!(UInt, values),
            ColumnSlice::UInt16(values) => wide!(UInt, values),
            ColumnSlice::UInt32(values) => wide!(UInt, values),
            ColumnSlice::UInt64(values) => Values::UInt(values.into()),
            ColumnSlice::Float32(values) => wide!(Float, values),
            ColumnSlice::Float64(values) => Values::Float(values.into()),
            ColumnSlice::String(values) => Values::Strings(values),
            ColumnSlice::Str(values) => Values::Texts(values),
            ColumnSlice::Bytes(values) => Values::Bytes(values),
            ColumnSlice::ByteSlice(values) => Values::Slices(values),
            ColumnSlice::List(..) => Values::Present,
        };
        Self { values, validity: view.validity.filter(|validity| validity.contains(&false)) }
    }

    /// None for null.
    fn value(&self, row: usize) -> Option<Scalar<'_>> {
        if self.validity.is_some_and(|validity| !validity[row]) {
            return None;
        }
        Some(match &self.values {
            Values::Int(values) => Scalar::Int(values[row]),
            Values::UInt(values) => Scalar::UInt(values[row]),
            Values::Float(values) => Scalar::Float(values[row]),
            Values::Strings(values) => Scalar::Bytes(values[row].as_bytes()),
            Values::Texts(values) => Scalar::Bytes(values[row].as_bytes()),
            Values::Bytes(values) => Scalar::Bytes(&values[row]),
            Values::Slices(values) => Scalar::Bytes(values[row]),
            Values::Present => Scalar::Int(1),
        })
    }
}
