//! The file of a table: the used part of its region, with a header in front.
//!
//! native/README.md draws it. A file is never trusted: its checksum finds damage, and every offset is checked again where
//! it is used, so that a file made by hand can give wrong values but no fault.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use headrace_types::{Error, ErrorCode, Result, RowVersion};

use super::alloc::{Allocator, CLASSES, MemoryBudget};
use super::cut::Cut;
use super::hash::Checksum;
use super::image::RowValues;
use super::index::{self, IndexRef, LINE_BYTES, LINE_SLOTS};
use super::region::Region;
use super::schema::{FORMAT_VERSION, Layout, TableSchema, VAR_BYTES_MAX, VAR_INLINE_BYTES};
use super::shard::{SHARDS, Shard};
use super::store::{
    DIRECTORY_ENTRY_BYTES, HEADER_BYTES, RowTable, TableOptions, data_offset, region_bytes, schema_json,
};
use super::writer::{is_set, read_key, read_nulls, row_version, word_of};

const MAGIC: [u8; 8] = *b"HRTABLE\0";
const CHECKSUM_AT: usize = 16;
const FREE_AT: usize = 80;
/// The checksum is of chunks of this size.
const CHUNK_BYTES: usize = 1 << 20;

/// How to open a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To go on writing. The file is read into the process's own memory: a private mapping of it would never get huge
    /// pages, and checking it reads every byte anyway.
    Private,
    /// To read, sharing the file's pages with every process that does the same.
    ReadOnlyShared,
}

/// Fields of the header, at fixed places.
struct Header {
    format: u64,
    checksum: u64,
    seed: u64,
    used: usize,
    row_bytes: usize,
    schema_len: usize,
    free: [u64; CLASSES],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [self.format, self.checksum, self.seed, self.used as u64, self.row_bytes as u64];
        let more = [self.schema_len as u64, SHARDS as u64];
        for (i, word) in words.into_iter().chain(more).enumerate() {
            bytes[8 + 8 * i..16 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        for (i, word) in self.free.iter().enumerate() {
            bytes[FREE_AT + 8 * i..FREE_AT + 8 * i + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], file_len: u64) -> Result<Self> {
        let word = |at: usize| word_of(&bytes[at..at + 8]);
        if bytes[..8] != MAGIC {
            return Err(corrupt("it does not begin as a table does"));
        }
        let format = word(8);
        if !(1..=FORMAT_VERSION).contains(&format) {
            return Err(Error::new(
                ErrorCode::NewerFormat,
                format!("the snapshot has format {format}, this headrace reads up to {FORMAT_VERSION}"),
                "open it with the headrace that wrote it, or materialize again",
            ));
        }
        let size = |at: usize| usize::try_from(word(at)).map_err(|_| corrupt("a size in it is absurd"));
        let mut free = [0; CLASSES];
        for (i, head) in free.iter_mut().enumerate() {
            *head = word(FREE_AT + 8 * i);
        }
        let (used, schema_len) = (size(32)?, size(48)?);
        let (checksum, seed, row_bytes) = (word(CHECKSUM_AT), word(24), size(40)?);
        let header = Self { format, checksum, seed, used, row_bytes, schema_len, free };
        if header.used as u64 != file_len || !header.used.is_multiple_of(LINE_BYTES) {
            return Err(corrupt(&format!("it has {file_len} bytes, its header says {}", header.used)));
        }
        if word(56) != SHARDS as u64 || header.schema_len > header.used || data_offset(header.schema_len) > header.used
        {
            return Err(corrupt("its header contradicts itself"));
        }
        Ok(header)
    }
}

/// A snapshot that is being written: of the table as it was when it was begun. Rows may change meanwhile.
#[derive(Debug)]
pub struct TableSnapshot<T: Deref<Target = RowTable>> {
    table: T,
    path: PathBuf,
    temporary: PathBuf,
    front: Vec<u8>,
    cut: Arc<Cut>,
}

impl<T: Deref<Target = RowTable>> TableSnapshot<T> {
    /// Fixes what will be in the file. Takes as long as a batch that is being written, and no time that grows with the table.
    ///
    /// # Errors
    /// `io` with the path; `unavailable` while another snapshot of the table is being written.
    pub fn begin(table: T, path: &Path) -> Result<Self> {
        let temporary = temporary_path(path);
        let schema = schema_json(&table.layout.schema)?;
        let start = data_offset(schema.len());
        let (front, cut) = {
            let allocator = table.lock();
            if table.region.has_cut() {
                return Err(Error::new(
                    ErrorCode::Unavailable,
                    format!("another snapshot of the online table is being written, {} must wait", path.display()),
                    "try again when it is done",
                ));
            }
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&temporary);
            let file = file.map_err(|error| Error::from(error).within(path.display()))?;
            let header = Header {
                format: table.layout.format,
                checksum: 0,
                seed: table.seed,
                used: allocator.used,
                row_bytes: table.layout.row_bytes,
                schema_len: schema.len(),
                free: allocator.free,
            };
            let mut front = header.encode();
            for shard in &table.shards {
                front.extend_from_slice(&shard.index().0.to_le_bytes());
                front.extend_from_slice(&(shard.rows.load(Ordering::Relaxed) as u64).to_le_bytes());
            }
            front.extend_from_slice(schema.as_bytes());
            front.resize(start, 0);
            let cut = Arc::new(Cut::new(file, start, allocator.used));
            table.region.begin_cut(&cut);
            (front, cut)
        };
        Ok(Self { table, path: path.to_owned(), temporary, front, cut })
    }

    /// Writes the file, complete or not at all.
    ///
    /// # Errors
    /// `io` with the path.
    pub fn finish(self) -> Result<()> {
        let place = |error: std::io::Error| Error::from(error).within(self.path.display());
        self.write().map_err(place)?;
        std::fs::rename(&self.temporary, &self.path).map_err(place)?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(place)?;
        }
        Ok(())
    }

    fn write(&self) -> std::io::Result<()> {
        let file = self.cut.file();
        file.write_all_at(&self.front, 0)?;
        self.cut.copy_all(&self.table.region)?;
        self.end_cut();
        let mut checksum = Checksum::new();
        checksum.add(&self.front);
        // Parts came in any order, the sum goes from the first byte to the last.
        let (mut at, mut chunk) = (self.front.len() as u64, vec![0; CHUNK_BYTES]);
        let len = file.metadata()?.len();
        while at < len {
            let bytes = (len - at).min(CHUNK_BYTES as u64) as usize;
            file.read_exact_at(&mut chunk[..bytes], at)?;
            checksum.add(&chunk[..bytes]);
            at += bytes as u64;
        }
        file.write_all_at(&checksum.value().to_le_bytes(), CHECKSUM_AT as u64)?;
        file.sync_all()
    }

    fn end_cut(&self) {
        let _writer = self.table.lock();
        self.table.region.end_cut(&self.cut);
    }
}

impl<T: Deref<Target = RowTable>> Drop for TableSnapshot<T> {
    fn drop(&mut self) {
        self.end_cut();
        // Gone where the snapshot was finished; what is left of one that failed is of no use.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

impl RowTable {
    /// Writes the table to a file, complete or not at all. Lookups and writers go on meanwhile.
    ///
    /// # Errors
    /// As [`TableSnapshot`]'s.
    pub fn write_snapshot(&self, path: &Path) -> Result<()> {
        TableSnapshot::begin(self, path)?.finish()
    }

    /// The schema of a snapshot, without reading its rows.
    ///
    /// # Errors
    /// As [`Self::open_snapshot`].
    pub fn snapshot_schema(path: &Path) -> Result<TableSchema> {
        let read = || {
            let mut file = File::open(path)?;
            let header = read_header(&mut file)?;
            file.seek(SeekFrom::Start((HEADER_BYTES + SHARDS * DIRECTORY_ENTRY_BYTES) as u64))?;
            let mut json = vec![0; header.schema_len];
            file.read_exact(&mut json)?;
            parse_schema(&json)
        };
        read().map_err(|error: Error| error.within(path.display()))
    }

    /// Opens a snapshot. One of an older format is read where it lies; to be written to, it is copied row by row into a table
    /// of the present format.
    ///
    /// # Errors
    /// `corrupt_store` for a file that is cut, changed or no table; `newer_format` for one of a later format; `store_full`
    /// when it is over the memory bound; `io`.
    pub fn open_snapshot(path: &Path, mode: OpenMode, options: &TableOptions) -> Result<Self> {
        Self::open_file(path, mode, options).map_err(|error| error.within(path.display()))
    }

    fn open_file(path: &Path, mode: OpenMode, options: &TableOptions) -> Result<Self> {
        let mut file = File::open(path)?;
        let header = read_header(&mut file)?;
        if header.format < FORMAT_VERSION && mode == OpenMode::Private {
            return Self::open_file(path, OpenMode::ReadOnlyShared, options)?.copy_of_present_format(options);
        }
        let region = match mode {
            OpenMode::ReadOnlyShared => Region::read_only(&file, header.used)?,
            OpenMode::Private => {
                let len = region_bytes(options.budget.bytes_max())?.max(header.used);
                let mut region = Region::anonymous(len, options.huge_pages)?;
                file.seek(SeekFrom::Start(0))?;
                region.fill(&mut file, header.used)?;
                region
            }
        };
        // SAFETY: the region is a finished file, or memory that no one else knows yet.
        let bytes = unsafe { region.bytes(0, header.used) };
        let start = data_offset(header.schema_len);
        if sum(bytes, start) != header.checksum {
            return Err(corrupt("its checksum does not match"));
        }
        let directory = HEADER_BYTES..HEADER_BYTES + SHARDS * DIRECTORY_ENTRY_BYTES;
        let shards = read_directory(&bytes[directory.clone()], start, header.used)?;
        let schema = parse_schema(&bytes[directory.end..directory.end + header.schema_len])?;
        let layout = Layout::of_format(schema, header.format)
            .map_err(|error| corrupt(&format!("its schema is none: {error}")))?;
        if layout.row_bytes != header.row_bytes {
            return Err(corrupt("its rows have another length than its schema"));
        }
        let budget = match mode {
            OpenMode::Private => options.budget.clone(),
            // The file's pages are the kernel's to keep or drop.
            OpenMode::ReadOnlyShared => MemoryBudget::new(u64::MAX),
        };
        let allocator = Mutex::new(Allocator::new(header.used, header.free, budget)?);
        Ok(Self { layout: Arc::new(layout), region, seed: header.seed, shards, allocator })
    }

    fn copy_of_present_format(&self, options: &TableOptions) -> Result<Self> {
        let new = Self::create(self.schema().clone(), options)?;
        let mut writer = new.writer()?;
        // Rows and strings of a sound table do not overlap, and a string counts twice at most: in its slot and behind the image.
        let mut left = 2 * self.lock().used;
        self.scan(|key, view, version, values| {
            let bytes = if let RowValues::Live(image) = values { image.len() } else { 0 };
            left = left.checked_sub(bytes).ok_or_else(|| corrupt("its rows overlap"))?;
            writer.upsert(view, key, version, values).map(|_| ())
        })?;
        drop(writer);
        Ok(new)
    }

    /// Visits every stored row, key by key, with the view's number, its version and its image or tombstone. Writers wait.
    ///
    /// # Errors
    /// The visitor's; `corrupt_store` for a row that cannot be read.
    pub fn scan(&self, mut visit: impl FnMut(&[u8], usize, RowVersion, RowValues<'_>) -> Result<()>) -> Result<()> {
        let _writer = self.lock();
        let (mut key, mut image) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let mut outcome = Ok(());
            index::visit_rows(&self.region, shard.index(), |row| {
                outcome = self.visit_row(row, &mut key, &mut image, &mut visit);
                outcome.is_ok()
            });
            outcome?;
        }
        Ok(())
    }

    fn visit_row(
        &self,
        row: usize,
        key: &mut Vec<u8>,
        image: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], usize, RowVersion, RowValues<'_>) -> Result<()>,
    ) -> Result<()> {
        if !self.region.contains(row, self.layout.row_bytes) {
            return Err(corrupt("its index points outside it"));
        }
        read_key(self, row, key)?;
        for (view, layout) in self.layout.views.iter().enumerate() {
            if !is_set(&self.region, row, layout.known) {
                continue;
            }
            let version = row_version(self, row, view);
            if is_set(&self.region, row, layout.live) {
                self.read_image(row, view, image)?;
                visit(key, view, version, RowValues::Live(image))?;
            } else {
                visit(key, view, version, RowValues::Tombstone)?;
            }
        }
        Ok(())
    }

    fn read_image(&self, row: usize, view: usize, image: &mut Vec<u8>) -> Result<()> {
        let layout = &self.layout.views[view];
        let nulls_bytes = layout.image_nulls_bytes();
        let fixed = nulls_bytes + layout.values_bytes;
        image.clear();
        image.resize(fixed, 0);
        read_nulls(&self.region, row, layout, &mut image[..nulls_bytes]);
        self.region.copy_out(row + layout.values_offset, &mut image[nulls_bytes..]);
        for &field in &layout.var_fields {
            let at = nulls_bytes + layout.fields[field].offset;
            let (len, offset) = (word_of(&image[at..at + 4]) as usize, word_of(&image[at + 8..at + 16]) as usize);
            let start = image.len();
            if len <= VAR_INLINE_BYTES {
                image.extend_from_within(at + 4..at + 4 + len);
            } else {
                if len > VAR_BYTES_MAX || !self.region.contains(offset, len) {
                    return Err(corrupt("a string in it points outside it"));
                }
                image.resize(start + len, 0);
                self.region.copy_out(offset, &mut image[start..]);
            }
            image[at + 4..at + 8].fill(0);
            image[at + 8..at + 16].copy_from_slice(&((start - fixed) as u64).to_le_bytes());
        }
        Ok(())
    }
}

fn read_header(file: &mut File) -> Result<Header> {
    let file_len = file.metadata()?.len();
    let mut front = [0; HEADER_BYTES];
    file.read_exact(&mut front).map_err(|_| corrupt("it is shorter than a header"))?;
    Header::decode(&front, file_len)
}

fn parse_schema(json: &[u8]) -> Result<TableSchema> {
    serde_json::from_slice(json).map_err(|error| corrupt(&format!("its schema cannot be read: {error}")))
}

/// The checksum of a file whose rows begin at `start`.
fn sum(bytes: &[u8], start: usize) -> u64 {
    let mut front = bytes[..start].to_vec();
    front[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
    let mut checksum = Checksum::new();
    checksum.add(&front);
    bytes[start..].chunks(CHUNK_BYTES).for_each(|chunk| checksum.add(chunk));
    checksum.value()
}

/// Makes the checksum of changed bytes right again, where there is anything to sum.
#[cfg(any(test, feature = "testing"))]
pub(super) fn set_checksum(bytes: &mut [u8]) {
    let schema_len = bytes.get(48..56).map_or(usize::MAX, |word| word_of(word) as usize);
    if schema_len < bytes.len() && data_offset(schema_len) <= bytes.len() {
        let sum = sum(bytes, data_offset(schema_len));
        bytes[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes the length in the header that of the bytes.
#[cfg(any(test, feature = "testing"))]
pub(super) fn set_len(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    if let Some(word) = bytes.get_mut(32..40) {
        word.copy_from_slice(&len.to_le_bytes());
    }
}

fn read_directory(bytes: &[u8], start: usize, used: usize) -> Result<Box<[Shard]>> {
    bytes
        .chunks_exact(DIRECTORY_ENTRY_BYTES)
        .map(|entry| {
            let index = IndexRef(word_of(&entry[..8]));
            let rows = word_of(&entry[8..]);
            let lines_log2 = index.0 & 0xff;
            let is_inside = lines_log2 < 32
                && index.0 >> 40 == 0
                && index.offset() >= start
                && index.offset().checked_add(index.bytes()).is_some_and(|end| end <= used);
            if !is_inside || rows > (index.lines() * LINE_SLOTS) as u64 {
                return Err(corrupt("its index points outside it"));
            }
            Ok(Shard::new(index, rows as usize))
        })
        .collect()
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("the snapshot of the online table is damaged: {what}"),
        "delete it: the store is rebuilt from its log, or materialize again",
    )
}
