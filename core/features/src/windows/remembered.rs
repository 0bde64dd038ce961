//! What windows have found in a key's older tiles, until those change: the start of a window moves on once a hop, and most events go to the
//! newest tile, so a key that is asked often is merged once for many answers.

use std::sync::{Mutex, MutexGuard};

use headrace_types::TimestampUs;

use super::partial::Partial;

/// What a window from `start_us` on has found in the older tiles of one version.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) start_us: TimestampUs,
    pub(super) version: u64,
    pub(super) partial: Partial,
}

/// For each feature of the view, what was found last. Readers do not wait for each other: one that meets another merges for itself.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Vec<Option<Found>>>);

/// A copy remembers nothing yet.
impl Clone for Remembered {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Remembered {
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Vec<Option<Found>>>> {
        self.0.try_lock().ok()
    }

    /// About how many bytes it takes beside this structure.
    pub(super) fn heap_bytes(&mut self) -> usize {
        self.0.get_mut().map_or(0, |found| bytes_of(found))
    }
}

/// About how many bytes the memory of so many features takes.
pub(super) fn bytes_of(found: &[Option<Found>]) -> usize {
    size_of_val(found)
}
