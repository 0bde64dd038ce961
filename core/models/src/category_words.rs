use headrace_types::Result;

use crate::document::unsupported;

/// Words of 32 categories that all sets of a model may take together (256 MiB would be the bits of all 2^31 codes).
const WORDS_MAX: usize = 1 << 22;

/// Counts the words of all category sets of a model: a few bytes of input can name a large code, or one set many times.
#[derive(Debug, Default)]
pub(crate) struct CategoryWords {
    taken: usize,
}

impl CategoryWords {
    /// To be asked before a set of so many words is made.
    ///
    /// # Errors
    /// `unsupported_model` when there are too many.
    pub(crate) fn take(&mut self, words: usize) -> Result<()> {
        self.taken = self.taken.saturating_add(words);
        if self.taken > WORDS_MAX {
            return Err(unsupported(
                format!("its category sets take more than {WORDS_MAX} words"),
                "number the categories from zero without gaps",
            ));
        }
        Ok(())
    }
}
