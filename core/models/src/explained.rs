//! How a native model explains itself, without holding what nobody asks for.
//!
//! An explainer takes several times the memory of the trees that predict. A model of a version's folder therefore gives it up when it has
//! been compiled once (so that a model which cannot be explained is known at once), and compiles it of the folder's file again at
//! the first explanation. A model that came as bytes has no file, and keeps it.

use std::path::PathBuf;
use std::sync::OnceLock;

use headrace_cpu::{Ensemble, Explainer};
use headrace_types::{Error, ErrorCode, Result, digest_bytes};

use crate::format::{ModelFormat, load_model};

#[derive(Debug)]
pub(crate) enum Explained {
    /// A weight times its feature.
    Linear,
    Trees(Explainer),
    /// Trees whose explainer is compiled at the first explanation.
    TreesOf {
        file: ExplainerFile,
        explainer: OnceLock<Explainer>,
    },
    Not(Error),
}

/// Where a model came from.
#[derive(Debug)]
pub(crate) struct ExplainerFile {
    pub(crate) path: PathBuf,
    pub(crate) format: ModelFormat,
    pub(crate) digest: String,
}

impl Explained {
    pub(crate) fn trees(ensemble: &Ensemble) -> Self {
        Explainer::new(ensemble).map_or_else(Explained::Not, Explained::Trees)
    }

    pub(crate) fn keep_in(&mut self, file: ExplainerFile) {
        if matches!(self, Explained::Trees(_) | Explained::TreesOf { .. }) {
            *self = Explained::TreesOf { file, explainer: OnceLock::new() };
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Explained::Not(error) => Err(error.clone()),
            Explained::Linear | Explained::Trees(_) | Explained::TreesOf { .. } => Ok(()),
        }
    }

    /// # Errors
    /// What keeps the model from being explained; `unavailable` or `corrupt_model` when its file is gone or was changed.
    pub(crate) fn explainer(&self) -> Result<&Explainer> {
        match self {
            Explained::Trees(explainer) => Ok(explainer),
            Explained::TreesOf { file, explainer } => {
                if let Some(explainer) = explainer.get() {
                    return Ok(explainer);
                }
                // A failure is not kept: the file may be back at the next explanation.
                let read = file.read()?;
                Ok(explainer.get_or_init(|| read))
            }
            Explained::Not(error) => Err(error.clone()),
            Explained::Linear => Err(Error::internal("a linear model has no explainer of trees")),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Explained::Trees(explainer) => explainer.bytes(),
            Explained::TreesOf { explainer, .. } => explainer.get().map_or(0, Explainer::bytes),
            Explained::Linear | Explained::Not(_) => 0,
        }
    }
}

impl ExplainerFile {
    fn read(&self) -> Result<Explainer> {
        let place = || format!("model file '{}'", self.path.display());
        let bytes = std::fs::read(&self.path).map_err(|error| {
            let message = format!("{}, which explanations are made of, cannot be read: {error}", place());
            Error::new(ErrorCode::Unavailable, message, "put the version's folder back, or load the model again")
        })?;
        if digest_bytes(&bytes) != self.digest {
            let message = format!("{} was changed since the model was loaded", place());
            return Err(Error::new(ErrorCode::CorruptModel, message, "load the model again"));
        }
        match load_model(self.format, &bytes)?.into_explained() {
            Explained::Trees(explainer) => Ok(explainer),
            other => {
                other.check()?;
                Err(Error::internal("a model of trees was read again and has none"))
            }
        }
    }
}
