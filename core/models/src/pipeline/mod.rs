//! A pipeline: what is done to a row, and the estimator that judges it; scikit-learn's models come in this form.
//!
//! The file is a safetensors file. `headrace.pipeline` in its `__metadata__` holds a JSON description (columns and their
//! operations, the kind of estimator, the link); tensors hold the numbers of the estimator. The README of this crate
//! tells the layout.

mod estimator;
mod preparation;
mod tensors;

use headrace_types::{Error, ErrorCode, Result};
use serde::Deserialize;

use self::estimator::Estimator;
pub(crate) use self::preparation::Preparation;
use self::preparation::Stage;
use self::tensors::Tensors;
use crate::document::corrupt;
use crate::link::{Link, LinkKind};
use crate::parsed::Parsed;

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[allow(dead_code)] // read before the rest, so that a later format is told from a broken file
    format: u32,
    inputs: Vec<Input>,
    #[serde(default)]
    stages: Vec<Stage>,
    estimator: Estimator,
    link: DescribedLink,
}

/// A feature of the model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[allow(dead_code)] // for a reader of the file: the model's features are told by its signature
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum DescribedLink {
    Identity,
    Probability,
    Logistic { scale: f64 },
    OneAgainstRest,
    ModifiedHuber,
    Softmax,
    Exponential,
}

impl DescribedLink {
    fn kind(self) -> LinkKind {
        match self {
            DescribedLink::Identity => LinkKind::Identity,
            DescribedLink::Probability => LinkKind::Probability,
            DescribedLink::Logistic { scale } => LinkKind::Logistic { scale },
            DescribedLink::OneAgainstRest => LinkKind::OneAgainstRest,
            DescribedLink::ModifiedHuber => LinkKind::ModifiedHuber,
            DescribedLink::Softmax => LinkKind::Softmax,
            DescribedLink::Exponential => LinkKind::Exponential,
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed> {
    let tensors = Tensors::read(bytes)?;
    let wrong = |error: serde_json::Error| corrupt(format!("its description: {error}"));
    let format = serde_json::from_str::<FormatOnly>(&tensors.description).map_err(wrong)?.format;
    if format != FORMAT {
        return Err(Error::new(
            ErrorCode::NewerFormat,
            format!("the pipeline has format {format}, this headrace reads format {FORMAT}"),
            "upgrade headrace, or export the model with this version",
        ));
    }
    let description: Description = serde_json::from_str(&tensors.description).map_err(wrong)?;
    let preparation = Preparation::new(description.inputs.len(), description.stages)?;
    let columns_count = preparation.outputs_count();
    let link = Link::new(description.link.kind(), description.estimator.precision());
    let parsed = description.estimator.parse(&tensors, columns_count, link)?;
    let outputs_count = parsed.body.outputs_count();
    if matches!(description.link, DescribedLink::Probability) && outputs_count != 1 {
        return Err(corrupt(format!("the link 'probability' has one output, there are {outputs_count}")));
    }
    Ok(Parsed { preparation: Some(preparation), ..parsed })
}
