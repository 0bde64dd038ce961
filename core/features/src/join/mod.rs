//! The point-in-time join: for each entity row, the features as they were known at its time.
//!
//! For each view on its own: of the source rows with the entity row's key and `event_ts <= t`, the one with the largest
//! (event_ts, created_ts, input order) is taken; then it is judged as a lookup judges it, by tombstone and TTL, both ends inclusive.
//! With a cutoff only rows with `created_ts <= cutoff` take part. The output has exactly the entity rows, in their order.
//!
//! How: keys become dense group numbers (`groups`), the source rows of each group become a sorted timeline (`timeline`), each entity row
//! searches its timeline (`view`), the rows found are gathered column by column, and on-demand features are computed over the result
//! (`computed`). Views run side by side.

mod computed;
mod entities;
mod groups;
mod parallel;
mod source;
mod timeline;
mod view;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int8Array, RecordBatch, StringArray};
use arrow_schema::{Field as ArrowField, Schema};
use headrace_types::{Error, ErrorCode, FeatureStatus, Result};

use crate::plan::{FeatureFrom, Plan, ServicePlan};
use entities::EntityRows;
use groups::Groups;
use parallel::{Cancel, parallel_map};
use view::{ViewJoin, ViewValues};
use windows::WindowView;

pub use computed::column_array;
pub use source::{CREATED_TS_COLUMN, DELETED_COLUMN, EVENT_TS_COLUMN, SourceRows};
pub use view::ViewCounts;

/// What ends the name of a column of statuses: `temp__status`.
pub const STATUS_SUFFIX: &str = "__status";

/// The largest number of rows of an entity frame or a source.
pub const JOIN_ROWS_MAX: usize = u32::MAX as usize - 1;

/// Which source rows count, by the time at which they became known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AsKnownAt {
    /// All of them: a row that became known after the entity row's time counts too.
    #[default]
    Off,
    /// Those known at the entity row's event time.
    EventTime,
    /// Those known at the time in this column of the entity rows.
    Column(String),
}

/// How to join.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// The column of the entity rows with their time.
    pub event_ts_column: String,
    /// The cutoff.
    pub as_known_at: AsKnownAt,
    /// The number of threads; 0 takes one per core.
    pub threads: usize,
    /// Whether to add a column of statuses for each feature.
    pub statuses: bool,
    /// Set it to make the join stop with the error `cancelled`.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// What the join has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinCounts {
    /// Entity rows.
    pub rows: u64,
    /// By view.
    pub views: BTreeMap<String, ViewCounts>,
}

/// A training set.
#[derive(Debug, Clone)]
pub struct JoinOutput {
    /// The entity rows as given, then the service's features in order, then, if asked for, a column of statuses for each.
    pub batch: RecordBatch,
    /// What was found and what was left out.
    pub counts: JoinCounts,
}

/// Joins the features of a service to entity rows.
///
/// `entities` has the service's join keys, the event time, the request's fields, and any other columns. `sources` has the rows of each
/// stored view that the service reads: its keys, its fields, and the columns [`EVENT_TS_COLUMN`], [`CREATED_TS_COLUMN`] and, optionally,
/// [`DELETED_COLUMN`]; the order of its rows is their sequence.
///
/// # Errors
/// `unknown_feature_service`, `missing_column`, `type_mismatch`, `name_clash`, `invalid_argument` for a view without a source,
/// `too_large`, `cancelled`. The message names the view and the column.
pub fn point_in_time_join(
    plan: &Plan,
    service: &str,
    entities: &RecordBatch,
    options: &JoinOptions,
    sources: &BTreeMap<String, SourceRows>,
) -> Result<JoinOutput> {
    let service = plan.service(service)?;
    let cancel = Cancel::new(options.cancel.as_deref());
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    check_names(service, entities, options.statuses)?;
    let rows = EntityRows::new(service, entities, options).map_err(|error| error.within("entity rows"))?;

    let views = views_of(service);
    let joined = join_views(plan, service, &views, &rows, sources, threads, &cancel)?;
    let names: Vec<&str> = views.iter().map(|(name, _)| *name).collect();
    let stored = parallel_map(threads, &service.stored, |feature| {
        cancel.check()?;
        let view = names.iter().position(|name| *name == feature.view);
        let (view, source) =
            view.zip(sources.get(&feature.view)).ok_or_else(|| Error::internal("a view is missing"))?;
        let gathered = match &joined[view].values {
            ViewValues::Picked(picked) => source
                .column(&feature.field, feature.dtype)
                .and_then(|column| view::gather(&column, picked, &feature.field)),
            ViewValues::Aggregated(fields, columns) => fields
                .iter()
                .position(|&field| field == feature.field_index)
                .map(|at| Arc::clone(&columns[at]))
                .ok_or_else(|| Error::internal("an aggregate is missing")),
        };
        gathered.map_err(|error| error.within(format!("view '{}'", feature.view)))
    })?;
    let computed = computed::compute(service, &rows, &stored, threads, &cancel)?;
    let batch =
        assemble(service, entities, &Parts { stored, computed, joined: &joined, names: &names }, options.statuses)?;
    let counts = JoinCounts {
        rows: rows.count as u64,
        views: names.iter().zip(&joined).map(|(name, join)| ((*name).to_owned(), join.counts)).collect(),
    };
    Ok(JoinOutput { batch, counts })
}

/// Finds the source rows of each view, in the order of `views`.
fn join_views(
    plan: &Plan,
    service: &ServicePlan,
    views: &[(&str, &[usize])],
    rows: &EntityRows,
    sources: &BTreeMap<String, SourceRows>,
    threads: usize,
    cancel: &Cancel<'_>,
) -> Result<Vec<ViewJoin>> {
    // Views with the same keys share the numbering of the entity rows' keys.
    let mut key_sets: Vec<&[usize]> = views.iter().map(|(_, positions)| *positions).collect();
    key_sets.sort_unstable();
    key_sets.dedup();
    let keys: Vec<Vec<ArrayRef>> =
        key_sets.iter().map(|set| set.iter().map(|&at| Arc::clone(&rows.keys[at])).collect()).collect();
    let groups = parallel_map(threads, &keys, |keys| {
        cancel.check()?;
        Groups::of_entities(keys, rows.count)
    })?;

    // Long views first, so that the threads end together.
    let mut order: Vec<usize> = (0..views.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sources.get(views[index].0).map_or(0, SourceRows::rows)));
    let mut joined = parallel_map(threads, &order, |&index| {
        let (name, positions) = views[index];
        let source = sources.get(name).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("there are no source rows for view '{name}'"),
                "give the rows of every view that the service reads, even if there are none",
            )
        })?;
        let groups =
            &groups[key_sets.binary_search(&positions).map_err(|_| Error::internal("a key set is missing"))?];
        let view = plan.view(name)?;
        let join = match &view.windows {
            None => view::join(view, source, rows, groups, cancel),
            Some(windows) => {
                let fields = fields_of(service, name);
                let asked = WindowView { view, windows, fields: &fields };
                windows::join(&asked, source, rows, groups, threads, cancel).map(|join| ViewJoin {
                    found: join.found,
                    values: ViewValues::Aggregated(fields, join.columns),
                    counts: join.counts,
                })
            }
        };
        Ok((index, join.map_err(|error| error.within(format!("view '{name}'")))?))
    })?;
    joined.sort_by_key(|(index, _)| *index);
    Ok(joined.into_iter().map(|(_, join)| join).collect())
}

/// The stored views of a service and, for each, the places of its join keys.
fn views_of(service: &ServicePlan) -> Vec<(&str, &[usize])> {
    let mut views: Vec<(&str, &[usize])> = Vec::new();
    for feature in &service.stored {
        if views.iter().all(|(name, _)| *name != feature.view) {
            views.push((&feature.view, &feature.key_positions));
        }
    }
    views
}

/// The features of a view that a service reads.
fn fields_of(service: &ServicePlan, view: &str) -> Vec<usize> {
    service.stored.iter().filter(|feature| feature.view == view).map(|feature| feature.field_index).collect()
}

fn check_names(service: &ServicePlan, entities: &RecordBatch, statuses: bool) -> Result<()> {
    let schema = entities.schema();
    for feature in &service.features {
        let status = statuses.then(|| format!("{}{STATUS_SUFFIX}", feature.name));
        for name in [Some(&feature.name), status.as_ref()].into_iter().flatten() {
            if schema.column_with_name(name).is_some() {
                return Err(Error::new(
                    ErrorCode::NameClash,
                    format!("the entity rows have a column '{name}', which the service '{}' adds", service.name),
                    "drop or rename the column, or set full_feature_names on the service",
                ));
            }
        }
    }
    Ok(())
}

struct Parts<'a> {
    stored: Vec<ArrayRef>,
    computed: Vec<ArrayRef>,
    joined: &'a [ViewJoin],
    names: &'a [&'a str],
}

fn assemble(service: &ServicePlan, entities: &RecordBatch, parts: &Parts<'_>, statuses: bool) -> Result<RecordBatch> {
    let mut fields: Vec<_> = entities.schema().fields().iter().cloned().collect();
    let mut columns = entities.columns().to_vec();
    for feature in &service.features {
        let column = match feature.from {
            FeatureFrom::Stored(index) => &parts.stored[index],
            FeatureFrom::OnDemand(index) => &parts.computed[index],
        };
        fields.push(Arc::new(ArrowField::new(&feature.name, column.data_type().clone(), true)));
        columns.push(Arc::clone(column));
    }
    if statuses {
        for (feature, column) in service.features.iter().zip(&columns[entities.num_columns()..].to_vec()) {
            let view = parts.names.iter().position(|name| *name == feature.view).map(|index| &parts.joined[index]);
            let status = status_column(column, view.map(|view| view.found.as_slice()))?;
            fields.push(Arc::new(ArrowField::new(
                format!("{}{STATUS_SUFFIX}", feature.name),
                status.data_type().clone(),
                false,
            )));
            columns.push(status);
        }
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, entities.schema().metadata().clone()));
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(entities.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal(format!("the training set cannot be put together: {error}")))
}

/// The names of the statuses of one feature, as a dictionary. `found` is how its row was found; a computed feature has none.
fn status_column(column: &ArrayRef, found: Option<&[FeatureStatus]>) -> Result<ArrayRef> {
    let keys: Int8Array = (0..column.len())
        .map(|row| match found.map_or(FeatureStatus::Present, |found| found[row]) {
            FeatureStatus::Present if column.is_null(row) => FeatureStatus::NullValue as i8,
            status => status as i8,
        })
        .collect::<Vec<i8>>()
        .into();
    let names = StringArray::from_iter_values(FeatureStatus::ALL.map(FeatureStatus::name));
    let array = DictionaryArray::<Int8Type>::try_new(keys, Arc::new(names))
        .map_err(|error| Error::internal(format!("statuses: {error}")))?;
    Ok(Arc::new(array))
}
