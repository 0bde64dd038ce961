//! The bytes of a table as they are at one moment, written to a file while rows go on changing.
//!
//! The region is taken in parts. A part is written to the file by whoever comes first: the snapshot on its way through all of them, or the
//! writer that is about to change it. So the file holds what was there when the cut was made, readers notice nothing, and a
//! writer loses the time of copying one part for each part that it is the first to change; no memory is taken beside the table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use super::region::Region;

/// Small, so that a writer that changes rows all over the table is never held up for long: some microseconds a part.
const PART_BYTES: usize = 16 << 10;

const UNTOUCHED: u8 = 0;
const BEING_COPIED: u8 = 1;
const COPIED: u8 = 2;

#[derive(Debug)]
pub(super) struct Cut {
    file: File,
    start: usize,
    end: usize,
    /// The state of each part, from the beginning of the region on.
    parts: Box<[AtomicU8]>,
    failure: Mutex<Option<io::Error>>,
}

impl Cut {
    /// Of the bytes from `start` to `end`, which go to the same place of the file.
    pub(super) fn new(file: File, start: usize, end: usize) -> Self {
        let parts = (0..end.div_ceil(PART_BYTES)).map(|_| AtomicU8::new(UNTOUCHED)).collect();
        Self { file, start, end, parts, failure: Mutex::new(None) }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Sees to it that a range has been copied, because it is about to change. The caller holds the writer lock.
    #[cold]
    pub(super) fn keep(&self, region: &Region, offset: usize, len: usize) {
        let last = (offset + len.max(1) - 1) / PART_BYTES;
        for part in offset / PART_BYTES..=last.min(self.parts.len().saturating_sub(1)) {
            self.copy(region, part);
        }
    }

    /// Copies all that no writer has copied.
    pub(super) fn copy_all(&self, region: &Region) -> io::Result<()> {
        (0..self.parts.len()).for_each(|part| self.copy(region, part));
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn copy(&self, region: &Region, part: usize) {
        let state = &self.parts[part];
        match state.compare_exchange(UNTOUCHED, BEING_COPIED, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                let from = (part * PART_BYTES).max(self.start);
                let to = ((part + 1) * PART_BYTES).min(self.end);
                if from < to {
                    // SAFETY: whoever wants to change this part waits until it is marked as copied (`keep`), and all
                    // changes before the cut were made under the writer lock, which was taken since.
                    let bytes = unsafe { region.bytes(from, to - from) };
                    if let Err(error) = self.file.write_all_at(bytes, from as u64) {
                        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
                state.store(COPIED, Ordering::Release);
            }
            Err(BEING_COPIED) => {
                while state.load(Ordering::Acquire) != COPIED {
                    std::thread::yield_now();
                }
            }
            Err(_) => {}
        }
    }
}
