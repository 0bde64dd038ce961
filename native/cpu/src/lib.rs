//! The parts of headrace that live close to the processor: the online row table, the tree kernel, and the
//! choice of vector instructions.
//!
//! Each fast form stands beside a plain twin, and a test shows that the two agree. The rules for `unsafe` are in
//! native/README.md.

mod dense;
mod rows;
mod table;
mod trees;
mod vectorized;

pub use dense::{Activation, DenseLayer, Mlp};
pub use rows::{Features, check_contributions_lengths, check_lengths, spread};
#[cfg(feature = "testing")]
pub use table::testing;
pub use table::{
    EncodedKeys, GatherFeature, GatherPlan, ImageLayout, ImageMapper, KEY_BYTES_MAX, KeyEncoder, KeysRef, MemoryBudget,
    OpenMode, PlainPlan, PlainTable, REGION_BYTES_MAX, ROW_BYTES_MAX, RowTable, RowValues, TableOptions, TableSchema,
    TableSnapshot, TableStats, TableWriter, UpsertOutcome, VAR_BYTES_MAX, ViewSchema, encode_var,
};
pub use trees::{
    Categories, Comparison, Ensemble, Explainer, Forest, Missing, Node, Precision, Split, Test, Tree, ZERO_THRESHOLD,
    contributions_plain,
};
pub use vectorized::{Vectorized, vectorized};
