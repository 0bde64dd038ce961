//! How a native model explains itself, without holding what nobody asks for.
//!
//! An explainer takes one to five times the memory of the trees that predict, and as long to compile. A model of a folder therefore has
//! none: whether it can be explained is checked when it is loaded, and the first explanation reads the folder's file again. A model that
//! came as bytes has no file. It makes its explainer at once, which takes about a quarter of the memory of the trees that it is compiled
//! of.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use headrace_cpu::{Ensemble, Explainer};
use headrace_types::{Error, ErrorCode, Result, digest_bytes};

use crate::format::{MODEL_BYTES_MAX, ModelFormat, parse};
use crate::parsed::Body;

#[derive(Debug)]
pub(crate) enum Explained {
    /// A weight times its feature.
    Linear,
    Trees(Explainer),
    /// Trees whose explainer is compiled at the first explanation.
    TreesOf {
        file: ExplainerFile,
        explainer: OnceLock<Explainer>,
        /// Held while the file is read: the first explanations may come together.
        reading: Mutex<()>,
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
    /// Of trees that were in `file`, if they can be read again.
    pub(crate) fn trees(ensemble: &Ensemble, file: Option<ExplainerFile>) -> Self {
        let explained = match file {
            None => Explainer::new(ensemble).map(Explained::Trees),
            Some(file) => Explainer::check(ensemble).map(|()| Explained::TreesOf {
                file,
                explainer: OnceLock::new(),
                reading: Mutex::new(()),
            }),
        };
        explained.unwrap_or_else(Explained::Not)
    }

    pub(crate) fn moved_to(&mut self, path: PathBuf) {
        if let Explained::TreesOf { file, .. } = self {
            file.path = path;
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
            Explained::TreesOf { file, explainer, reading } => {
                if let Some(explainer) = explainer.get() {
                    return Ok(explainer);
                }
                let _reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut bytes = Vec::new();
        // A file that has grown beyond what is read of any model has another digest, too.
        let read = File::open(&self.path).and_then(|file| file.take(MODEL_BYTES_MAX).read_to_end(&mut bytes));
        read.map_err(|error| {
            let message = format!("{}, which explanations are made of, cannot be read: {error}", place());
            Error::new(ErrorCode::Unavailable, message, "put the version's folder back, or load the model again")
        })?;
        if digest_bytes(&bytes) != self.digest {
            let message = format!("{} was changed since the model was loaded", place());
            return Err(Error::new(ErrorCode::CorruptModel, message, "load the model again"));
        }
        match parse(self.format, &bytes)?.body {
            Body::Trees(ensemble) => Explainer::new(&ensemble),
            Body::Linear(_) | Body::Network { .. } => {
                Err(Error::internal("a model of trees was read again and has none"))
            }
        }
    }
}
