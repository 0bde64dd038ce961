//! A join from beginning to end: entity rows, then source rows as they come, then the answer.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Int8Array, RecordBatch};
use headrace_types::{Error, ErrorCode, Field, Result};

use super::complete::{Stored, check_names, complete, request_columns};
use super::entities::EntityRows;
use super::groups::Groups;
use super::held::Held;
use super::moments::Moments;
use super::newest::{Asked, Newest};
use super::parallel::{Cancel, parallel_map};
use super::source::Block;
use super::view::{self, Found};
use super::windows::{self, WindowView};
use super::{JoinCounts, JoinOptions, JoinOutput, SourceRows};
use crate::plan::{Plan, ServicePlan, ViewPlan};

impl JoinOptions {
    pub(super) fn threads_or_cores(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// Joins the features of a service to entity rows.
///
/// `entities` has the service's join keys, the event time, the request's fields, and any other columns. `sources` has the rows of each
/// stored view that the service reads: its keys, its fields, and the columns [`EVENT_TS_COLUMN`](super::EVENT_TS_COLUMN),
/// [`CREATED_TS_COLUMN`](super::CREATED_TS_COLUMN) and, optionally, [`DELETED_COLUMN`](super::DELETED_COLUMN); the order of its rows is their
/// sequence.
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
    let mut join = PointInTimeJoin::new(plan, service, entities.clone(), options.clone(), None)?;
    for name in join.views() {
        let source = sources.get(&name).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("there are no source rows for view '{name}'"),
                "give the rows of every view that the service reads, even if there are none",
            )
        })?;
        join.add(&name, &source.batches)?;
    }
    join.finish()
}

/// A join under way. Source rows are given view by view or mixed, each view's in their sequence; see [`point_in_time_join`].
#[derive(Debug)]
pub struct PointInTimeJoin<P> {
    plan: P,
    service: String,
    entities: RecordBatch,
    rows: EntityRows,
    options: JoinOptions,
    key_sets: Vec<KeySet>,
    views: Vec<JoinedView>,
}

/// The entity rows by the join keys that some views share.
struct KeySet {
    positions: Vec<usize>,
    groups: Groups,
    /// None where cutoffs go back while time goes on, and where all views aggregate.
    moments: Option<Moments>,
}

struct JoinedView {
    name: String,
    /// The features asked for: their numbers among the service's stored ones, and among the view's.
    stored: Vec<usize>,
    numbers: Vec<usize>,
    fields: Vec<Field>,
    key_set: usize,
    rows: Rows,
}

/// What is kept of a source.
enum Rows {
    Newest(Newest),
    All(SourceRows),
}

impl std::fmt::Debug for JoinedView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinedView").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("positions", &self.positions).finish_non_exhaustive()
    }
}

impl<P: Borrow<Plan> + Sync> PointInTimeJoin<P> {
    /// Begins a join. With `views` it is one partition of a join: only those views are joined, the entity rows need only their keys and
    /// times, and [`finish_stored`](Self::finish_stored) ends it.
    ///
    /// # Errors
    /// As [`point_in_time_join`].
    pub fn new(
        plan: P,
        service: &str,
        entities: RecordBatch,
        options: JoinOptions,
        views: Option<&[String]>,
    ) -> Result<Self> {
        let found = plan.borrow().service(service)?;
        if views.is_none() {
            check_names(found, &entities, options.statuses)?;
        }
        let chosen = views_of(found, views);
        let sets: BTreeSet<Vec<usize>> = chosen.iter().map(|(_, positions)| positions.to_vec()).collect();
        let used: BTreeSet<usize> = match views {
            None => (0..found.join_keys.len()).collect(),
            Some(_) => sets.iter().flatten().copied().collect(),
        };
        let rows = EntityRows::new(found, used, &entities, &options).map_err(|error| error.within("entity rows"))?;
        if views.is_none() {
            request_columns(found, &entities)?;
        }
        let cancel = Cancel::new(options.cancel.as_deref());
        let sets: Vec<Vec<usize>> = sets.into_iter().collect();
        let key_sets = parallel_map(options.threads_or_cores(), &sets, |positions| {
            cancel.check()?;
            let groups = Groups::of_entities(&rows.keys_at(positions), rows.count)?;
            let has_newest = has_newest(plan.borrow(), &chosen, positions)?;
            let moments = has_newest.then(|| Moments::new(&rows, &groups, &options.as_known_at)).flatten();
            Ok(KeySet { positions: positions.clone(), groups, moments })
        })?;
        let views =
            chosen.iter().map(|(name, positions)| joined_view(plan.borrow(), found, name, positions, &key_sets));
        let views = views.collect::<Result<_>>()?;
        Ok(Self { service: service.to_owned(), entities, rows, options, key_sets, views, plan })
    }

    /// The views whose source rows are wanted.
    pub fn views(&self) -> Vec<String> {
        self.views.iter().map(|view| view.name.clone()).collect()
    }

    /// Whether all source rows of a view are kept until the end, rather than the newest.
    pub fn keeps_all(&self, view: &str) -> bool {
        self.views.iter().any(|joined| joined.name == view && matches!(joined.rows, Rows::All(_)))
    }

    /// Sets the flag that makes what follows stop with the error `cancelled`.
    pub fn cancel_by(&mut self, flag: Arc<AtomicBool>) {
        self.options.cancel = Some(flag);
    }

    /// Takes the next source rows of a view.
    ///
    /// # Errors
    /// `invalid_argument` for a view that is not wanted, `missing_column`, `type_mismatch`, `too_large`, `cancelled`.
    pub fn add(&mut self, view: &str, batches: &[RecordBatch]) -> Result<()> {
        let Some(joined) = self.views.iter_mut().find(|joined| joined.name == view) else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the join reads no view '{view}'"),
                "give the source rows of the views that the service reads",
            ));
        };
        let cancel = Cancel::new(self.options.cancel.as_deref());
        cancel.check()?;
        let newest = match &mut joined.rows {
            Rows::All(source) => {
                source.batches.extend_from_slice(batches);
                return Ok(());
            }
            Rows::Newest(newest) => newest,
        };
        let view = self.plan.borrow().view(view)?;
        let within = |error: Error| error.within(format!("view '{}'", joined.name));
        let blocks = batches.iter().map(|batch| Block::new(view, &joined.fields, batch)).collect::<Result<_>>();
        let asked = asked(view, &self.key_sets[joined.key_set], &self.rows)?;
        newest.add(asked, blocks.map_err(within)?, self.options.threads_or_cores(), &cancel).map_err(within)?;
        if self.options.held_bytes_max > 0 {
            newest.compact(self.options.held_bytes_max).map_err(within)?;
        }
        Ok(())
    }

    /// The training set.
    ///
    /// # Errors
    /// `too_large`, `cancelled`, and what a source that was kept whole turns out to lack.
    pub fn finish(self) -> Result<JoinOutput> {
        let (plan, service, entities, options, rows) =
            (&self.plan, &self.service, &self.entities, &self.options, self.rows.count);
        let service = plan.borrow().service(service)?;
        let (columns, statuses, counts) = join_views(plan.borrow(), &self.rows, &self.key_sets, self.views, options)?;
        let stored = Stored { columns: columns.into_values().collect(), statuses };
        let batch = complete(service, entities, options, &stored)?;
        Ok(JoinOutput { batch, counts: JoinCounts { rows: rows as u64, views: counts } })
    }

    /// What was found, in the form that [`complete_join`](super::complete_join) takes.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_stored(self) -> Result<JoinOutput> {
        let rows = self.rows.count as u64;
        let (columns, statuses, counts) =
            join_views(self.plan.borrow(), &self.rows, &self.key_sets, self.views, &self.options)?;
        let batch = Stored::into_batch(columns, statuses)?;
        Ok(JoinOutput { batch, counts: JoinCounts { rows, views: counts } })
    }
}

type Joined = (BTreeMap<usize, ArrayRef>, BTreeMap<String, Int8Array>, BTreeMap<String, view::ViewCounts>);

/// Ends the joins of all views, side by side: features by number, statuses and counts by view.
fn join_views(
    plan: &Plan,
    rows: &EntityRows,
    key_sets: &[KeySet],
    views: Vec<JoinedView>,
    options: &JoinOptions,
) -> Result<Joined> {
    let cancel = Cancel::new(options.cancel.as_deref());
    let threads = options.threads_or_cores();
    let views: Vec<_> = views.into_iter().map(|view| std::sync::Mutex::new(Some(view))).collect();
    let found = parallel_map(threads, &views, |view| {
        cancel.check()?;
        let taken = view.lock().ok().and_then(|mut view| view.take());
        let joined = taken.ok_or_else(|| Error::internal("a view is missing"))?;
        let name = joined.name.clone();
        let stored = joined.stored.clone();
        let key_set = &key_sets[joined.key_set];
        let found = join_view(plan.view(&name)?, joined, key_set, rows, threads, &cancel)
            .map_err(|error| error.within(format!("view '{name}'")))?;
        Ok((name, stored, found))
    })?;
    let (mut columns, mut statuses, mut counts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, stored, found) in found {
        columns.extend(stored.into_iter().zip(found.columns));
        let numbers: Vec<i8> = found.statuses.iter().map(|status| *status as i8).collect();
        statuses.insert(name.clone(), numbers.into());
        counts.insert(name, found.counts);
    }
    Ok((columns, statuses, counts))
}

fn join_view(
    view: &ViewPlan,
    joined: JoinedView,
    key_set: &KeySet,
    rows: &EntityRows,
    threads: usize,
    cancel: &Cancel<'_>,
) -> Result<Found> {
    match (joined.rows, &view.windows) {
        (Rows::Newest(newest), _) => newest.finish(asked(view, key_set, rows)?, rows.count),
        (Rows::All(source), None) => view::join(view, &joined.fields, &source, rows, &key_set.groups, cancel),
        (Rows::All(source), Some(windows)) => {
            let asked = WindowView { view, windows, fields: &joined.numbers };
            windows::join(&asked, &source, rows, &key_set.groups, threads, cancel)
        }
    }
}

fn asked<'a>(view: &'a ViewPlan, key_set: &'a KeySet, rows: &EntityRows) -> Result<Asked<'a>> {
    let moments = key_set.moments.as_ref().ok_or_else(|| Error::internal("moments are missing"))?;
    Ok(Asked { view, groups: &key_set.groups, moments, has_cutoff: rows.cutoff.is_some() })
}

/// The stored views of a service that are chosen and, for each, the places of its join keys.
fn views_of<'a>(service: &'a ServicePlan, chosen: Option<&[String]>) -> Vec<(&'a str, &'a [usize])> {
    let mut views: Vec<(&str, &[usize])> = Vec::new();
    for feature in &service.stored {
        let is_chosen = chosen.is_none_or(|chosen| chosen.contains(&feature.view));
        if is_chosen && views.iter().all(|(name, _)| *name != feature.view) {
            views.push((&feature.view, &feature.key_positions));
        }
    }
    views
}

/// Whether some of the views with these join keys are asked for their newest rows.
fn has_newest(plan: &Plan, chosen: &[(&str, &[usize])], positions: &[usize]) -> Result<bool> {
    for (name, _) in chosen.iter().filter(|(_, of_view)| *of_view == positions) {
        if plan.view(name)?.windows.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn joined_view(
    plan: &Plan,
    service: &ServicePlan,
    name: &str,
    positions: &[usize],
    key_sets: &[KeySet],
) -> Result<JoinedView> {
    let features = || service.stored.iter().enumerate().filter(|(_, feature)| feature.view == name);
    let fields: Vec<Field> = features().map(|(_, feature)| Field::new(feature.field.clone(), feature.dtype)).collect();
    let key_set = key_sets.iter().position(|set| set.positions == positions);
    let key_set = key_set.ok_or_else(|| Error::internal("a key set is missing"))?;
    let rows = match &key_sets[key_set].moments {
        Some(moments) if plan.view(name)?.windows.is_none() => {
            Rows::Newest(Newest::new(moments, Held::new(fields.clone())))
        }
        _ => Rows::All(SourceRows::default()),
    };
    Ok(JoinedView {
        name: name.to_owned(),
        stored: features().map(|(number, _)| number).collect(),
        numbers: features().map(|(_, feature)| feature.field_index).collect(),
        fields,
        key_set,
        rows,
    })
}
