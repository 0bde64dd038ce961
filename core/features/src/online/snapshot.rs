//! The folder of a store's snapshot.
//!
//! ```text
//! manifest.json   {"format": 1, "tables": [{"name": join keys, "file": file name, "windows": {view: file name}}, ...]}
//! N-I.table       table I of snapshot number N (native/README.md draws the file)
//! N-I-V.windows   the aggregates of the table's view V: "HRWINDOW", u32 format, u32 CRC-32 of the rest, the keys' tiles (postcard)
//! ```
//! A new snapshot writes files of new names, then replaces the manifest, then removes the files that it no longer names. So a
//! crash at any moment leaves the old snapshot or the new one, and a process that has mapped old files keeps them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headrace_cpu::{OpenMode, RowTable, TableOptions, TableSnapshot};
use headrace_types::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use super::local::{LocalStore, LocalTable, StoreOptions, rebuild, table_options, table_schema};
use super::windows::windows_of;
use crate::plan::{Plan, TablePlan};
use crate::windows::{FrozenWindows, WindowPlan, WindowTable};

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
const TABLE_SUFFIX: &str = ".table";
const WINDOWS_SUFFIX: &str = ".windows";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    tables: Vec<TableEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TableEntry {
    name: String,
    file: String,
    /// View -> the file of its aggregates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    windows: BTreeMap<String, String>,
}

impl Manifest {
    fn files(&self) -> impl Iterator<Item = &String> {
        self.tables.iter().flat_map(|table| std::iter::once(&table.file).chain(table.windows.values()))
    }
}

/// A snapshot that is being written: of all tables as they were when it was begun.
#[derive(Debug)]
pub struct StoreSnapshot {
    folder: PathBuf,
    manifest: Manifest,
    tables: Vec<TableSnapshot<Arc<RowTable>>>,
    windows: Vec<(PathBuf, FrozenWindows)>,
}

impl StoreSnapshot {
    /// Writes the files, complete or not at all. Rows may be applied meanwhile, and are not in them.
    ///
    /// # Errors
    /// `io` with the path.
    pub fn finish(self) -> Result<()> {
        let place = |error: std::io::Error| Error::from(error).within(self.folder.display());
        self.tables.into_iter().try_for_each(TableSnapshot::finish)?;
        self.windows.into_iter().try_for_each(|(path, windows)| windows.write(&path))?;
        write_manifest(&self.folder, &self.manifest).map_err(place)?;
        for file in table_files(&self.folder)? {
            if !self.manifest.files().any(|known| *known == file) {
                fs::remove_file(self.folder.join(file)).map_err(place)?;
            }
        }
        Ok(())
    }
}

impl LocalStore {
    /// Fixes what will be in a snapshot; [`StoreSnapshot::finish`] writes it. Of rows nothing is copied yet: their bytes are
    /// when they first change, or in their turn. Aggregates are copied at once.
    ///
    /// To be called between two batches; those that are applied afterwards are not in the snapshot.
    ///
    /// # Errors
    /// `io` with the path; `unavailable` while another snapshot of this store is being written.
    pub fn begin_snapshot(&self, folder: &Path) -> Result<StoreSnapshot> {
        let place = |error: std::io::Error| Error::from(error).within(folder.display());
        fs::create_dir_all(folder).map_err(place)?;
        let number = 1 + table_files(folder)?.iter().filter_map(|file| number_of(file)).max().unwrap_or(0);
        let manifest = Manifest { format: FORMAT, tables: Vec::new() };
        let mut snapshot =
            StoreSnapshot { folder: folder.to_owned(), manifest, tables: Vec::new(), windows: Vec::new() };
        for (i, table) in self.tables.iter().enumerate() {
            let file = format!("{number}-{i}{TABLE_SUFFIX}");
            snapshot.tables.push(TableSnapshot::begin(table.table.clone(), &folder.join(&file))?);
            let mut windows = BTreeMap::new();
            for of_view in &table.windows {
                let file = format!("{number}-{i}-{}{WINDOWS_SUFFIX}", of_view.view_index);
                snapshot.windows.push((folder.join(&file), of_view.table.freeze()));
                windows.insert(of_view.name.clone(), file);
            }
            snapshot.manifest.tables.push(TableEntry { name: table.name.clone(), file, windows });
        }
        Ok(snapshot)
    }

    /// Writes all tables to a folder, complete or not at all. Lookups go on meanwhile, and so do writers of rows.
    ///
    /// # Errors
    /// As [`Self::begin_snapshot`] and [`StoreSnapshot::finish`].
    pub fn write_snapshot(&self, folder: &Path) -> Result<()> {
        self.begin_snapshot(folder)?.finish()
    }

    /// Opens a snapshot for a plan. A table whose keys, views or fields are no longer those of the plan is made anew in
    /// memory: fields are matched by name and type, new ones are null, dropped ones are left out.
    ///
    /// # Errors
    /// `not_found` where the folder has no snapshot; `corrupt_store` for one that is cut or changed; `newer_format`;
    /// `store_full`; `io`.
    pub fn open_snapshot(plan: &Plan, folder: &Path, mode: OpenMode, options: StoreOptions) -> Result<Self> {
        let manifest = read_manifest(folder)?;
        let options = table_options(options);
        let open = |table: &TablePlan| {
            let rows = open_table(plan, table, &manifest, folder, mode, &options)?;
            let known = |view: &str, windows: &Arc<WindowPlan>| {
                let entry = manifest.tables.iter().find(|entry| entry.name == table.name);
                let Some(file) = entry.and_then(|entry| entry.windows.get(view)) else { return Ok(None) };
                Ok(WindowTable::open_snapshot(windows.clone(), &folder.join(file), options.budget.clone())?
                    .map(Arc::new))
            };
            let windows = windows_of(plan, table, known, &options.budget)?;
            Ok(LocalTable { name: table.name.clone(), table: Arc::new(rows), windows })
        };
        let tables = plan.tables().iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self { tables, options, is_read_only: mode == OpenMode::ReadOnlyShared })
    }
}

fn open_table(
    plan: &Plan,
    table: &TablePlan,
    manifest: &Manifest,
    folder: &Path,
    mode: OpenMode,
    options: &TableOptions,
) -> Result<RowTable> {
    let schema = table_schema(plan, table)?;
    let Some(entry) = manifest.tables.iter().find(|entry| entry.name == table.name) else {
        return RowTable::create(schema, options);
    };
    let path = folder.join(&entry.file);
    let stored = RowTable::snapshot_schema(&path)?;
    if stored == schema {
        return RowTable::open_snapshot(&path, mode, options);
    }
    if stored.keys != schema.keys {
        return RowTable::create(schema, options);
    }
    let mapped = RowTable::open_snapshot(&path, OpenMode::ReadOnlyShared, options)?;
    rebuild(&mapped, schema, options)
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let temporary = folder.join(format!("{MANIFEST}.{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(manifest)?)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(MANIFEST))?;
    File::open(folder)?.sync_all()
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorCode::NotFound,
            format!("{} has no snapshot of an online store", folder.display()),
            "materialize first",
        ),
        _ => Error::from(error).within(path.display()),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
        Error::new(
            ErrorCode::CorruptStore,
            format!("{} cannot be read: {error}", path.display()),
            "delete the folder: the store is rebuilt from its log, or materialize again",
        )
    })?;
    if manifest.format != FORMAT {
        return Err(Error::new(
            ErrorCode::NewerFormat,
            format!("{} has format {}, this headrace reads {FORMAT}", path.display(), manifest.format),
            "open it with the headrace that wrote it, or materialize again",
        ));
    }
    // A name that leads out of the folder is nothing that we wrote.
    if let Some(file) = manifest.files().find(|file| number_of(file).is_none()) {
        return Err(Error::new(
            ErrorCode::CorruptStore,
            format!("{} names the file '{}'", path.display(), file),
            "delete the folder: the store is rebuilt from its log, or materialize again",
        ));
    }
    Ok(manifest)
}

fn table_files(folder: &Path) -> Result<Vec<String>> {
    let place = |error: std::io::Error| Error::from(error).within(folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(place)? {
        let name = entry.map_err(place)?.file_name();
        names.extend(name.to_str().filter(|name| number_of(name).is_some()).map(str::to_owned));
    }
    Ok(names)
}

/// The number of the snapshot that a file belongs to; none for a name that is not a table's.
fn number_of(file: &str) -> Option<u64> {
    let stem = file.strip_suffix(TABLE_SUFFIX).or_else(|| file.strip_suffix(WINDOWS_SUFFIX))?;
    let (number, table) = stem.split_once('-')?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_digits(number) && table.split('-').all(is_digits)).then(|| number.parse().ok()).flatten()
}
