//! A partial for each value of a secondary key: sums of a user by offer.
//!
//! Of more groups than the limit, the smallest are kept. A group that is among the smallest of a window is so in each of its tiles, so what
//! is kept is complete and does not depend on the order of the events; of the newest groups that could not be said.

use std::cmp::Ordering;

use headrace_types::{ScalarType, Value};
use serde::{Deserialize, Serialize};

use super::partial::{Kept, Moment, Output, Partial, Scalar, State};

/// The partials of some groups, by group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Groups {
    limit: usize,
    state: State,
    groups: Vec<(Kept, Partial)>,
    /// What the groups take beside their places, as far as events were added one by one.
    #[serde(skip)]
    grown_bytes: usize,
}

impl Groups {
    pub(super) fn new(limit: usize, state: State) -> Self {
        Self { limit, state, groups: Vec::new(), grown_bytes: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.grown_bytes = 0;
    }

    /// Whether what was read from a file can be of these.
    pub(super) fn is_of(&self, limit: usize, state: State) -> bool {
        self.limit == limit
            && self.state == state
            && self.groups.len() <= limit
            && self.groups.is_sorted_by(|(a, _), (b, _)| a.lend().order(b.lend()) == Ordering::Less)
            && self.groups.iter().all(|(_, partial)| partial.is_of_state(state))
    }

    /// False where the group is not kept, or has taken the place of another.
    pub(super) fn add(&mut self, group: Scalar<'_>, value: Scalar<'_>, moment: Moment) -> bool {
        let place = self.groups.binary_search_by(|(known, _)| known.lend().order(group));
        let at = match place {
            Ok(at) => at,
            Err(at) if at >= self.limit => return false,
            Err(at) => {
                self.grown_bytes += group.heap_bytes();
                self.groups.insert(at, (group.keep(), Partial::of_state(self.state)));
                at
            }
        };
        let partial = &mut self.groups[at].1;
        let before = partial.grown_bytes();
        partial.add(value, moment);
        self.grown_bytes = (self.grown_bytes + partial.grown_bytes()).saturating_sub(before);
        if self.groups.len() <= self.limit {
            return true;
        }
        if let Some(gone) = self.groups.pop() {
            self.grown_bytes = self.grown_bytes.saturating_sub(bytes_of(&gone));
        }
        false
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let mut at = 0;
        for (group, partial) in &other.groups {
            while self.groups.get(at).is_some_and(|(known, _)| known.lend().order(group.lend()) == Ordering::Less) {
                at += 1;
            }
            if at >= self.limit {
                break;
            }
            match self.groups.get_mut(at) {
                Some((known, mine)) if known == group => mine.merge(partial),
                _ => self.groups.insert(at, (group.clone(), partial.clone())),
            }
        }
        self.groups.truncate(self.limit);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.grown_bytes + self.groups.capacity() * size_of::<(Kept, Partial)>()
    }

    /// Reckons the bytes of what was read from a file.
    pub(super) fn measure(&mut self) {
        self.grown_bytes = self.groups.iter().map(bytes_of).sum();
    }

    /// A list: the groups, or what a function gives of each, in the order of the groups.
    pub(super) fn finish(&self, output: Output, scalar: ScalarType) -> Value {
        let value = |(group, partial): &(Kept, Partial)| match output {
            Output::Groups => group.as_value(scalar),
            output => partial.finish(output, scalar),
        };
        Value::List(self.groups.iter().map(value).collect())
    }
}

fn bytes_of((group, partial): &(Kept, Partial)) -> usize {
    group.lend().heap_bytes() + partial.grown_bytes()
}
