//! The vocabularies of a model's inputs.

use std::collections::BTreeMap;

use headrace_types::{Result, Vocabulary};

use crate::document::corrupt;

/// The codes of the inputs that may be given as text, by input; none of a model that takes numbers only.
#[derive(Debug, Default)]
pub(crate) struct Vocabularies(BTreeMap<usize, Vocabulary>);

impl Vocabularies {
    pub(crate) fn of(&self, input: usize) -> Option<&Vocabulary> {
        self.0.get(&input)
    }

    /// The inputs that may be given as text.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = usize> {
        self.0.keys().copied()
    }

    /// # Errors
    /// `corrupt_model` when there is no such input.
    pub(crate) fn check(&self, inputs_count: usize) -> Result<()> {
        match self.0.last_key_value() {
            Some((input, _)) if *input >= inputs_count => {
                Err(corrupt(format!("it has categories of input {input}, there are {inputs_count}")))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(Vocabulary::bytes).sum()
    }
}

impl FromIterator<(usize, Vocabulary)> for Vocabularies {
    fn from_iter<I: IntoIterator<Item = (usize, Vocabulary)>>(vocabularies: I) -> Self {
        Self(vocabularies.into_iter().collect())
    }
}
