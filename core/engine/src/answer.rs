//! From a model's margins to what its task answers: scores for every class, and the chosen label.

use headrace_types::{Error, ErrorCode, Model, Objective, Result, Task};

use crate::response::NO_LABEL;

/// A probability above this chooses the positive class, and in multi-label a label; exactly half does not.
const PROBABILITY_THRESHOLD: f64 = 0.5;

/// How one model's margins become scores; fixed when the model is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// One margin: the score of the second of two classes; the first gets the rest.
    Binary { probability: bool },
    /// One margin a class; the largest score is the label.
    MultiClass,
    /// One margin a label, each by itself.
    MultiLabel { probability: bool },
    /// One margin: the value.
    Value,
    /// A model of tensors has no margins.
    Tensors,
}

impl AnswerKind {
    /// # Errors
    /// `unsupported_model` when the task, the number of labels and the model's outputs do not fit each other.
    pub(crate) fn of(task: Task, labels_count: usize, model: &dyn Model) -> Result<Self> {
        let probability = model.objective() == Objective::Logistic;
        let outputs = model.outputs_count();
        let refuse = |message: String, hint: &str| Err(Error::new(ErrorCode::UnsupportedModel, message, hint));
        match task {
            Task::Classification if labels_count == 2 && outputs == 1 => Ok(AnswerKind::Binary { probability }),
            Task::Classification if labels_count >= 2 && outputs == labels_count => Ok(AnswerKind::MultiClass),
            Task::MultiLabel if labels_count >= 1 && outputs == labels_count => {
                Ok(AnswerKind::MultiLabel { probability })
            }
            Task::Classification | Task::MultiLabel => refuse(
                format!("a model with {outputs} outputs cannot tell {labels_count} labels apart"),
                "list one label for each class in the manifest's labels",
            ),
            Task::Regression | Task::Ranking if outputs == 1 => Ok(AnswerKind::Value),
            Task::Regression | Task::Ranking => {
                refuse(format!("a model of this task has one output, this one has {outputs}"), "export one target")
            }
            Task::Seq2seq | Task::Tensors => {
                refuse("a model of rows does not answer this task".into(), "use a task of tabular models")
            }
        }
    }

    /// Scores a row has, given `margins` a row.
    pub(crate) fn scores_count(self, margins_count: usize) -> usize {
        if matches!(self, AnswerKind::Binary { .. }) { 2 } else { margins_count }
    }

    /// Turns margins (already passed through the model's objective) into scores.
    pub(crate) fn fill_scores(self, transformed: &[f64], scores: &mut Vec<f64>) {
        scores.clear();
        match self {
            AnswerKind::Binary { probability } => {
                for &positive in transformed {
                    let negative = if probability { 1.0 - positive } else { -positive };
                    scores.extend([negative, positive]);
                }
            }
            _ => scores.extend_from_slice(transformed),
        }
    }

    /// The chosen class of a row; `NO_LABEL` where the task has none.
    pub(crate) fn label_of(self, scores: &[f64]) -> u32 {
        match self {
            AnswerKind::Binary { probability } => {
                let threshold = if probability { PROBABILITY_THRESHOLD } else { 0.0 };
                u32::from(scores[1] > threshold)
            }
            AnswerKind::MultiClass => {
                let best =
                    (1..scores.len()).fold(0, |best, class| if scores[class] > scores[best] { class } else { best });
                u32::try_from(best).unwrap_or(NO_LABEL)
            }
            AnswerKind::MultiLabel { .. } | AnswerKind::Value | AnswerKind::Tensors => NO_LABEL,
        }
    }

    /// Whether a multi-label score chooses its label.
    pub(crate) fn chooses(self, score: f64) -> bool {
        score > if self == (AnswerKind::MultiLabel { probability: true }) { PROBABILITY_THRESHOLD } else { 0.0 }
    }
}

/// A model that cannot work with missing values (a linear one) answers NaN; that is no answer.
///
/// A score beyond the range of float64 (an exponential link, a huge feature) is none either, and no protocol's JSON can say it.
pub(crate) fn no_score(row: usize, is_nan: bool) -> Error {
    let (what, hint) = if is_nan {
        ("not a number", "this model needs every feature: look for one that is missing, or give it in 'features'")
    } else {
        ("infinite", "look for a feature that is infinite or far out of the range of the training data")
    };
    Error::new(ErrorCode::InvalidArgument, format!("row {row}: the model's score is {what}"), hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::SumModel;

    #[test]
    fn binary_scores_sum_to_one_and_half_is_negative() {
        let kind = AnswerKind::of(Task::Classification, 2, &SumModel::logistic(1)).unwrap();
        let mut scores = Vec::new();
        kind.fill_scores(&[0.75, 0.5], &mut scores);
        assert_eq!(scores, [0.25, 0.75, 0.5, 0.5]);
        assert_eq!((kind.label_of(&scores[..2]), kind.label_of(&scores[2..])), (1, 0));
        let margin_kind = AnswerKind::of(Task::Classification, 2, &SumModel::identity(1)).unwrap();
        margin_kind.fill_scores(&[-0.5], &mut scores);
        assert_eq!((scores.clone(), margin_kind.label_of(&scores)), (vec![0.5, -0.5], 0));
    }

    #[test]
    fn the_largest_score_wins_and_the_first_of_equals() {
        let kind = AnswerKind::MultiClass;
        assert_eq!(kind.label_of(&[0.1, 0.7, 0.2]), 1);
        assert_eq!(kind.label_of(&[0.4, 0.2, 0.4]), 0);
    }

    #[test]
    fn labels_that_do_not_fit_the_model_are_refused() {
        for (task, labels) in
            [(Task::Classification, 3), (Task::Classification, 1), (Task::MultiLabel, 2), (Task::Seq2seq, 0)]
        {
            let error = AnswerKind::of(task, labels, &SumModel::logistic(1)).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedModel, "{task:?} {labels}");
        }
    }
}
