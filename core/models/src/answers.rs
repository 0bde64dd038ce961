//! What the numbers of a model that is run by somebody else mean.

use headrace_cpu::Precision;
use headrace_types::{Objective, Task};
use serde::{Deserialize, Serialize};

use crate::link::{Link, LinkKind};

/// How the outputs of an ONNX model or a Python class are to be read; in the manifest's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answers {
    /// The answer itself. Of a classifier: a decision value, above zero for the class.
    Value,
    /// The probability of each class or label; one column is that of the second of two classes.
    Probability,
    /// Numbers that a logistic function, or a softmax over several classes, turns into probabilities.
    Logit,
}

impl Answers {
    pub(crate) fn of_task(task: Task) -> Self {
        match task {
            Task::Classification | Task::MultiLabel => Answers::Probability,
            Task::Regression | Task::Ranking | Task::Seq2seq | Task::Tensors => Answers::Value,
        }
    }

    /// What turns outputs into scores, and the objective that says so.
    pub(crate) fn link(self, task: Task, outputs_count: usize) -> (Link, Objective) {
        let is_softmax = outputs_count > 1 && task != Task::MultiLabel;
        let (applied, objective) = match (self, is_softmax) {
            (Answers::Value, _) => (LinkKind::Identity, Objective::Identity),
            (Answers::Probability, true) => (LinkKind::Identity, Objective::Softmax),
            (Answers::Probability, false) => (LinkKind::Identity, Objective::Logistic),
            (Answers::Logit, true) => (LinkKind::Softmax, Objective::Softmax),
            (Answers::Logit, false) => (LinkKind::Logistic { scale: 1.0 }, Objective::Logistic),
        };
        (Link::new(applied, Precision::Float64), objective)
    }
}
