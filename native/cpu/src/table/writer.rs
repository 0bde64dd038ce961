//! Changes of rows, by one writer at a time.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use headrace_types::{Error, ErrorCode, Result, RowVersion};

use super::alloc::Allocator;
use super::hash::hash_bytes;
use super::image::RowValues;
use super::index::{self, FULL_16THS, IndexRef, LINE_BYTES, LINE_SLOTS};
use super::key::Probe;
use super::prefetch::prefetch;
use super::region::Region;
use super::schema::{RowBit, VAR_BYTES_MAX, VAR_INLINE_BYTES, ViewLayout, is_var};
use super::shard::shard_of;
use super::store::{RowTable, UpsertOutcome};

/// Longest canonical key.
pub const KEY_BYTES_MAX: usize = 1 << 16;

/// The right to change a table; others wait for it.
#[derive(Debug)]
pub struct TableWriter<'a> {
    table: &'a RowTable,
    allocator: MutexGuard<'a, Allocator>,
    /// Slots of the view's strings and lists as they will be written, reused from row to row.
    slots: Vec<VarSlot>,
}

/// Where a value without a fixed width will lie: inline, or in a block of its own.
#[derive(Debug, Clone, Copy)]
struct VarSlot {
    words: [u64; 2],
    block: Option<(usize, usize)>,
}

impl<'a> TableWriter<'a> {
    pub(super) fn new(table: &'a RowTable, allocator: MutexGuard<'a, Allocator>) -> Self {
        Self { table, allocator, slots: Vec::new() }
    }

    /// Brings the cache line that an upsert of this key will need first.
    pub fn prefetch_index(&self, key: &[u8]) {
        let probe = Probe::new(key, self.table.seed);
        index::prefetch_line(&self.table.region, self.table.shards[shard_of(probe.hash)].index(), probe.hash);
    }

    /// Brings the row that an upsert of this key will change; to be called a while after [`Self::prefetch_index`].
    pub fn prefetch_row(&self, view: usize, key: &[u8]) {
        let table = self.table;
        let probe = Probe::new(key, table.seed);
        if let Some(row) = index::propose(&table.region, table.shards[shard_of(probe.hash)].index(), probe.hash) {
            let layout = &table.layout.views[view];
            prefetch(table.region.hint_address(row));
            prefetch(table.region.hint_address(row + layout.nulls_at / 8));
            prefetch(table.region.hint_address(row + table.layout.versions_offset + 16 * view));
            for offset in (layout.values_offset..layout.values_offset + layout.values_bytes).step_by(LINE_BYTES) {
                prefetch(table.region.hint_address(row + offset));
            }
        }
    }

    /// Stores one row of one view, or leaves the one there when its version is as large or larger.
    ///
    /// # Errors
    /// `store_full` at the memory bound, with nothing changed; `corrupt_store` for an image that is not one of the view's
    /// fields; `too_large` for a key over [`KEY_BYTES_MAX`]; `invalid_argument` for a view that the table does not have.
    pub fn upsert(
        &mut self,
        view: usize,
        key: &[u8],
        version: RowVersion,
        values: RowValues<'_>,
    ) -> Result<UpsertOutcome> {
        let table = self.table;
        let Some(layout) = table.layout.views.get(view) else {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("the online table has no view {view}"), ""));
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("a key takes {} bytes", key.len()),
                format!("the longest key is {KEY_BYTES_MAX} bytes"),
            ));
        }
        let probe = Probe::new(key, table.seed);
        let shard = &table.shards[shard_of(probe.hash)];
        let found = index::find(&table.region, shard.index(), table.layout.row_bytes, &probe).map(|(row, _)| row);
        let known = found.is_some_and(|row| self.is_known(row, view));
        if let Some(row) = found
            && known
            && version <= self.version(row, view)
        {
            return Ok(UpsertOutcome::Stale);
        }
        let image = match values {
            RowValues::Live(image) => Some(image),
            RowValues::Tombstone => None,
        };
        self.prepare_slots(view, image)?;
        let (row, is_new) = match found {
            Some(row) => (row, false),
            None => match self.new_row(&probe) {
                Ok(row) => (row, true),
                Err(error) => {
                    self.drop_slots();
                    return Err(error);
                }
            },
        };
        let old_blocks = if known { self.blocks_of(row, layout) } else { Vec::new() };
        {
            let shard = shard.write();
            self.write_row(row, view, version, image);
            let inserted = match is_new {
                true => index::insert(&table.region, table.shards[shard_of(probe.hash)].index(), probe.hash, row),
                false => Ok(()),
            };
            drop(shard);
            inserted?;
        }
        if is_new {
            shard.rows.fetch_add(1, Ordering::Relaxed);
        }
        for (offset, bytes) in old_blocks {
            self.allocator.free_block(&table.region, offset, bytes);
        }
        Ok(match (image, known) {
            (None, _) => UpsertOutcome::Deleted,
            (Some(_), true) => UpsertOutcome::Replaced,
            (Some(_), false) => UpsertOutcome::Inserted,
        })
    }

    fn is_known(&self, row: usize, view: usize) -> bool {
        is_set(&self.table.region, row, self.table.layout.views[view].known)
    }

    fn version(&self, row: usize, view: usize) -> RowVersion {
        row_version(self.table, row, view)
    }

    /// Reserves all the space that the row's strings and lists need, before anything is changed.
    fn prepare_slots(&mut self, view: usize, image: Option<&[u8]>) -> Result<()> {
        self.slots.clear();
        let layout = &self.table.layout.views[view];
        let Some(image) = image else { return Ok(()) };
        check_image(layout, image)
            .map_err(|error| error.within(format!("view '{}'", self.table.layout.view_name(view))))?;
        for &field in &layout.var_fields {
            let bytes = image_var(layout, image, field);
            let slot = if bytes.len() <= VAR_INLINE_BYTES {
                let mut slot = [0; 16];
                slot[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
                slot[4..4 + bytes.len()].copy_from_slice(bytes);
                let (low, high) = slot.split_at(8);
                VarSlot { words: [word_of(low), word_of(high)], block: None }
            } else {
                match self.allocator.block(&self.table.region, bytes.len()) {
                    Ok(offset) => {
                        VarSlot { words: [bytes.len() as u64, offset as u64], block: Some((offset, bytes.len())) }
                    }
                    Err(error) => {
                        self.drop_slots();
                        return Err(error);
                    }
                }
            };
            self.slots.push(slot);
        }
        Ok(())
    }

    fn drop_slots(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            if let Some((offset, bytes)) = slot.block {
                self.allocator.free_block(&self.table.region, offset, bytes);
            }
        }
    }

    /// A row with its key written and a free slot in the index, not yet in it.
    fn new_row(&mut self, probe: &Probe<'_>) -> Result<usize> {
        let table = self.table;
        self.grow_index(shard_of(probe.hash))?;
        let long = match probe.long {
            Some(key) => Some((self.allocator.block(&table.region, key.len())?, key)),
            None => None,
        };
        let row = match self.allocator.row(&table.region, table.layout.row_bytes) {
            Ok(row) => row,
            Err(error) => {
                if let Some((offset, key)) = long {
                    self.allocator.free_block(&table.region, offset, key.len());
                }
                return Err(error);
            }
        };
        table.region.store(row, probe.word0);
        match long {
            Some((offset, key)) => {
                table.region.copy_in(offset, key);
                table.region.store(row + 8, offset as u64);
            }
            None => table.region.store(row + 8, probe.word1),
        }
        Ok(row)
    }

    /// Doubles a shard's index when the next row would make it too full. Readers use the old lines until the new are complete.
    fn grow_index(&mut self, shard: usize) -> Result<()> {
        let table = self.table;
        let shard = &table.shards[shard];
        let old = shard.index();
        if (shard.rows.load(Ordering::Relaxed) + 1) * 16 <= old.lines() * LINE_SLOTS * FULL_16THS {
            return Ok(());
        }
        let offset = self.allocator.block(&table.region, old.bytes() * 2)?;
        // A block under 64 bytes never comes here, so lines are aligned.
        for word in (offset..offset + old.bytes() * 2).step_by(8) {
            table.region.store(word, 0);
        }
        let new = IndexRef::new(offset, old.lines().trailing_zeros() + 1);
        let mut rows = Vec::with_capacity(shard.rows.load(Ordering::Relaxed));
        index::visit_rows(&table.region, old, |row| {
            rows.push(row);
            true
        });
        const AHEAD: usize = 16;
        let mut key = Vec::new();
        for (i, &row) in rows.iter().enumerate() {
            if let Some(&next) = rows.get(i + AHEAD) {
                prefetch(table.region.hint_address(next));
            }
            read_key(table, row, &mut key)?;
            index::insert(&table.region, new, hash_bytes(table.seed, &key), row)?;
        }
        let write = shard.write();
        write.set_index(new);
        drop(write);
        self.allocator.free_block(&table.region, old.offset(), old.bytes());
        Ok(())
    }

    /// The blocks that a view's present values own.
    fn blocks_of(&self, row: usize, layout: &ViewLayout) -> Vec<(usize, usize)> {
        let region = &self.table.region;
        let mut blocks = Vec::new();
        for &field in &layout.var_fields {
            let mut slot = [0; 16];
            region.copy_out(row + layout.values_offset + layout.fields[field].offset, &mut slot);
            let (len, offset) = (word_of(&slot[..4]) as usize, word_of(&slot[8..]) as usize);
            if len > VAR_INLINE_BYTES {
                blocks.push((offset, len));
            }
        }
        blocks
    }

    fn write_row(&self, row: usize, view: usize, version: RowVersion, image: Option<&[u8]>) {
        let (layout, region) = (&self.table.layout, &self.table.region);
        let view_layout = &layout.views[view];
        set_bit(region, row, view_layout.live, image.is_some());
        set_bit(region, row, view_layout.known, true);
        region.store(row + layout.event_ts_offset + 8 * view, version.event_ts as u64);
        let version_at = row + layout.versions_offset + 16 * view;
        region.store(version_at, version.created_ts as u64);
        region.store(version_at + 8, version.sequence);

        let values_at = row + view_layout.values_offset;
        let nulls_bytes = view_layout.image_nulls_bytes();
        let Some(image) = image else {
            for &field in &view_layout.var_fields {
                region.copy_in(values_at + view_layout.fields[field].offset, &[0; 16]);
            }
            return;
        };
        write_nulls(region, row, view_layout, &image[..nulls_bytes]);
        region.copy_in(values_at, &image[nulls_bytes..nulls_bytes + view_layout.values_bytes]);
        for (slot, &field) in self.slots.iter().zip(&view_layout.var_fields) {
            if let Some((offset, _)) = slot.block {
                region.copy_in(offset, image_var(view_layout, image, field));
            }
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&slot.words[0].to_le_bytes());
            bytes[8..].copy_from_slice(&slot.words[1].to_le_bytes());
            region.copy_in(values_at + view_layout.fields[field].offset, &bytes);
        }
    }
}

pub(super) fn is_set(region: &Region, row: usize, bit: RowBit) -> bool {
    region.load(row + bit.offset) & bit.mask != 0
}

fn set_bit(region: &Region, row: usize, bit: RowBit, value: bool) {
    let word = region.load(row + bit.offset);
    region.store(row + bit.offset, if value { word | bit.mask } else { word & !bit.mask });
}

/// The parts into which the words of a row divide a view's null bits: the first field, the offset of the row's word, the first
/// bit in it, and how many bits.
fn null_parts(layout: &ViewLayout) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let (start, count) = (layout.nulls_at, layout.fields.len());
    let mut field = 0;
    std::iter::from_fn(move || {
        let (first, at) = (field, start + field);
        let bits = (64 - at % 64).min(count - first);
        field += bits;
        (bits > 0).then_some((first, at / 64 * 8, at % 64, bits))
    })
}

/// `count` bits of an image's null bits from bit `first` on; an image has a whole word at least.
fn image_bits(nulls: &[u8], first: usize, count: usize) -> u64 {
    let (word, skip) = (first / 64 * 8, first % 64);
    let low = word_of(&nulls[word..word + 8]) >> skip;
    let high = match nulls.get(word + 8..word + 16) {
        Some(next) if skip > 0 => word_of(next) << (64 - skip),
        _ => 0,
    };
    (low | high) & (u64::MAX >> (64 - count))
}

fn write_nulls(region: &Region, row: usize, layout: &ViewLayout, nulls: &[u8]) {
    for (first, offset, shift, count) in null_parts(layout) {
        let kept = region.load(row + offset) & !(u64::MAX >> (64 - count) << shift);
        region.store(row + offset, kept | image_bits(nulls, first, count) << shift);
    }
}

/// The null bits of a view as an image has them; `nulls` is zero.
pub(super) fn read_nulls(region: &Region, row: usize, layout: &ViewLayout, nulls: &mut [u8]) {
    for (first, offset, shift, count) in null_parts(layout) {
        let bits = region.load(row + offset) >> shift & (u64::MAX >> (64 - count));
        let low = u128::from(bits) << (first % 64);
        for (byte, part) in nulls[first / 64 * 8..].iter_mut().zip(low.to_le_bytes()) {
            *byte |= part;
        }
    }
}

/// The version of a view that the row knows.
pub(super) fn row_version(table: &RowTable, row: usize, view: usize) -> RowVersion {
    let at = row + table.layout.versions_offset + 16 * view;
    RowVersion {
        event_ts: table.region.load(row + table.layout.event_ts_offset + 8 * view) as i64,
        created_ts: table.region.load(at) as i64,
        sequence: table.region.load(at + 8),
    }
}

/// The canonical key of a row.
///
/// # Errors
/// `corrupt_store` when the row holds none.
pub(super) fn read_key(table: &RowTable, row: usize, key: &mut Vec<u8>) -> Result<()> {
    let mut slot = [0; 16];
    let is_row = table.region.copy_out(row, &mut slot);
    let len = word_of(&slot[..4]) as usize;
    key.clear();
    if is_row && len <= VAR_INLINE_BYTES {
        key.extend_from_slice(&slot[4..4 + len]);
        return Ok(());
    }
    key.resize(len.min(KEY_BYTES_MAX), 0);
    if !is_row || len > KEY_BYTES_MAX || !table.region.copy_out(word_of(&slot[8..]) as usize, key) {
        return Err(Error::new(
            ErrorCode::CorruptStore,
            "a row of the online table has no key",
            "restore the store from its log, or materialize again",
        ));
    }
    Ok(())
}

pub(super) fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The bytes of a string or list in an image that [`check_image`] has passed.
fn image_var<'i>(layout: &ViewLayout, image: &'i [u8], field: usize) -> &'i [u8] {
    let fixed = layout.image_nulls_bytes() + layout.values_bytes;
    let slot = layout.image_nulls_bytes() + layout.fields[field].offset;
    let len = word_of(&image[slot..slot + 4]) as usize;
    let start = (word_of(&image[slot + 8..slot + 16]) as usize).saturating_add(fixed);
    image.get(start..start.saturating_add(len)).unwrap_or_default()
}

fn check_image(layout: &ViewLayout, image: &[u8]) -> Result<()> {
    let corrupt =
        |what: String| Error::new(ErrorCode::CorruptStore, what, "encode the row with the fields of its view");
    let fixed = layout.image_nulls_bytes() + layout.values_bytes;
    if image.len() < fixed {
        return Err(corrupt(format!("a row of {} bytes was given, its fields take {fixed}", image.len())));
    }
    for &field in &layout.var_fields {
        let slot = layout.image_nulls_bytes() + layout.fields[field].offset;
        let len = word_of(&image[slot..slot + 4]);
        let end = word_of(&image[slot + 8..slot + 16]).saturating_add(fixed as u64).saturating_add(len);
        debug_assert!(is_var(layout.fields[field].dtype));
        if end > image.len() as u64 {
            return Err(corrupt(format!("a value of {len} bytes ends outside its row")));
        }
        if len > VAR_BYTES_MAX as u64 {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("a value takes {len} bytes"),
                format!("the longest string, bytes or list is {VAR_BYTES_MAX} bytes"),
            ));
        }
    }
    Ok(())
}
