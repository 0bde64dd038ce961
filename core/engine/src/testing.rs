//! Small models for the tests of this crate and of those above it.

use std::sync::{Arc, Mutex, PoisonError};

use headrace_types::{DType, Error, ErrorCode, Field, Model, Objective, Result, Task, Vocabulary};

use crate::deployment::ModelSpec;

/// Margin = the sum of a row's features that are not NaN.
#[derive(Debug)]
pub struct SumModel {
    features_count: usize,
    objective: Objective,
    /// Of the first feature, if it is text.
    vocabulary: Option<Vocabulary>,
}

impl SumModel {
    pub fn logistic(features_count: usize) -> Self {
        Self { features_count, objective: Objective::Logistic, vocabulary: None }
    }

    pub fn identity(features_count: usize) -> Self {
        Self { features_count, objective: Objective::Identity, vocabulary: None }
    }

    /// The first feature is text.
    #[must_use]
    pub fn of_text(self, vocabulary: Vocabulary) -> Self {
        Self { vocabulary: Some(vocabulary), ..self }
    }
}

impl Model for SumModel {
    fn features_count(&self) -> usize {
        self.features_count
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        self.objective
    }

    fn vocabulary(&self, input: usize) -> Option<&Vocabulary> {
        self.vocabulary.as_ref().filter(|_| input == 0)
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        if features.len() != rows * self.features_count || margins.len() != rows {
            return Err(Error::new(ErrorCode::LengthMismatch, "slices of the wrong length", ""));
        }
        for (row, margin) in features.chunks_exact(self.features_count).zip(margins) {
            *margin = row.iter().filter(|feature| !feature.is_nan()).sum();
        }
        Ok(())
    }

    fn scores(&self, margins: &mut [f64]) {
        if self.objective == Objective::Logistic {
            for margin in margins {
                *margin = 1.0 / (1.0 + (-*margin).exp());
            }
        }
    }

    fn check_explainable(&self) -> Result<()> {
        Ok(())
    }

    fn contributions(&self, features: &[f64], rows: usize, contributions: &mut [f64]) -> Result<()> {
        let width = self.features_count;
        assert_eq!((features.len(), contributions.len()), (rows * width, rows * (width + 1)));
        for (row, out) in features.chunks_exact(width).zip(contributions.chunks_exact_mut(width + 1)) {
            out.fill(0.0);
            for (out, feature) in out.iter_mut().zip(row).filter(|(_, feature)| !feature.is_nan()) {
                *out = *feature;
            }
        }
        Ok(())
    }
}

/// Panics on every row: what a defect in a model must not do to the others.
#[derive(Debug)]
pub struct PanickingModel;

impl Model for PanickingModel {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn margins(&self, _features: &[f64], _rows: usize, _margins: &mut [f64]) -> Result<()> {
        panic!("the test model panics")
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

/// Answers when the gate is free: a test that holds it decides how long a request computes.
#[derive(Debug, Default)]
pub struct GatedModel {
    pub gate: Arc<Mutex<()>>,
}

impl Model for GatedModel {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn margins(&self, _features: &[f64], _rows: usize, _margins: &mut [f64]) -> Result<()> {
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

/// A binary classifier of the named float features, without a feature service.
pub fn sum_classifier(name: &str, version: u32, features: &[&str]) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        version,
        task: Task::Classification,
        labels: vec!["on_time".to_owned(), "late".to_owned()],
        service: None,
        features: features.iter().map(|name| Field::new(*name, DType::FLOAT64)).collect(),
        join_keys: Vec::new(),
        request_fields: Vec::new(),
        platform: "headrace_test".to_owned(),
        model: SumModel::logistic(features.len()).into(),
    }
}

/// A regressor of the named float features, without a feature service.
pub fn sum_regressor(name: &str, version: u32, features: &[&str]) -> ModelSpec {
    ModelSpec {
        task: Task::Regression,
        labels: Vec::new(),
        model: SumModel::identity(features.len()).into(),
        ..sum_classifier(name, version, features)
    }
}
