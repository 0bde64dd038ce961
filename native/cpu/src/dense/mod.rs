//! Dense layers: multi-layer perceptrons and linear models.

mod mlp;
mod plain;

pub use mlp::Mlp;
pub use plain::{Activation, DenseLayer};
