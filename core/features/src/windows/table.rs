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
use headrace_types::{Error, ErrorCode, Result, RowVersion, TimestampUs, Value};
use serde::{Deserialize, Serialize};

use super::definition::WindowPlan;
use super::events::Events;
use super::tiles::{Arrival, KeyState, Taken};

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
    bytes_max: u64,
}

/// A file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    definition: String,
    next_sequence: u64,
    now_us: i64,
    keys: Vec<(Box<[u8]>, KeyState)>,
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
    pub(crate) fn new(plan: Arc<WindowPlan>, bytes_max: u64) -> Self {
        Self {
            plan,
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next_sequence: AtomicU64::new(0),
            now_us: AtomicI64::new(i64::MIN),
            used_bytes: AtomicU64::new(0),
            bytes_max,
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

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Forgets everything: the view is built anew from its history.
    pub(crate) fn reset(&self, sequence: u64) {
        if sequence < self.next_sequence.load(Ordering::Relaxed) {
            return;
        }
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.used_bytes.store(0, Ordering::Relaxed);
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
        let used_bytes = self.used_bytes.load(Ordering::Relaxed);
        if used_bytes > self.bytes_max {
            return Err(Error::new(
                ErrorCode::StoreFull,
                format!("the windows hold {used_bytes} bytes, the bound of the store is {}", self.bytes_max),
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
        let entry = if is_new { key.len() + size_of::<(Box<[u8]>, KeyState)>() } else { 0 };
        let after = (state.heap_bytes(&self.plan) + entry) as u64;
        self.used_bytes.fetch_add(after.wrapping_sub(before as u64), Ordering::Relaxed);
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
        shard.get(key).is_some_and(|state| state.read(&self.plan, features, at_us, value))
    }

    /// The same state without that of some keys.
    ///
    /// # Errors
    /// That of `is_erased`.
    pub(crate) fn without(&self, is_erased: &mut impl FnMut(&[u8]) -> Result<bool>) -> Result<Self> {
        let new = Self::new(Arc::clone(&self.plan), self.bytes_max);
        let mut used_bytes = 0;
        for shard in &self.shards {
            for (key, state) in shard.read().unwrap_or_else(PoisonError::into_inner).iter() {
                if is_erased(key)? {
                    continue;
                }
                used_bytes += (state.heap_bytes(&self.plan) + key.len() + size_of::<(Box<[u8]>, KeyState)>()) as u64;
                let mut shard = new.shard(key).write().unwrap_or_else(PoisonError::into_inner);
                shard.insert(key.clone(), state.clone());
            }
        }
        new.used_bytes.store(used_bytes, Ordering::Relaxed);
        new.next_sequence.store(self.next_sequence.load(Ordering::Relaxed), Ordering::Relaxed);
        new.now_us.store(self.now_us.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(new)
    }

    fn shard(&self, key: &[u8]) -> &RwLock<Keys> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Writes all keys to a file, complete or not at all.
    ///
    /// # Errors
    /// `io` with the path.
    pub(crate) fn write_snapshot(&self, path: &Path) -> Result<()> {
        let mut keys = Vec::with_capacity(self.len());
        let now_us = self.now_us.load(Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            for (key, state) in shard.iter_mut() {
                let before = state.heap_bytes(&self.plan);
                state.prune(&self.plan, now_us);
                self.used_bytes.fetch_sub((before - state.heap_bytes(&self.plan)) as u64, Ordering::Relaxed);
                keys.push((key.clone(), state.clone()));
            }
        }
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        let next_sequence = self.next_sequence.load(Ordering::Relaxed);
        let snapshot = Snapshot { definition: self.plan.definition.clone(), next_sequence, now_us, keys };
        let content = postcard::to_stdvec(&snapshot).map_err(|error| Error::internal(format!("windows: {error}")))?;
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

    /// Reads a file; none when it holds the aggregates of another definition.
    ///
    /// # Errors
    /// `corrupt_store` for a file that is cut or changed; `newer_format`; `io`.
    pub(crate) fn open_snapshot(plan: Arc<WindowPlan>, path: &Path, bytes_max: u64) -> Result<Option<Self>> {
        let bytes = std::fs::read(path).map_err(|error| Error::from(error).within(path.display()))?;
        let place = |error: Error| error.within(path.display());
        let snapshot = decode(&bytes).map_err(place)?;
        if snapshot.definition != plan.definition {
            return Ok(None);
        }
        let table = Self::new(plan, bytes_max);
        let mut used_bytes = 0;
        for (key, state) in snapshot.keys {
            if !state.is_of(&table.plan) {
                return Err(place(corrupt("a key's tiles are not those of its definition")));
            }
            used_bytes += (state.heap_bytes(&table.plan) + key.len() + size_of::<(Box<[u8]>, KeyState)>()) as u64;
            let mut shard = table.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
            shard.insert(key, state);
        }
        table.used_bytes.store(used_bytes, Ordering::Relaxed);
        table.next_sequence.store(snapshot.next_sequence, Ordering::Relaxed);
        table.now_us.store(snapshot.now_us, Ordering::Relaxed);
        Ok(Some(table))
    }
}

fn decode(bytes: &[u8]) -> Result<Snapshot> {
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
