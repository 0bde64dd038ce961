//! Windowed aggregates: functions over a key's events of the last hour, week or month.
//!
//! A view with aggregations keeps no rows but partial aggregates. Each function is a [`partial`] that takes in events and merges with others
//! of its kind. From history, a window slides over a key's sorted events ([`history`], [`sliding`]). Online, events go to tiles as long as the
//! hop ([`tiles`]), and a lookup merges the tiles of each window ([`table`]). Both use the same partials, so they agree: what is kept exactly
//! agrees bit for bit, sums of floats to a few units in the last place.
//!
//! The meaning is specified in `tests/spec/reference_windows.py`.

mod columns;
mod definition;
mod events;
mod groups;
mod history;
mod key_state;
mod partial;
mod remembered;
mod sketches;
mod sliding;
mod sums;
mod table;
mod tiles;

pub(crate) use definition::WindowPlan;
pub use definition::{GROUPS_MAX, HOPS_PER_WINDOW_MAX, LAST_K_MAX, WINDOW_US_MAX, WindowKind};
pub(crate) use events::Events;
pub(crate) use history::{Answers, History, Question, Reading};
pub(crate) use sliding::Timeline;
pub use table::WindowStats;
pub(crate) use table::{FrozenWindows, Incoming, Outcome, WindowTable};
