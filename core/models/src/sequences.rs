//! Models of sequences (the task `seq2seq`): which of their tensors is the text, which are the tokens and the scores.
//!
//! The names are the convention, since nothing else of a tensor tells what it means:
//!
//! | tensor | of | datatype | shape | what it is |
//! |---|---|---|---|---|
//! | `input_text` | input | BYTES | [-1] | a text for each row |
//! | `input_tokens` | input | INT32, INT64 | [-1, n] | numbers, padded with 0 |
//! | `input_lengths` | input | INT32, INT64 | [-1] | how many tokens of a row are no padding |
//! | `input_mask` | input | INT32, INT64 | [-1, n] | 1 for a token, 0 for padding |
//! | `text`, `tokens`, `lengths` | output | as those of the input | | |
//! | `score` | output | FP32, FP64 | [-1] | of the sequence |
//! | `scores` | output | FP32, FP64 | [-1, n] | of each token |
//!
//! A model takes a text or tokens, and gives a text or tokens or both; everything else may be left out. Inputs have a prefix because no two
//! values of an ONNX graph may have one name.

use headrace_types::{Datatype, Error, Result, TensorInfo, TensorSignature};

use crate::document::unsupported;

/// Where the tensors of a model of sequences stand in its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceLayout {
    pub input: SequenceInput,
    pub text: Option<usize>,
    pub tokens: Option<usize>,
    pub lengths: Option<usize>,
    pub score: Option<usize>,
    pub scores: Option<usize>,
}

/// What such a model is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceInput {
    Text,
    Tokens {
        datatype: Datatype,
        /// Tokens that a row of the tensor has; none where that is free.
        width: Option<usize>,
        /// Its datatype.
        lengths: Option<Datatype>,
        /// Its datatype.
        mask: Option<Datatype>,
    },
}

impl SequenceInput {
    /// Whether rows may have fewer tokens than the tensor: the model is told where padding begins.
    pub fn may_pad(&self) -> bool {
        matches!(self, Self::Tokens { lengths, mask, .. } if lengths.is_some() || mask.is_some())
    }
}

/// The names of inputs.
pub const INPUT_TEXT: &str = "input_text";
pub const INPUT_TOKENS: &str = "input_tokens";
pub const INPUT_LENGTHS: &str = "input_lengths";
pub const INPUT_MASK: &str = "input_mask";

const INTEGERS: &[Datatype] = &[Datatype::Int32, Datatype::Int64];
const FLOATS: &[Datatype] = &[Datatype::Fp32, Datatype::Fp64];

/// What may have a name: its datatypes, and its dimensions.
type Role = (&'static str, &'static [Datatype], usize);

const INPUTS: &[Role] = &[
    (INPUT_TEXT, &[Datatype::Bytes], 1),
    (INPUT_TOKENS, INTEGERS, 2),
    (INPUT_LENGTHS, INTEGERS, 1),
    (INPUT_MASK, INTEGERS, 2),
];
const OUTPUTS: &[Role] = &[
    ("text", &[Datatype::Bytes], 1),
    ("tokens", INTEGERS, 2),
    ("lengths", INTEGERS, 1),
    ("score", FLOATS, 1),
    ("scores", FLOATS, 2),
];

impl SequenceLayout {
    /// # Errors
    /// `unsupported_model` naming what does not follow the convention.
    pub fn of(signature: &TensorSignature) -> Result<Self> {
        if signature.batch_max == 0 {
            return Err(refused("the model has no batch dimension, so it takes no rows"));
        }
        check("input", &signature.inputs, INPUTS)?;
        check("output", &signature.outputs, OUTPUTS)?;
        let given = |name: &str| signature.inputs.iter().find(|info| info.name == name);
        let datatype = |name: &str| given(name).map(|info| info.datatype);
        let (lengths, mask) = (datatype(INPUT_LENGTHS), datatype(INPUT_MASK));
        let input = match (given(INPUT_TEXT), given(INPUT_TOKENS)) {
            (Some(_), None) if lengths.is_none() && mask.is_none() => SequenceInput::Text,
            (None, Some(tokens)) => SequenceInput::Tokens {
                datatype: tokens.datatype,
                width: tokens.shape.get(1).and_then(|width| usize::try_from(*width).ok()),
                lengths,
                mask,
            },
            _ => return Err(refused("the model takes neither a text alone nor tokens")),
        };
        let place = |name: &str| signature.outputs.iter().position(|info| info.name == name);
        let (text, tokens) = (place("text"), place("tokens"));
        if text.is_none() && tokens.is_none() {
            return Err(refused("the model answers neither a text nor tokens"));
        }
        Ok(Self { input, text, tokens, lengths: place("lengths"), score: place("score"), scores: place("scores") })
    }
}

fn check(side: &str, infos: &[TensorInfo], roles: &[Role]) -> Result<()> {
    for TensorInfo { name, datatype, shape, .. } in infos {
        let Some((_, datatypes, dimensions)) = roles.iter().find(|(role, ..)| role == name) else {
            let known: Vec<&str> = roles.iter().map(|(role, ..)| *role).collect();
            return Err(refused(&format!("its {side} '{name}' is none of {}", known.join(", "))));
        };
        if !datatypes.contains(datatype) || shape.len() != *dimensions {
            let known: Vec<&str> = datatypes.iter().map(|datatype| datatype.name()).collect();
            let (known, counted) = (known.join(" or "), if *dimensions == 1 { "dimension" } else { "dimensions" });
            let message = format!("its {side} '{name}' is {datatype} {shape:?}, not {known} of {dimensions} {counted}");
            return Err(refused(&message));
        }
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    let hint = "name and shape its tensors as core/models/runtimes.md says, or register it with the task 'tensors'";
    unsupported(format!("no model of sequences: {what}"), hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn info(name: &str, datatype: Datatype, shape: &[i64]) -> TensorInfo {
        TensorInfo::new(name, datatype, shape)
    }

    fn layout(inputs: Vec<TensorInfo>, outputs: Vec<TensorInfo>) -> Result<SequenceLayout> {
        SequenceLayout::of(&TensorSignature { inputs, outputs, batch_max: 8 })
    }

    #[test]
    fn tensors_are_found_by_their_names() {
        let tokens = |name| info(name, Datatype::Int64, &[-1, 12]);
        let text = |name| info(name, Datatype::Bytes, &[-1]);
        let mask = info("input_mask", Datatype::Int32, &[-1, 12]);
        let found = layout(vec![mask, tokens("input_tokens")], vec![text("text"), tokens("tokens")]).unwrap();
        let mask = Some(Datatype::Int32);
        let input = SequenceInput::Tokens { datatype: Datatype::Int64, width: Some(12), lengths: None, mask };
        assert!(input.may_pad());
        assert_eq!((found.input, found.text, found.tokens, found.score), (input, Some(0), Some(1), None));
        let found = layout(vec![text("input_text")], vec![info("score", Datatype::Fp32, &[-1]), text("text")]).unwrap();
        assert_eq!((&found.input, found.input.may_pad(), found.score), (&SequenceInput::Text, false, Some(0)));
    }

    #[test]
    fn what_does_not_follow_the_names_is_refused_by_name() {
        let given = || vec![info("input_tokens", Datatype::Int64, &[-1, -1])];
        let tokens = || vec![info("tokens", Datatype::Int64, &[-1, -1])];
        let both = || [given(), vec![info("input_text", Datatype::Bytes, &[-1])]].concat();
        let floats = vec![info("input_tokens", Datatype::Fp32, &[-1, -1])];
        for (inputs, outputs, part) in [
            (vec![info("input_ids", Datatype::Int64, &[-1, -1])], tokens(), "'input_ids' is none of input_text, "),
            (given(), vec![info("logits", Datatype::Fp32, &[-1, -1, 5])], "'logits' is none of text, tokens"),
            (floats, tokens(), "'input_tokens' is FP32 [-1, -1], not INT32 or INT64 of 2 dimensions"),
            (vec![info("input_text", Datatype::Bytes, &[-1, 1])], tokens(), "of 1 dimension"),
            (both(), tokens(), "neither a text alone nor tokens"),
            (given(), vec![info("score", Datatype::Fp32, &[-1])], "neither a text nor tokens"),
        ] {
            let error = layout(inputs, outputs).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
        let signature = TensorSignature { inputs: given(), outputs: tokens(), batch_max: 0 };
        assert!(SequenceLayout::of(&signature).unwrap_err().message.contains("no batch"));
    }
}
