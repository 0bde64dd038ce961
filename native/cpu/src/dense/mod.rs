//! Dense layers: multi-layer perceptrons and linear models.

mod activation;
mod kernel;
mod line;
mod mlp;
mod plain;
#[cfg(test)]
mod tests;

pub use mlp::Mlp;
pub use plain::{Activation, DenseLayer};
