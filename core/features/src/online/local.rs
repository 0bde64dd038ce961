//! The store in this process: a row table for each table of the plan.

use std::sync::Arc;

use headrace_cpu::{
    GatherFeature, GatherPlan, ImageMapper, KeysRef, MemoryBudget, RowTable, RowValues, TableOptions, TableSchema,
    TableStats, TableWriter, UpsertOutcome, ViewSchema,
};
use headrace_types::{Column, Error, ErrorCode, Result, TimestampUs};

use super::batch::EncodedBatch;
use super::plan::OnlinePlan;
use super::store::{ApplyCounts, OnlineStore, TableReader};
use super::windows::{LocalWindows, WindowReader, apply_events, windows_of};
use crate::plan::{Plan, TablePlan};
use crate::windows::{WindowPlan, WindowStats, WindowTable};

/// Rows between the request of a row's index line and its write.
const INDEX_AHEAD: usize = 16;
/// Rows between the request of a row's lines and its write.
const ROW_AHEAD: usize = 8;

/// How a local store may use memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bound on the used bytes of all tables together. Each table reserves so much address space, and takes memory as it grows.
    pub bytes_max: u64,
    /// Ask the kernel for 2 MiB pages.
    pub huge_pages: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { bytes_max: 64 << 30, huge_pages: true }
    }
}

/// The online store in this process's memory. Lookups never wait for writers.
#[derive(Debug)]
pub struct LocalStore {
    pub(super) tables: Vec<LocalTable>,
    pub(super) options: TableOptions,
    pub(super) is_read_only: bool,
}

#[derive(Debug, Clone)]
pub(super) struct LocalTable {
    pub(super) name: String,
    pub(super) table: Arc<RowTable>,
    pub(super) windows: Vec<LocalWindows>,
}

impl LocalStore {
    /// Empty tables for a plan.
    ///
    /// # Errors
    /// `invalid_definition` for a table whose rows would be too wide; `store_full` when the address space is not to be had.
    pub fn create(plan: &Plan, options: StoreOptions) -> Result<Self> {
        let options = table_options(options);
        let create = |table: &TablePlan| {
            let rows = RowTable::create(table_schema(plan, table)?, &options)?;
            let windows = windows_of(plan, table, |_, _| Ok(None), &options.budget)?;
            Ok(LocalTable { name: table.name.clone(), table: Arc::new(rows), windows })
        };
        let tables = plan.tables().iter().map(create).collect::<Result<Vec<_>>>()?;
        Ok(Self { tables, options, is_read_only: false })
    }

    /// The same rows for another plan. Tables that stay as they are are shared with this store; in the others fields are
    /// matched by name and type, new ones are null, dropped ones are left out.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn with_plan(&self, plan: &Plan) -> Result<Self> {
        let tables = plan
            .tables()
            .iter()
            .map(|table| {
                let schema = table_schema(plan, table)?;
                let old = self.tables.iter().find(|old| old.name == table.name);
                let rows = match old {
                    Some(old) if *old.table.schema() == schema => old.table.clone(),
                    Some(old) if old.table.schema().keys == schema.keys => {
                        Arc::new(rebuild(&old.table, schema, &self.options)?)
                    }
                    _ => Arc::new(RowTable::create(schema, &self.options)?),
                };
                let known = |name: &str, windows: &Arc<WindowPlan>| {
                    let old = old.and_then(|old| old.windows.iter().find(|old| old.name == name));
                    Ok(old.filter(|old| old.table.is_of(windows)).map(|old| old.table.clone()))
                };
                let windows = windows_of(plan, table, known, &self.options.budget)?;
                Ok(LocalTable { name: table.name.clone(), table: rows, windows })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { tables, options: self.options.clone(), is_read_only: self.is_read_only })
    }

    /// Stores the rows of an encoded batch. Doing it again changes nothing: a row replaces only a smaller version.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format` for the bytes; `read_only`; `store_full`, after which the rows before are stored
    /// and the store can be read.
    pub fn apply(&self, batch: &[u8]) -> Result<ApplyCounts> {
        if self.is_read_only {
            return Err(Error::new(
                ErrorCode::ReadOnly,
                "the online store was opened read-only",
                "write through the process that owns the store",
            ));
        }
        let batch = EncodedBatch::decode(batch)?;
        let place = |error: Error| error.within(format!("view '{}'", batch.view()));
        if let Some(windows) = self.find_windows(&batch) {
            return apply_events(windows, &batch).map_err(place);
        }
        match self.find_view(&batch) {
            Some((table, view)) => apply_batch(table, view, &batch).map_err(place),
            None => Ok(ApplyCounts { skipped: batch.rows() as u64, ..ApplyCounts::default() }),
        }
    }

    /// The compiled lookup of a service's stored features.
    ///
    /// # Errors
    /// `unknown_feature_service`; `invalid_definition` for a service that reads a view which is not online.
    pub fn online_plan(&self, plan: &Plan, service: &str) -> Result<OnlinePlan> {
        OnlinePlan::compile(self, plan, service)
    }

    /// Keys of all tables together, and of all views of aggregates.
    pub fn len(&self) -> usize {
        let windows = self.tables.iter().flat_map(|table| &table.windows).map(|windows| windows.table.len());
        self.tables.iter().map(|table| table.table.len()).chain(windows).sum()
    }

    /// The sizes of each view of aggregates, by name.
    pub fn windows_stats(&self) -> Vec<(String, WindowStats)> {
        let windows = self.tables.iter().flat_map(|table| &table.windows);
        windows.map(|windows| (windows.name.clone(), windows.table.stats())).collect()
    }

    /// Whether no table has a key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sizes of each table, by name.
    pub fn stats(&self) -> Vec<(String, TableStats)> {
        self.tables.iter().map(|table| (table.name.clone(), table.table.stats())).collect()
    }

    /// Whether rows can only be read.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn find_windows(&self, batch: &EncodedBatch<'_>) -> Option<&WindowTable> {
        let table = self.tables.iter().find(|table| table.table.schema().keys == batch.keys())?;
        let windows = table.windows.iter().find(|windows| windows.name == batch.view())?;
        Some(&windows.table)
    }

    fn find_view(&self, batch: &EncodedBatch<'_>) -> Option<(&RowTable, usize)> {
        self.tables.iter().find_map(|table| {
            let schema = table.table.schema();
            let view = schema.views.iter().position(|view| view.name == batch.view() && !view.fields.is_empty())?;
            (schema.keys == batch.keys()).then_some((table.table.as_ref(), view))
        })
    }
}

impl OnlineStore for LocalStore {
    fn apply(&self, batch: &[u8]) -> Result<ApplyCounts> {
        LocalStore::apply(self, batch)
    }

    fn table_reader(
        &self,
        table: &TablePlan,
        features: &[GatherFeature],
        ttl_us: &[Option<i64>],
        width: usize,
    ) -> Result<Box<dyn TableReader>> {
        let Some(local) = self.tables.iter().find(|local| local.name == table.name) else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the online store has no table keyed by '{}'", table.name),
                "open the store with the plan that the service belongs to",
            ));
        };
        let schema = local.table.schema();
        let same_views = schema.views.iter().map(|view| &view.name).eq(&table.views);
        if schema.keys != table.join_keys || !same_views {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the online table keyed by '{}' was made for another plan", table.name),
                "bring the store to this plan first",
            ));
        }
        let of_windows = |feature: &GatherFeature| local.windows.iter().any(|w| w.view_index == feature.view);
        let plain: Vec<GatherFeature> = features.iter().filter(|feature| !of_windows(feature)).copied().collect();
        let rows = match plain.is_empty() {
            true => None,
            false => Some((local.table.clone(), local.table.gather_plan(&plain, ttl_us, width)?)),
        };
        let windows = local.windows.iter().filter_map(|windows| {
            let features: Vec<_> = features
                .iter()
                .filter(|feature| feature.view == windows.view_index)
                .map(|feature| (feature.field, windows.table.plan().dtype(feature.field), feature.position))
                .collect();
            (!features.is_empty()).then(|| WindowReader::new(windows.table.clone(), features, width))
        });
        let windows = windows.collect();
        Ok(Box::new(LocalReader { rows, windows }))
    }
}

#[derive(Debug)]
struct LocalReader {
    /// The plain features; none when there are only aggregates.
    rows: Option<(Arc<RowTable>, GatherPlan)>,
    windows: Vec<WindowReader>,
}

impl TableReader for LocalReader {
    #[allow(clippy::cast_possible_truncation)] // a float32 tensor
    fn read_f32(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        out: &mut [f32],
        mut status: Option<&mut [u8]>,
    ) -> Result<()> {
        if let Some((table, plan)) = &self.rows {
            table.gather_f32(plan, keys, now_us, out, status.as_deref_mut())?;
        }
        for windows in &self.windows {
            windows.read_numbers(keys, now_us, status.as_deref_mut(), |at, value| out[at] = value as f32)?;
        }
        Ok(())
    }

    fn read_f64(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        out: &mut [f64],
        mut status: Option<&mut [u8]>,
    ) -> Result<()> {
        if let Some((table, plan)) = &self.rows {
            table.gather_f64(plan, keys, now_us, out, status.as_deref_mut())?;
        }
        for windows in &self.windows {
            windows.read_numbers(keys, now_us, status.as_deref_mut(), |at, value| out[at] = value)?;
        }
        Ok(())
    }

    fn read_columns(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        columns: &mut [Column],
        status: &mut [u8],
    ) -> Result<()> {
        if let Some((table, plan)) = &self.rows {
            table.gather_columns(plan, keys, now_us, columns, status)?;
        }
        self.windows.iter().try_for_each(|windows| windows.read_columns(keys, now_us, columns, status))
    }
}

pub(super) fn table_options(options: StoreOptions) -> TableOptions {
    TableOptions { budget: MemoryBudget::new(options.bytes_max), huge_pages: options.huge_pages }
}

/// The rows of a table of the plan. A view that is not online, or that aggregates, keeps its place and has no fields.
pub(super) fn table_schema(plan: &Plan, table: &TablePlan) -> Result<TableSchema> {
    let views = table
        .views
        .iter()
        .map(|name| {
            let view = plan.view(name)?;
            let has_rows = view.online && !view.is_windowed();
            let fields = if has_rows { view.fields.clone() } else { Vec::new() };
            Ok(ViewSchema { name: name.clone(), fields })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(TableSchema { keys: table.join_keys.clone(), views })
}

/// Copies the rows of a table into a new one of another schema with the same keys.
pub(super) fn rebuild(old: &RowTable, schema: TableSchema, options: &TableOptions) -> Result<RowTable> {
    let mappers: Vec<Option<(usize, ImageMapper)>> = old
        .schema()
        .views
        .iter()
        .map(|view| {
            let at = schema.views.iter().position(|new| new.name == view.name && !new.fields.is_empty())?;
            Some((at, ImageMapper::new(&view.fields, &schema.views[at].fields)))
        })
        .collect();
    let new = RowTable::create(schema, options)?;
    let mut writer = new.writer()?;
    let mut image = Vec::new();
    old.scan(|key, view, version, values| {
        let Some((view, mapper)) = &mappers[view] else { return Ok(()) };
        let values = match values {
            RowValues::Live(old_image) => {
                image.clear();
                mapper.map(old_image, &mut image)?;
                RowValues::Live(&image)
            }
            RowValues::Tombstone => RowValues::Tombstone,
        };
        writer.upsert(*view, key, version, values).map(|_| ())
    })?;
    drop(writer);
    Ok(new)
}

fn apply_batch(table: &RowTable, view: usize, batch: &EncodedBatch<'_>) -> Result<ApplyCounts> {
    let mapper = ImageMapper::new(batch.fields(), &table.schema().views[view].fields);
    let is_identity = mapper.is_identity();
    let mut writer = table.writer()?;
    let mut counts = ApplyCounts::default();
    let mut mapped = Vec::new();
    for row in 0..batch.rows() {
        request_rows_ahead(&writer, view, batch, row)?;
        let values = if batch.is_tombstone(row) {
            RowValues::Tombstone
        } else if is_identity {
            let image = batch.image(row)?;
            mapper.check(image)?;
            RowValues::Live(image)
        } else {
            mapped.clear();
            mapper.map(batch.image(row)?, &mut mapped)?;
            RowValues::Live(&mapped)
        };
        match writer.upsert(view, batch.key(row)?, batch.version(row), values)? {
            UpsertOutcome::Inserted => counts.inserted += 1,
            UpsertOutcome::Replaced => counts.replaced += 1,
            UpsertOutcome::Stale => counts.stale += 1,
            UpsertOutcome::Deleted => counts.deleted += 1,
        }
    }
    Ok(counts)
}

/// Has the memory of later rows on its way while this one is written.
fn request_rows_ahead(writer: &TableWriter<'_>, view: usize, batch: &EncodedBatch<'_>, row: usize) -> Result<()> {
    if row + INDEX_AHEAD < batch.rows() {
        writer.prefetch_index(batch.key(row + INDEX_AHEAD)?);
    }
    if row + ROW_AHEAD < batch.rows() {
        writer.prefetch_row(view, batch.key(row + ROW_AHEAD)?);
    }
    Ok(())
}
