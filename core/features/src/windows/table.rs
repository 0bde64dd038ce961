//! The aggregates of all keys of a view, in memory: written by one writer, read by many.
//!
//! A key's state is under the lock of its shard, which a writer holds for one event and a reader for one key. Events carry the sequence of the
//! log, and one that was taken in already is passed over: a batch that is applied again changes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ahash::RandomState;
use headrace_cpu::MemoryBudget;
use headrace_types::{Error, ErrorCode, Result, RowVersion, TimestampUs, Value};
use serde::{Deserialize, Serialize};

use super::definition::WindowPlan;
use super::events::Events;
use super::key_state::{Arrival, KeyState, SavedKey, Taken};

const SHARDS: usize = 64;
const MAGIC: [u8; 8] = *b"HRWINDOW";
const FORMAT_VERSION: u32 = 1;
/// Bytes before the content of a file: magic, format, checksum.
const FRONT_BYTES: usize = 16;

type Keys = HashMap<Box<[u8]>, KeyState, RandomState>;

/// The online aggregates of one view.
#[derive(Debug)]
pub(crate) struct WindowTable {
    plan: Arc<WindowPlan>,
    hasher: RandomState,
    shards: Box<[RwLock<Keys>]>,
    /// Events of a smaller sequence have been taken in.
    next_sequence: AtomicU64,
    /// The newest time of an ingest.
    now_us: AtomicI64,
    used_bytes: AtomicU64,
    crowded_out: AtomicU64,
    /// Shared with the tables of the store.
    budget: Arc<MemoryBudget>,
}

impl Drop for WindowTable {
    fn drop(&mut self) {
        self.budget.change(self.used_bytes.load(Ordering::Relaxed), 0);
    }
}

/// The sizes of a view's aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStats {
    /// Keys that have had an event.
    pub keys: usize,
    pub used_bytes: u64,
    /// Times that an event's group was not kept, or took the place of another, since the table was made.
    pub crowded_out: u64,
}

/// A file's content, with the keys' states as they are written or read.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot<K> {
    definition: String,
    next_sequence: u64,
    now_us: i64,
    keys: Vec<(Box<[u8]>, K)>,
}

/// One row of a batch.
pub(crate) struct Incoming<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) row: usize,
    pub(crate) version: RowVersion,
    pub(crate) is_tombstone: bool,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Counted,
    Late,
    Deleted,
    /// Taken in before.
    Again,
}

impl WindowTable {
    pub(crate) fn new(plan: Arc<WindowPlan>, budget: Arc<MemoryBudget>) -> Self {
        Self {
            plan,
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next_sequence: AtomicU64::new(0),
            now_us: AtomicI64::new(i64::MIN),
            used_bytes: AtomicU64::new(0),
            crowded_out: AtomicU64::new(0),
            budget,
        }
    }

    pub(crate) fn plan(&self) -> &WindowPlan {
        &self.plan
    }

    pub(crate) fn is_of(&self, plan: &WindowPlan) -> bool {
        self.plan.definition == plan.definition
    }

    /// Keys that have had an event.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(crate) fn stats(&self) -> WindowStats {
        WindowStats {
            keys: self.len(),
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            crowded_out: self.crowded_out.load(Ordering::Relaxed),
        }
    }

    /// Forgets everything: the view is built anew from its history.
    pub(crate) fn reset(&self, sequence: u64) {
        if sequence < self.next_sequence.load(Ordering::Relaxed) {
            return;
        }
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.count_bytes(self.used_bytes.load(Ordering::Relaxed), 0);
    }

    /// Notes that what took `before` bytes takes `after` now.
    fn count_bytes(&self, before: u64, after: u64) {
        self.used_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.budget.change(before, after);
    }

    /// Takes in one row. Rows come in the order of their sequence.
    ///
    /// # Errors
    /// `store_full`; the row is not taken in then.
    pub(crate) fn apply(&self, incoming: &Incoming<'_>, events: &Events<'_>, now_us: TimestampUs) -> Result<Outcome> {
        let Incoming { key, row, version, is_tombstone } = *incoming;
        if version.sequence < self.next_sequence.load(Ordering::Relaxed) {
            return Ok(Outcome::Again);
        }
        let now_us = self.now_us.fetch_max(now_us, Ordering::Relaxed).max(now_us);
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        let (used_bytes, bytes_max) = (self.budget.used(), self.budget.bytes_max());
        if used_bytes > bytes_max {
            return Err(Error::new(
                ErrorCode::StoreFull,
                format!("the online store holds {used_bytes} bytes, its bound is {bytes_max}"),
                "raise bytes_max of the online store, or store fewer keys, shorter windows or longer hops",
            ));
        }
        let known = shard.get_mut(key);
        let is_new = known.is_none();
        let state = match known {
            Some(state) => state,
            None => shard.entry(key.into()).or_default(),
        };
        let before = state.heap_bytes(&self.plan);
        let outcome = if is_tombstone {
            state.delete(&self.plan, version, now_us);
            Outcome::Deleted
        } else {
            match state.add(&self.plan, &Arrival { events, row, version }, now_us) {
                Taken::Counted => Outcome::Counted,
                Taken::Late => Outcome::Late,
            }
        };
        self.crowded_out.fetch_add(state.take_crowded_out(), Ordering::Relaxed);
        let entry = if is_new { key.len() + size_of::<(Box<[u8]>, KeyState)>() } else { 0 };
        let after = (state.heap_bytes(&self.plan) + entry) as u64;
        self.count_bytes(before as u64, after);
        self.next_sequence.store(version.sequence + 1, Ordering::Relaxed);
        Ok(outcome)
    }

    /// The values of some features of a key at a time; false when the key is not known then.
    pub(crate) fn read(
        &self,
        key: &[u8],
        features: impl Iterator<Item = usize>,
        at_us: TimestampUs,
        value: impl FnMut(usize, Value),
    ) -> bool {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = shard.get(key) else { return false };
        let answered = state.read(&self.plan, features, at_us, value);
        if answered.remembered_bytes > 0 {
            self.count_bytes(0, answered.remembered_bytes as u64);
        }
        answered.is_known
    }

    /// The same state without that of some keys.
    ///
    /// # Errors
    /// That of `is_erased`.
    pub(crate) fn without(&self, is_erased: &mut impl FnMut(&[u8]) -> Result<bool>) -> Result<Self> {
        let new = Self::new(Arc::clone(&self.plan), Arc::clone(&self.budget));
        let mut used_bytes = 0;
        for shard in &self.shards {
            for (key, state) in shard.read().unwrap_or_else(PoisonError::into_inner).iter() {
                if is_erased(key)? {
                    continue;
                }
                let mut state = state.clone();
                used_bytes += (state.heap_bytes(&self.plan) + key.len() + size_of::<(Box<[u8]>, KeyState)>()) as u64;
                let mut shard = new.shard(key).write().unwrap_or_else(PoisonError::into_inner);
                shard.insert(key.clone(), state);
            }
        }
        new.count_bytes(0, used_bytes);
        new.next_sequence.store(self.next_sequence.load(Ordering::Relaxed), Ordering::Relaxed);
        new.now_us.store(self.now_us.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(new)
    }

    fn shard(&self, key: &[u8]) -> &RwLock<Keys> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// All keys as they are now, to be written to a file: a copy, so that events can go on coming in. To be called between two
    /// batches.
    pub(crate) fn freeze(&self) -> FrozenWindows {
        let mut keys = Vec::with_capacity(self.len());
        let now_us = self.now_us.load(Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            for (key, state) in shard.iter_mut() {
                let before = state.heap_bytes(&self.plan);
                state.prune(&self.plan, now_us);
                self.count_bytes(before as u64, state.heap_bytes(&self.plan) as u64);
                keys.push((key.clone(), state.clone()));
            }
        }
        let next_sequence = self.next_sequence.load(Ordering::Relaxed);
        FrozenWindows(Snapshot { definition: self.plan.definition.clone(), next_sequence, now_us, keys })
    }

    /// Reads a file; none when it holds the aggregates of another definition.
    ///
    /// # Errors
    /// `corrupt_store` for a file that is cut or changed; `newer_format`; `io`.
    pub(crate) fn open_snapshot(plan: Arc<WindowPlan>, path: &Path, budget: Arc<MemoryBudget>) -> Result<Option<Self>> {
        let bytes = std::fs::read(path).map_err(|error| Error::from(error).within(path.display()))?;
        let place = |error: Error| error.within(path.display());
        let snapshot = decode(&bytes).map_err(place)?;
        if snapshot.definition != plan.definition {
            return Ok(None);
        }
        let table = Self::new(plan, budget);
        let mut used_bytes = 0;
        for (key, saved) in snapshot.keys {
            let state = saved.restore(&table.plan);
            let mut state = state.ok_or_else(|| place(corrupt("a key's tiles are not those of its definition")))?;
            used_bytes += (state.heap_bytes(&table.plan) + key.len() + size_of::<(Box<[u8]>, KeyState)>()) as u64;
            let mut shard = table.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
            shard.insert(key, state);
        }
        table.count_bytes(0, used_bytes);
        table.next_sequence.store(snapshot.next_sequence, Ordering::Relaxed);
        table.now_us.store(snapshot.now_us, Ordering::Relaxed);
        Ok(Some(table))
    }
}

/// The aggregates of one view as they were at one moment.
#[derive(Debug)]
pub(crate) struct FrozenWindows(Snapshot<KeyState>);

impl FrozenWindows {
    /// Writes all keys to a file, complete or not at all.
    ///
    /// # Errors
    /// `io` with the path.
    pub(crate) fn write(mut self, path: &Path) -> Result<()> {
        self.0.keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        let content = postcard::to_stdvec(&self.0).map_err(|error| Error::internal(format!("windows: {error}")))?;
        let mut front = [0; FRONT_BYTES];
        front[..8].copy_from_slice(&MAGIC);
        front[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        front[12..].copy_from_slice(&crc32fast::hash(&content).to_le_bytes());
        let write = || {
            let mut file = File::create(path)?;
            file.write_all(&front)?;
            file.write_all(&content)?;
            file.sync_all()
        };
        write().map_err(|error: std::io::Error| Error::from(error).within(path.display()))
    }
}

fn decode(bytes: &[u8]) -> Result<Snapshot<SavedKey>> {
    let (front, content) =
        bytes.split_at_checked(FRONT_BYTES).ok_or_else(|| corrupt("it is shorter than its front"))?;
    if front[..8] != MAGIC {
        return Err(corrupt("it does not begin as windows do"));
    }
    let word = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
    if word(8) != FORMAT_VERSION {
        return Err(Error::new(
            ErrorCode::NewerFormat,
            format!("the windows have format {}, this headrace reads {FORMAT_VERSION}", word(8)),
            "open them with the headrace that wrote them, or materialize again",
        ));
    }
    if word(12) != crc32fast::hash(content) {
        return Err(corrupt("its checksum does not match"));
    }
    postcard::from_bytes(content).map_err(|error| corrupt(&format!("it cannot be read: {error}")))
}

fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("the snapshot of windows is damaged: {what}"),
        "delete it: the store is rebuilt from its log, or materialize again",
    )
}
