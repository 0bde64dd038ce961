//! What can be granted: an action on the resources that a pattern names.

use headrace_types::{Error, ErrorCode, Result};

/// Bytes of a scope.
const SCOPE_BYTES_MAX: usize = 256;

/// What a request does. Health is no action: everybody may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Of a model.
    Predict,
    /// Of a feature service.
    ReadFeatures,
    /// Pushes and deletions of a feature view.
    WriteFeatures,
    /// Loads and unloads a model, or changes settings.
    ManageModels,
    /// What is served, how it is made and how it fares.
    ReadMetadata,
}

impl Action {
    pub(crate) const ALL: [Action; 5] =
        [Action::Predict, Action::ReadFeatures, Action::WriteFeatures, Action::ManageModels, Action::ReadMetadata];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Predict => "predict",
            Action::ReadFeatures => "read_features",
            Action::WriteFeatures => "write_features",
            Action::ManageModels => "manage_models",
            Action::ReadMetadata => "read_metadata",
        }
    }

    /// Whether it leaves something changed, so that a grant is worth a row of the audit.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Action::WriteFeatures | Action::ManageModels)
    }
}

/// `predict:fraud`, `read_features:*`, `*:*`. What concerns the whole server has an empty name, which only `*` matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// None for every action.
    action: Option<Action>,
    pattern: String,
}

impl Scope {
    /// # Errors
    /// `invalid_argument` for what is no scope.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let names = Action::ALL.map(Action::name).join(", ");
            let message = format!("scope '{}': {what}", text.chars().take(80).collect::<String>());
            Error::new(
                ErrorCode::InvalidArgument,
                message,
                format!("write ACTION:NAME; actions: {names}, *; * in a name is any text"),
            )
        };
        if text.len() > SCOPE_BYTES_MAX {
            return Err(wrong("too long"));
        }
        let (action, pattern) = text.split_once(':').ok_or_else(|| wrong("no ':'"))?;
        if pattern.is_empty() {
            return Err(wrong("names nothing"));
        }
        let action = match action {
            "*" => None,
            name => Some(
                Action::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| wrong("no such action"))?,
            ),
        };
        Ok(Self { action, pattern: pattern.to_owned() })
    }

    pub(crate) fn grants(&self, action: Action, resource: &str) -> bool {
        self.action.is_none_or(|own| own == action) && matches(self.pattern.as_bytes(), resource.as_bytes())
    }
}

/// Whether a text fits a pattern in which `*` is any text, an empty one too. Never more than the product of both lengths.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last `*` stands, and up to where it has swallowed the text.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
        } else if pattern.get(at) == Some(&text[read]) {
            (at, read) = (at + 1, read + 1);
        } else if let Some((place, swallowed)) = star {
            star = Some((place, swallowed + 1));
            (at, read) = (place + 1, swallowed + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}
