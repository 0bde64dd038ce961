//! A pipeline: what is done to a row, and the estimator that judges it; scikit-learn's models come in this form.
//!
//! The file is a safetensors file. `headrace.pipeline` in its `__metadata__` holds a JSON description (columns and their
//! operations, the kind of estimator, the link); tensors hold the numbers of the estimator. The README of this crate
//! tells the layout.

mod estimator;
mod preparation;
mod tensors;

use headrace_types::{Error, ErrorCode, Result, Unknown, Vocabulary};
use serde::Deserialize;

use self::estimator::Estimator;
pub(crate) use self::preparation::Preparation;
use self::preparation::Stage;
use self::tensors::Tensors;
use crate::document::corrupt;
use crate::link::{Link, LinkKind};
use crate::parsed::Parsed;

/// The last format that this version reads: 2 adds categories of inputs. What has none is written as format 1.
const FORMAT_MAX: u32 = 2;

/// What stands for a text that is no category.
const UNKNOWN_CODE: f64 = -1.0;

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
    /// Of an input of text: its categories, whose places are the codes that the stages know.
    #[serde(default)]
    categories: Option<Vec<String>>,
    #[serde(default)]
    unknown: DescribedUnknown,
    #[serde(default)]
    missing: DescribedMissing,
}

/// What a text becomes that is no category.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DescribedUnknown {
    /// A code that no category has.
    #[default]
    Code,
    /// The row has no answer.
    Error,
}

/// What a null becomes.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DescribedMissing {
    #[default]
    Nan,
    /// The row has no answer.
    Error,
}

impl Input {
    /// # Errors
    /// `corrupt_model` when a category is there twice.
    fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        let Some(categories) = &self.categories else { return Ok(None) };
        let mut vocabulary = Vocabulary::of_words(categories.iter().map(String::as_str))?;
        vocabulary.takes_codes = false;
        vocabulary.unknown = match self.unknown {
            DescribedUnknown::Code => Unknown::Code(UNKNOWN_CODE),
            DescribedUnknown::Error => Unknown::Refused,
        };
        if matches!(self.missing, DescribedMissing::Error) {
            vocabulary.missing = Unknown::Refused;
        }
        Ok(Some(vocabulary))
    }
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
    if format == 0 || format > FORMAT_MAX {
        return Err(Error::new(
            ErrorCode::NewerFormat,
            format!("the pipeline has format {format}, this headrace reads formats 1 to {FORMAT_MAX}"),
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
    let inputs = description.inputs.iter().enumerate();
    let vocabularies = inputs.filter_map(|(index, input)| {
        let vocabulary = input.vocabulary().map(|found| found.map(|vocabulary| (index, vocabulary)));
        vocabulary.map_err(|error| error.within(format!("input {index}"))).transpose()
    });
    let vocabularies = vocabularies.collect::<Result<_>>()?;
    Ok(Parsed { preparation: Some(preparation), vocabularies, ..parsed })
}
