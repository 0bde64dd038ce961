//! The most frequent values: counted exactly while there are few distinct ones, then by Misra and Gries' algorithm, merged as Agarwal
//! et al. ("Mergeable summaries", PODS 2012) do.

use headrace_types::{Result, Value};

use crate::bytes::{Reader, put_varint};

/// How many values are counted.
pub const COUNTERS_MAX: usize = 64;
/// Values that are counted at once, so that their counters stay in the cache.
pub(crate) const PART_VALUES: usize = 4096;
/// A longer string is shown by its beginning.
pub const SHOWN_BYTES_MAX: usize = 128;

/// The most frequent values of a column and how often they occur.
///
/// With at most [`COUNTERS_MAX`] distinct values every count is exact. With more, a count is too low by at most
/// [`TopValues::error_max`], which is at most the number of values divided by `COUNTERS_MAX + 1`; a value that occurs more often than
/// that is always listed. Floats with more distinct values than that are given up: none of them is frequent as a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct TopValues {
    /// Ascending by hash.
    counters: Vec<Counter>,
    error_max: u64,
    /// Whether counting goes on beyond the distinct values that can be counted exactly.
    goes_on: bool,
    given_up: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Counter {
    hash: u64,
    value: Value,
    count: u64,
}

/// Slots for the hashes of one part: at most half of them are used.
const SLOTS: usize = 2 * PART_VALUES;

/// How often each hash of a part occurs: open addressing, emptied by way of what is in it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    slots: Vec<Slot>,
    /// The used slots, in the order in which their hashes came.
    used: Vec<u32>,
    distinct: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u64,
    /// Of the first value with this hash.
    place: u32,
    /// 0 in a free slot.
    count: u32,
}

impl Counts {
    /// Counts the hashes; false, when there are more than `distinct_max` of them.
    fn count(&mut self, hashes: &[u64], distinct_max: usize) -> bool {
        self.slots.resize(SLOTS, Slot::default());
        for at in self.used.drain(..) {
            self.slots[at as usize].count = 0;
        }
        for (place, &hash) in hashes.iter().enumerate() {
            let mut at = hash as usize % SLOTS;
            while self.slots[at].count > 0 && self.slots[at].hash != hash {
                at = (at + 1) % SLOTS;
            }
            let slot = &mut self.slots[at];
            if slot.count == 0 {
                (slot.hash, slot.place) = (hash, place as u32);
                self.used.push(at as u32);
                if self.used.len() > distinct_max {
                    slot.count = 1;
                    return false;
                }
            }
            slot.count += 1;
        }
        true
    }

    fn found(&self) -> impl Iterator<Item = &Slot> {
        self.used.iter().map(|at| &self.slots[*at as usize])
    }
}

impl TopValues {
    /// `goes_on` is false for floats.
    pub(crate) fn new(goes_on: bool) -> Self {
        Self { counters: Vec::new(), error_max: 0, goes_on, given_up: false }
    }

    /// Adds the values of at most [`PART_VALUES`] hashes; `value_at` gives a value to show by its place among them. Returns the
    /// distinct hashes, unless it has given up.
    pub(crate) fn add<'c>(
        &mut self,
        hashes: &[u64],
        value_at: impl Fn(usize) -> Value,
        counts: &'c mut Counts,
    ) -> Option<&'c [u64]> {
        let distinct_max = if self.goes_on { usize::MAX } else { COUNTERS_MAX };
        if self.given_up {
            return None;
        }
        debug_assert!(hashes.len() <= PART_VALUES);
        if !counts.count(hashes, distinct_max) {
            self.give_up();
            return None;
        }
        // Most of many values are dropped at once: only the others are shown, and so copied.
        let cut = cut_of(counts.found().map(|slot| u64::from(slot.count)));
        let mut counters: Vec<Counter> = counts
            .found()
            .filter(|slot| u64::from(slot.count) > cut)
            .map(|slot| Counter {
                hash: slot.hash,
                value: shown(value_at(slot.place as usize)),
                count: u64::from(slot.count) - cut,
            })
            .collect();
        counters.sort_unstable_by_key(|counter| counter.hash);
        self.merge(&Self { counters, error_max: cut, goes_on: self.goes_on, given_up: false });
        if self.given_up {
            return None;
        }
        let mut distinct = std::mem::take(&mut counts.distinct);
        distinct.clear();
        distinct.extend(counts.found().map(|slot| slot.hash));
        counts.distinct = distinct;
        Some(&counts.distinct)
    }

    fn give_up(&mut self) {
        (self.given_up, self.error_max) = (true, 0);
        self.counters.clear();
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.given_up || other.given_up {
            return self.give_up();
        }
        for counter in &other.counters {
            match self.counters.binary_search_by_key(&counter.hash, |mine| mine.hash) {
                Ok(at) => self.counters[at].count = self.counters[at].count.saturating_add(counter.count),
                Err(at) => self.counters.insert(at, counter.clone()),
            }
        }
        self.error_max = self.error_max.saturating_add(other.error_max);
        if self.counters.len() > COUNTERS_MAX {
            if !self.goes_on {
                return self.give_up();
            }
            let cut = cut_of(self.counters.iter().map(|counter| counter.count));
            self.counters.retain_mut(|counter| {
                counter.count = counter.count.saturating_sub(cut);
                counter.count > 0
            });
            self.error_max = self.error_max.saturating_add(cut);
        }
    }

    /// The values and their counts, the most frequent first; `None` where counting was given up.
    pub fn values(&self) -> Option<Vec<(&Value, u64)>> {
        if self.given_up {
            return None;
        }
        let mut found: Vec<&Counter> = self.counters.iter().collect();
        found.sort_by_key(|counter| (std::cmp::Reverse(counter.count), counter.hash));
        Some(found.into_iter().map(|counter| (&counter.value, counter.count)).collect())
    }

    /// By how much a count may be too low; 0 where all counts are exact.
    pub fn error_max(&self) -> u64 {
        self.error_max
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.goes_on) | u8::from(self.given_up) << 1);
        put_varint(out, self.error_max);
        put_varint(out, self.counters.len() as u64);
        for counter in &self.counters {
            out.extend(counter.hash.to_le_bytes());
            put_varint(out, counter.count);
            write_value(&counter.value, out);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let flags = reader.take(1)?[0];
        let error_max = reader.varint()?;
        let length = reader.varint()?;
        let given_up = flags & 2 != 0;
        if flags > 3 || length > COUNTERS_MAX as u64 || (given_up && (length > 0 || error_max > 0)) {
            return Err(reader.corrupt("its frequent values do not fit"));
        }
        let mut counters: Vec<Counter> = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let counter = Counter { hash: reader.word()?, count: reader.varint()?, value: read_value(reader)? };
            if counter.count == 0 || counters.last().is_some_and(|last| last.hash >= counter.hash) {
                return Err(reader.corrupt("its frequent values are not in order"));
            }
            counters.push(counter);
        }
        Ok(Self { counters, error_max, goes_on: flags & 1 != 0, given_up })
    }
}

/// The count of the first value that finds no counter when the largest do; 0 when all do.
fn cut_of(counts: impl Iterator<Item = u64>) -> u64 {
    let mut counts: Vec<u64> = counts.collect();
    if counts.len() <= COUNTERS_MAX {
        return 0;
    }
    if counts.iter().all(|count| *count == 1) {
        return 1;
    }
    let (_, cut, _) = counts.select_nth_unstable_by(COUNTERS_MAX, |a, b| b.cmp(a));
    *cut
}

/// Long values are cut, strings at the end of a character.
fn shown(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            let end = (0..=SHOWN_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            Value::String(text)
        }
        Value::Bytes(mut bytes) => {
            bytes.truncate(SHOWN_BYTES_MAX);
            Value::Bytes(bytes)
        }
        value => value,
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    let (kind, word) = match value {
        Value::Bool(value) => (1, u64::from(*value)),
        Value::Int(value) => (2, *value as u64),
        Value::UInt(value) => (3, *value),
        Value::Float64(value) => (4, value.to_bits()),
        Value::Float32(value) => (4, f64::from(*value).to_bits()),
        Value::Timestamp(value) => (5, *value as u64),
        Value::String(value) => return write_text(6, value.as_bytes(), out),
        Value::Bytes(value) => return write_text(7, value, out),
        Value::List(_) | Value::Null => return out.push(0),
    };
    out.push(kind);
    out.extend(word.to_le_bytes());
}

fn write_text(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn read_value(reader: &mut Reader<'_>) -> Result<Value> {
    let kind = reader.take(1)?[0];
    Ok(match kind {
        0 => Value::Null,
        1 => Value::Bool(reader.word()? != 0),
        2 => Value::Int(reader.word()? as i64),
        3 => Value::UInt(reader.word()?),
        4 => Value::Float64(f64::from_bits(reader.word()?)),
        5 => Value::Timestamp(reader.word()? as i64),
        6 | 7 => {
            let length = reader.varint()?;
            if length > SHOWN_BYTES_MAX as u64 {
                return Err(reader.corrupt("a frequent value is too long"));
            }
            let bytes = reader.take(length as usize)?.to_vec();
            if kind == 7 {
                return Ok(Value::Bytes(bytes));
            }
            Value::String(String::from_utf8(bytes).map_err(|_| reader.corrupt("a frequent value is not text"))?)
        }
        _ => return Err(reader.corrupt("a frequent value has no known type")),
    })
}
