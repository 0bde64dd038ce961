use std::collections::HashMap;

use crate::{Error, ErrorCode, Result};

/// Words that one vocabulary may have: XGBoost's own bound of a category's code.
pub const WORDS_MAX: usize = 16_777_216;

/// What stands for a text that has no code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unknown {
    /// A number that a model takes for it: one that no word has, or NaN where the trainer takes it for a missing value.
    Code(f64),
    /// The trainer answers with an error, so the row has no answer.
    Refused,
}

/// The codes of an input that is text: a number for each word that the model was trained on.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    words: Words,
    pub unknown: Unknown,
    /// What stands for a null.
    pub missing: Unknown,
    /// Whether a model is also given such an input as a number, which is the code then.
    pub takes_codes: bool,
}

#[derive(Debug, Clone)]
enum Words {
    /// The code of a word is its place. The map's hash has a random key: the words come from a file that nobody vouches for.
    Known { places: HashMap<Box<str>, u32>, count: usize },
    /// The file knows words by their hashes only.
    Hashed { codes: HashMap<u32, f64>, hash: fn(&str) -> u32 },
}

impl Vocabulary {
    /// The code of a word is its place in the list. By default an unknown word and a null are missing (NaN), and codes are taken.
    ///
    /// # Errors
    /// `corrupt_model` naming a word that is there twice; too many words.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut places = HashMap::new();
        for (place, word) in words.into_iter().enumerate() {
            let code = code_of(place)?;
            if let Some(first) = places.insert(Box::from(word), code) {
                let word: String = word.chars().take(40).collect();
                return Err(corrupt(format!("the category '{word}' stands at the places {first} and {place}")));
            }
        }
        let count = places.len();
        Ok(Self::new(Words::Known { places, count }))
    }

    /// The code of a word is that of its hash. By default an unknown word and a null are missing, and codes are taken.
    pub fn of_hashes(codes: HashMap<u32, f64>, hash: fn(&str) -> u32) -> Self {
        Self::new(Words::Hashed { codes, hash })
    }

    fn new(words: Words) -> Self {
        let missing = Unknown::Code(f64::NAN);
        Self { words, unknown: missing, missing, takes_codes: true }
    }

    /// What the model is given for a text; `None` where the row has no answer.
    pub fn code(&self, text: Option<&str>) -> Option<f64> {
        let found = match (text, &self.words) {
            (None, _) => return self.missing.code(),
            (Some(text), Words::Known { places, .. }) => places.get(text).map(|&place| f64::from(place)),
            (Some(text), Words::Hashed { codes, hash }) => codes.get(&hash(text)).copied(),
        };
        found.or_else(|| self.unknown.code())
    }

    /// The words in the order of their codes; `None` where the file knows only their hashes.
    pub fn words(&self) -> Option<Vec<&str>> {
        let Words::Known { places, count } = &self.words else { return None };
        let mut words = vec![""; *count];
        for (word, &place) in places {
            words[place as usize] = word;
        }
        Some(words)
    }

    /// The codes that words have, in increasing order; NaN, if a word has it, comes last.
    pub fn codes(&self) -> Vec<f64> {
        let mut codes: Vec<f64> = match &self.words {
            Words::Known { places, .. } => places.values().copied().map(f64::from).collect(),
            Words::Hashed { codes, .. } => codes.values().copied().collect(),
        };
        codes.sort_unstable_by(f64::total_cmp);
        codes
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        match &self.words {
            Words::Known { places, .. } => places.keys().map(|word| word.len() + size_of::<(Box<str>, u32)>()).sum(),
            Words::Hashed { codes, .. } => codes.len() * size_of::<(u32, f64)>(),
        }
    }
}

impl Unknown {
    fn code(self) -> Option<f64> {
        match self {
            Unknown::Code(code) => Some(code),
            Unknown::Refused => None,
        }
    }
}

fn code_of(place: usize) -> Result<u32> {
    let code = u32::try_from(place).ok().filter(|_| place < WORDS_MAX);
    code.ok_or_else(|| corrupt(format!("an input has more than {WORDS_MAX} categories")))
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorCode::CorruptModel, message, "export the model again from the library that trained it")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_word_has_the_code_of_its_place() {
        let mut vocabulary = Vocabulary::of_words(["b", "", "ü"]).unwrap();
        assert_eq!(["b", "", "ü"].map(|word| vocabulary.code(Some(word))), [Some(0.0), Some(1.0), Some(2.0)]);
        assert_eq!(vocabulary.words().unwrap(), ["b", "", "ü"]);
        assert!(vocabulary.code(Some("c")).unwrap().is_nan() && vocabulary.code(None).unwrap().is_nan());
        (vocabulary.unknown, vocabulary.missing) = (Unknown::Code(-1.0), Unknown::Refused);
        assert_eq!((vocabulary.code(Some("u\u{308}")), vocabulary.code(None)), (Some(-1.0), None));
    }

    #[test]
    fn a_word_that_is_there_twice_is_named() {
        assert!(
            Vocabulary::of_words(["a", "b", "a"]).unwrap_err().message.contains("'a' stands at the places 0 and 2")
        );
    }

    #[test]
    fn hashed_words_are_found_by_their_hash() {
        let vocabulary = Vocabulary::of_hashes(HashMap::from([(1, 7.0), (2, 5.0)]), |word| u32::from(!word.is_empty()));
        assert_eq!((vocabulary.code(Some("x")), vocabulary.codes()), (Some(7.0), vec![5.0, 7.0]));
        assert!(vocabulary.code(Some("")).unwrap().is_nan() && vocabulary.words().is_none());
    }
}
