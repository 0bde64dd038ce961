use headrace_cpu::{DenseLayer, Ensemble, Precision};

use crate::linear::Linear;
use crate::link::Link;
use crate::pipeline::Preparation;
use crate::vocabularies::Vocabularies;

/// A model as its file says it, before anything is compiled: what every loader gives, and
/// [`NativeModel::compile`](crate::NativeModel::compile) takes. The file's form was checked, the trees and layers were not.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// What is done to a row before `body` sees it; it gives as many columns as `body` takes.
    pub(crate) preparation: Option<Preparation>,
    pub(crate) body: Body,
    pub(crate) link: Link,
    /// The inputs that may be given as text.
    pub(crate) vocabularies: Vocabularies,
}

#[derive(Debug)]
pub(crate) enum Body {
    Trees(Ensemble),
    Linear(Linear),
    Network { precision: Precision, layers: Vec<DenseLayer> },
}

impl Parsed {
    pub(crate) fn new(body: Body, link: Link) -> Self {
        Self { preparation: None, body, link, vocabularies: Vocabularies::default() }
    }
}

impl Body {
    pub(crate) fn outputs_count(&self) -> usize {
        match self {
            Body::Trees(ensemble) => ensemble.outputs_count,
            Body::Linear(linear) => linear.outputs_count(),
            Body::Network { layers, .. } => layers.last().map_or(0, |layer| layer.outputs_count),
        }
    }
}
