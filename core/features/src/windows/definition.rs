//! Aggregates as they are defined, and what follows from a view's: the columns, the partials and the tiles that it needs.

use std::collections::HashMap;

use headrace_expr::{Program, ProgramBuilder, did_you_mean};
use headrace_types::{DType, Error, ErrorCode, Field, Result, ScalarType, TimestampUs};
use serde::Deserialize;
use serde_json::Value;

use super::columns::Column;
use super::partial::{Output, Partial, State};

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// The longest window: ten years.
pub const WINDOW_US_MAX: i64 = 3_660 * DAY_US;
/// Hops in a window: so many tiles are merged at a lookup.
pub const HOPS_PER_WINDOW_MAX: i64 = 4_096;
/// The largest `k` of `last_k`.
pub const LAST_K_MAX: usize = 1_000;
/// The largest number of groups that are kept of a key.
pub const GROUPS_MAX: usize = 10_000;

/// A feature over a window, as the plan writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregationJson {
    name: String,
    #[serde(default)]
    column: Option<String>,
    function: Function,
    window_us: i64,
    #[serde(default)]
    kind: WindowKind,
    #[serde(default)]
    hop_us: Option<i64>,
    #[serde(default, rename = "where")]
    filter: Option<Value>,
    #[serde(default)]
    k: Option<usize>,
    #[serde(default)]
    q: Option<f64>,
    #[serde(default)]
    by: Option<By>,
}

/// The secondary key, and how many groups are kept of each key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct By {
    column: String,
    limit: usize,
}

/// What is computed over the events of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Function {
    Count,
    Sum,
    Mean,
    Var,
    Std,
    Min,
    Max,
    First,
    Last,
    LastK,
    CountDistinct,
    Quantile,
    /// The secondary keys themselves.
    Groups,
}

/// How a window lies at a time `t`; floors are from the epoch, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// `[floor(t - window, hop), t)`: the head is exact, the tail is rounded out.
    #[default]
    Sawtooth,
    /// The last complete `[n * window, (n + 1) * window)`.
    Tumbling,
    /// `[floor(t - window, hop), floor(t, hop))`.
    Hopping,
}

/// A window's length and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Extent {
    kind: WindowKind,
    window_us: i64,
    /// What its bounds are multiples of, but for the head of a sawtooth; the length of its tiles.
    pub(super) hop_us: i64,
}

impl Series {
    pub(super) fn reads(&self, column: usize) -> bool {
        self.column == Some(column) || self.by.is_some_and(|by| by.column == column)
    }

    /// Whether a partial takes more bytes the more it has seen.
    fn grows(&self) -> bool {
        self.by.is_some() || matches!(self.state, State::Distinct | State::Quantiles)
    }
}

impl Extent {
    /// The start, which counts, and the end, which does not.
    pub(super) fn interval(&self, at_us: TimestampUs) -> (TimestampUs, TimestampUs) {
        let start = floor_to(at_us.saturating_sub(self.window_us), self.hop_us);
        match self.kind {
            WindowKind::Sawtooth => (start, at_us),
            WindowKind::Hopping | WindowKind::Tumbling => (start, floor_to(at_us, self.hop_us)),
        }
    }

    /// How far before a time its windows reach.
    fn reach_us(&self) -> i64 {
        self.window_us + self.hop_us
    }
}

/// Saturates at the first time there is.
pub(super) fn floor_to(at_us: TimestampUs, step_us: i64) -> TimestampUs {
    at_us.checked_sub(at_us.rem_euclid(step_us)).unwrap_or(i64::MIN)
}

/// A partial that features share: the state of one column under one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Series {
    /// The column among the view's; none counts events.
    pub(super) column: Option<usize>,
    pub(super) filter: Option<usize>,
    /// One partial for each value of a second column.
    pub(super) by: Option<Grouping>,
    pub(super) state: State,
}

/// A secondary key among the view's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grouping {
    pub(super) column: usize,
    /// The groups that are kept: the smallest.
    pub(super) limit: usize,
}

/// A feature: what is made of a series over an extent.
#[derive(Debug, Clone)]
pub(super) struct WindowFeature {
    pub(super) series: usize,
    pub(super) extent: usize,
    /// The tiles that it is read from.
    pub(super) tiling: usize,
    /// The place of its series in a tile.
    pub(super) place: usize,
    pub(super) output: Output,
    /// The type of what is kept of the column that is looked at.
    pub(super) scalar: ScalarType,
    pub(super) dtype: DType,
}

/// Tiles of one length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tiling {
    pub(super) hop_us: i64,
    /// The series that each tile holds.
    pub(super) series: Vec<usize>,
    /// About how many bytes the partials of the newest tile take; strings that they keep are taken to be short.
    pub(super) partials_bytes: usize,
    /// The same of an older tile, with its start.
    pub(super) older_bytes: usize,
    /// Whether some of its partials take more bytes the more they have seen.
    pub(super) grows: bool,
    /// Tiles that end so long before now are over.
    pub(super) reach_us: i64,
}

/// The aggregates of a view, compiled.
#[derive(Debug)]
pub(crate) struct WindowPlan {
    /// The columns of an event.
    pub(crate) columns: Vec<Field>,
    /// The definition as it is written: what was stored for another one cannot be used.
    pub(super) definition: String,
    pub(super) filters: Option<Program>,
    pub(super) series: Vec<Series>,
    pub(super) extents: Vec<Extent>,
    pub(super) features: Vec<WindowFeature>,
    pub(super) tilings: Vec<Tiling>,
}

impl WindowPlan {
    /// Compiles the aggregations over the columns of an event: the plan, and the features that they give.
    ///
    /// # Errors
    /// `invalid_definition`, `missing_column`, `type_mismatch`, `invalid_expression`; the message names the aggregate.
    pub(crate) fn compile(columns: Vec<Field>, aggregations: &[Value]) -> Result<(Self, Vec<Field>)> {
        let definition =
            serde_json::to_string(&(&columns, aggregations)).map_err(|e| Error::internal(e.to_string()))?;
        let mut plan = Self {
            columns,
            definition,
            filters: None,
            series: Vec::new(),
            extents: Vec::new(),
            features: Vec::new(),
            tilings: Vec::new(),
        };
        let mut filters = Filters::new(&plan.columns);
        let mut fields = Vec::with_capacity(aggregations.len());
        for (index, value) in aggregations.iter().enumerate() {
            let place =
                value.get("name").and_then(Value::as_str).map_or(format!("number {index}"), |n| format!("'{n}'"));
            let added = crate::plan::definition(value.clone()).and_then(|json| plan.add(json, &mut filters));
            fields.push(added.map_err(|error| error.within(format!("aggregation {place}")))?);
        }
        plan.filters = filters.finish();
        for tiling in &mut plan.tilings {
            tiling.partials_bytes = tiling.series.iter().map(|&at| Partial::bytes(plan.series[at].state)).sum();
            tiling.older_bytes = size_of::<TimestampUs>()
                + tiling.series.iter().map(|&at| Column::item_bytes(&plan.series[at])).sum::<usize>();
            tiling.grows = tiling.series.iter().any(|&at| plan.series[at].grows());
        }
        Ok((plan, fields))
    }

    /// Whether a value of a column can make a difference.
    pub(crate) fn looks_at(&self, column: usize) -> bool {
        self.filters.is_some() || self.series.iter().any(|series| series.reads(column))
    }

    /// The type of a feature.
    pub(crate) fn dtype(&self, feature: usize) -> DType {
        self.features[feature].dtype
    }

    fn add(&mut self, json: AggregationJson, filters: &mut Filters) -> Result<Field> {
        let extent = extent(&json)?;
        let column = json.column.as_deref().map(|name| self.column(name)).transpose()?;
        let (state, output, dtype) = function(&json, column.map(|column| self.columns[column].dtype))?;
        let filter = json.filter.as_ref().map(|filter| filters.add(filter)).transpose()?;
        let by = json.by.as_ref().map(|by| self.grouping(by)).transpose()?;
        let series = Series { column, filter, by, state };
        // Every function of the same values has the same groups.
        let known = self.series.iter().position(|known| Series { state, ..*known } == series);
        let series = match known.filter(|_| output == Output::Groups) {
            Some(known) => known,
            None => position_or_push(&mut self.series, series),
        };
        let tiling = self.tiling(&extent);
        let place = position_or_push(&mut self.tilings[tiling].series, series);
        let shown = if output == Output::Groups { by.map(|by| by.column) } else { column };
        let scalar = shown.map_or(ScalarType::Int64, |column| self.columns[column].dtype.element());
        let dtype = grouped(&json, dtype, by.is_some(), scalar)?;
        let extent = position_or_push(&mut self.extents, extent);
        self.features.push(WindowFeature { series, extent, tiling, place, output, scalar, dtype });
        Ok(Field::new(json.name, dtype))
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|column| column.name == name).ok_or_else(|| {
            Error::new(
                ErrorCode::MissingColumn,
                format!("the view has no column '{name}'"),
                did_you_mean(name, "columns", self.columns.iter().map(|column| column.name.as_str())),
            )
        })
    }

    fn grouping(&self, by: &By) -> Result<Grouping> {
        let column = self.column(&by.column)?;
        let dtype = self.columns[column].dtype;
        if matches!(dtype, DType::List(_) | DType::FLOAT32 | DType::FLOAT64) {
            return Err(Error::new(
                ErrorCode::TypeMismatch,
                format!("its secondary key '{}' is {dtype}", by.column),
                "group by a column of strings, bytes, integers, bools or timestamps",
            ));
        }
        if by.limit == 0 || by.limit > GROUPS_MAX {
            return Err(invalid(format!("its limit is {}", by.limit), "give a limit from 1 to 10,000"));
        }
        Ok(Grouping { column, limit: by.limit })
    }

    fn tiling(&mut self, extent: &Extent) -> usize {
        let known = self.tilings.iter().position(|tiling| tiling.hop_us == extent.hop_us);
        let index = known.unwrap_or_else(|| {
            self.tilings.push(Tiling { hop_us: extent.hop_us, ..Tiling::default() });
            self.tilings.len() - 1
        });
        let tiling = &mut self.tilings[index];
        tiling.reach_us = tiling.reach_us.max(extent.reach_us());
        index
    }
}

/// The distinct filters, as one program with an output for each.
struct Filters {
    expressions: Vec<Value>,
    builder: ProgramBuilder,
    columns: HashMap<String, usize>,
}

impl Filters {
    fn new(columns: &[Field]) -> Self {
        Self {
            expressions: Vec::new(),
            builder: ProgramBuilder::new(columns.to_vec()),
            columns: columns.iter().enumerate().map(|(index, column)| (column.name.clone(), index)).collect(),
        }
    }

    fn add(&mut self, filter: &Value) -> Result<usize> {
        if let Some(known) = self.expressions.iter().position(|known| known == filter) {
            return Ok(known);
        }
        let columns: HashMap<&str, usize> = self.columns.iter().map(|(name, index)| (name.as_str(), *index)).collect();
        let output = Field::new(format!("filter_{}", self.expressions.len()), DType::BOOL);
        self.builder.output(output, filter, &columns).map_err(|error| error.within("its filter"))?;
        if self.builder.has_calls() {
            let hint = "write it as an expression: events are also taken in where no function is loaded";
            return Err(invalid("its filter calls a Python function".into(), hint));
        }
        self.expressions.push(filter.clone());
        Ok(self.expressions.len() - 1)
    }

    fn finish(self) -> Option<Program> {
        (!self.expressions.is_empty()).then(|| self.builder.finish())
    }
}

fn invalid(message: String, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidDefinition, message, hint)
}

/// The hop where none is given: finer for shorter windows, so that the rounded tail stays a small part of the window.
fn default_hop(window_us: i64) -> i64 {
    let hop_us = match window_us {
        _ if window_us < 12 * HOUR_US => 5 * MINUTE_US,
        _ if window_us < 12 * DAY_US => HOUR_US,
        _ => DAY_US,
    };
    hop_us.min(window_us)
}

fn extent(json: &AggregationJson) -> Result<Extent> {
    let window_us = json.window_us;
    if window_us <= 0 || window_us > WINDOW_US_MAX {
        return Err(invalid(
            format!("its window is {window_us} us"),
            "give a window between a microsecond and ten years",
        ));
    }
    if json.kind == WindowKind::Tumbling {
        return match json.hop_us {
            None => Ok(Extent { kind: json.kind, window_us, hop_us: window_us }),
            Some(_) => {
                Err(invalid("a tumbling window has no hop".into(), "leave the hop out, or make it a hopping window"))
            }
        };
    }
    let hop_us = json.hop_us.unwrap_or_else(|| default_hop(window_us));
    if hop_us <= 0 || hop_us > window_us {
        return Err(invalid(
            format!("its hop is {hop_us} us, its window {window_us} us"),
            "give a hop up to the window",
        ));
    }
    if window_us / hop_us > HOPS_PER_WINDOW_MAX {
        return Err(invalid(
            format!("its window has {} hops, the limit is {HOPS_PER_WINDOW_MAX}", window_us / hop_us),
            "give a longer hop",
        ));
    }
    Ok(Extent { kind: json.kind, window_us, hop_us })
}

/// What is kept, what is made of it, and the type that comes out.
fn function(json: &AggregationJson, column: Option<DType>) -> Result<(State, Output, DType)> {
    if json.k.is_some() != (json.function == Function::LastK) {
        return Err(invalid("'k' goes with last_k, and last_k with 'k'".into(), "give last_k a k of 1 or more"));
    }
    if json.q.is_some() != (json.function == Function::Quantile) {
        return Err(invalid("'q' goes with quantile, and quantile with 'q'".into(), "give quantile a q from 0 to 1"));
    }
    let is_counting = matches!(json.function, Function::Count | Function::Groups);
    let scalar = match column {
        _ if is_counting => ScalarType::Int64,
        Some(DType::Scalar(scalar)) => scalar,
        Some(dtype) => return Err(mismatch(dtype, "a list can only be counted")),
        None => return Err(invalid("it names no column".into(), "name the column; only count may go without")),
    };
    let dtype = DType::Scalar(scalar);
    let is_float = matches!(scalar, ScalarType::Float32 | ScalarType::Float64);
    let sum = if is_float { State::FloatSum } else { State::IntSum };
    let is_number = scalar.is_numeric();
    if !is_number
        && matches!(json.function, Function::Sum | Function::Mean | Function::Var | Function::Std | Function::Quantile)
    {
        return Err(mismatch(dtype, "aggregate a column of numbers or bools"));
    }
    Ok(match json.function {
        Function::Count => (State::Count, Output::Count, DType::INT64),
        Function::Groups => (State::Count, Output::Groups, DType::INT64),
        Function::Sum => (sum, Output::Sum, if is_float { DType::FLOAT64 } else { DType::INT64 }),
        Function::Mean => (sum, Output::Mean, DType::FLOAT64),
        Function::Var => (State::Moments, Output::Variance, DType::FLOAT64),
        Function::Std => (State::Moments, Output::Deviation, DType::FLOAT64),
        Function::Min => (State::Least, Output::Kept, dtype),
        Function::Max => (State::Greatest, Output::Kept, dtype),
        Function::First => (State::First, Output::Kept, dtype),
        Function::Last => (State::Last, Output::Kept, dtype),
        Function::LastK => {
            let k = json.k.unwrap_or_default();
            if k == 0 || k > LAST_K_MAX {
                return Err(invalid(format!("its k is {k}"), "give a k from 1 to 1,000"));
            }
            (State::LastK(k), Output::Kept, DType::List(scalar))
        }
        Function::CountDistinct => (State::Distinct, Output::Count, DType::INT64),
        Function::Quantile => {
            let q = json.q.unwrap_or_default();
            if !(0.0..=1.0).contains(&q) {
                return Err(invalid(format!("its q is {q}"), "give a q from 0 to 1"));
            }
            (State::Quantiles, Output::Quantile(q), DType::FLOAT64)
        }
    })
}

/// The type of a feature that may be one value for each group.
fn grouped(json: &AggregationJson, dtype: DType, is_grouped: bool, shown: ScalarType) -> Result<DType> {
    match (dtype, is_grouped) {
        _ if json.function == Function::Groups && !is_grouped => {
            Err(invalid("it lists groups of nothing".into(), "name the secondary key"))
        }
        _ if json.function == Function::Groups => Ok(DType::List(shown)),
        (dtype, false) => Ok(dtype),
        (DType::Scalar(scalar), true) => Ok(DType::List(scalar)),
        (DType::List(_), true) => {
            Err(invalid("last_k of each group would be a list of lists".into(), "take first or last of each group"))
        }
    }
}

fn mismatch(dtype: DType, hint: &str) -> Error {
    Error::new(ErrorCode::TypeMismatch, format!("its column is {dtype}"), hint)
}

fn position_or_push<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}
