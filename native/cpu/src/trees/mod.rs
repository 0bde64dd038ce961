//! Ensembles of decision trees: the plain form that a loader fills and a reader can follow, and the form that runs
//! fast.
//!
//! [`Ensemble`] is the meaning: nodes, tests and leaves as the trainer wrote them, evaluated one node at a time
//! ([`Ensemble::margins`], the plain twin). [`Forest`] is the same function compiled for speed, bit for bit:
//!
//! 1. **Quantize.** A feature is only ever compared with the thresholds that the trees hold, so its place among those
//!    thresholds (a *bin*, mostly one byte) says all that any node asks. Each row is turned into bins once. Rounding,
//!    missing values, zero-as-missing and categories are settled here and cost the trees nothing: a feature gets one
//!    *slot* for each way in which nodes treat its missing values, and the slot holds a bin that sends such a row to
//!    the right side.
//! 2. **Find the leaves.** A node is then two small integers, `slot` and `bin`.
//!    - One row **walks** eight trees at a time, a step being `child = left + (bins[slot] > bin)` without a branch. Shallow
//!      trees are padded to perfect ones (children are computed, a node is two bytes); others keep a link to their children.
//!    - Many rows **sweep** trees of up to 256 leaves: every node is asked for 64 rows at once, by vector instructions.
//!    - Larger trees are walked by eight rows at a time.
//!    - A row of so many features that to quantize it would take longer than to walk is walked **direct**, without bins.
//! 3. **Sum** in the order of the trees, in the trainer's precision, so that margins carry the trainer's own bits.
//!
//! Which of them takes how many rows is a *plan* (`plan.rs`), made from what each costs for this forest on this processor: they
//! are measured when the forest is compiled, for 30 ms at most.

mod direct;
mod ensemble;
mod explain;
mod forest;
mod layout;
mod leaves;
mod number;
mod plan;
mod quantize;
mod search;
mod sweep;
mod sweep_perfect;
#[cfg(test)]
mod tests;
mod walk;

pub use ensemble::{Categories, Comparison, Ensemble, Missing, Node, Precision, Split, Test, Tree, ZERO_THRESHOLD};
pub use explain::{Explainer, contributions_plain};
pub use forest::Forest;
pub(crate) use number::round_to;
