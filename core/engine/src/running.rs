//! From found features to an answer: the model is called on this thread, or from its queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_types::{Clock, Error, Result};
use tokio::sync::oneshot;

use crate::answer::no_score;
use crate::batching::{Answered, Ask};
use crate::deployment::Deployment;
use crate::request::{Explain, Outputs, PredictRequest, RowErrors};
use crate::response::{NO_LABEL, PredictResponse, Timing};
use crate::scratch::{Matrix, Scratch};

/// What [`Engine::submit`](crate::Engine::submit) made of a request.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is returned")]
pub enum Submitted {
    Answered(PredictResponse),
    Waiting(Waiting),
}

/// A request in its model's queue. Dropping it takes the request out.
#[derive(Debug)]
pub struct Waiting {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) queued: Queued,
}

impl Waiting {
    /// The answer, when it is there.
    ///
    /// # Errors
    /// As [`Engine::predict`](crate::Engine::predict).
    pub async fn answer(self) -> Result<PredictResponse> {
        let Self { deployment, queued: Queued { answer, started, outputs } } = self;
        let answered = answer.await.unwrap_or_else(|_| Err(lost()));
        started.finish(&deployment, outputs, answered)
    }

    /// As [`answer`](Self::answer), on this thread, which waits.
    ///
    /// # Errors
    /// As [`Engine::predict`](crate::Engine::predict).
    pub fn wait(self) -> Result<PredictResponse> {
        self.queued.wait(&self.deployment)
    }
}

/// A request whose features are found.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) scratch: Scratch,
    pub(crate) timing: Timing,
    pub(crate) arrived: Instant,
    pub(crate) decoded_in: Duration,
    pub(crate) rows: usize,
    pub(crate) id: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A request whose rows are in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    answer: oneshot::Receiver<Result<Answered>>,
    started: Started,
    outputs: Outputs,
}

impl Queued {
    pub(crate) fn wait(self, deployment: &Deployment) -> Result<PredictResponse> {
        let answered = self.answer.blocking_recv().unwrap_or_else(|_| Err(lost()));
        self.started.finish(deployment, self.outputs, answered)
    }
}

/// The sender is lost only with a thread of the queue.
fn lost() -> Error {
    Error::internal("the queue lost a request")
}

/// What has become of a request whose features are found.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is returned")]
pub(crate) enum Begun {
    Answered(PredictResponse),
    Queued(Queued),
}

impl Started {
    /// Answers, or queues where the model's requests do.
    pub(crate) fn go_on(self, deployment: &Deployment, request: &PredictRequest) -> Result<Begun> {
        if self.rows == 0 || !deployment.queues(request) {
            return self.run(deployment, request).map(Begun::Answered);
        }
        self.enqueue(deployment, request).map(Begun::Queued)
    }

    /// Calls the model on this thread.
    fn run(mut self, deployment: &Deployment, request: &PredictRequest) -> Result<PredictResponse> {
        let began = Instant::now();
        deployment.core.metrics.record_direct_call();
        let result = call_model(deployment, request.explain, self.rows, &mut self.scratch).and_then(|contributions| {
            if let (None, Some(batcher)) = (request.explain, &deployment.core.batcher) {
                batcher.note_call(self.rows, began.elapsed());
            }
            self.name_answers(deployment, request.outputs, request.explain, contributions)
        });
        self.timing.model = began.elapsed();
        self.timing.cost = self.timing.lookup + self.timing.transform + self.timing.model;
        self.end(deployment, result)
    }

    fn enqueue(mut self, deployment: &Deployment, request: &PredictRequest) -> Result<Queued> {
        let ask = Ask {
            features: self.scratch.matrix.take_float64(),
            rows: self.rows,
            arrived: self.arrived,
            deadline: request.deadline,
            priority: request.priority.levels_up(),
        };
        let batcher = deployment.core.batcher.as_ref().ok_or_else(|| Error::internal("a model without a queue"));
        match batcher.and_then(|batcher| batcher.enqueue(ask)) {
            Ok(answer) => Ok(Queued { answer, started: self, outputs: request.outputs }),
            Err(error) => Err(self.fail(deployment, error)),
        }
    }

    fn finish(
        mut self,
        deployment: &Deployment,
        outputs: Outputs,
        answered: Result<Answered>,
    ) -> Result<PredictResponse> {
        let result = answered.and_then(|answered| {
            let since_arrival = answered.started.saturating_duration_since(self.arrived);
            let worked = self.decoded_in + self.timing.lookup + self.timing.transform;
            self.timing.queue = since_arrival.saturating_sub(worked);
            self.timing.model = answered.model;
            self.timing.cost = self.timing.lookup + self.timing.transform + answered.cost;
            self.scratch.margins = answered.margins;
            self.scratch.row_errors.extend(answered.row_errors);
            self.name_answers(deployment, outputs, None, Vec::new())
        });
        self.end(deployment, result)
    }

    /// Gives the memory back and counts the failure.
    pub(crate) fn fail(self, deployment: &Deployment, error: Error) -> Error {
        deployment.scratches.give(self.scratch);
        deployment.core.metrics.record_failure(error.code, self.arrived.elapsed());
        error
    }

    fn end(mut self, deployment: &Deployment, result: Result<PredictResponse>) -> Result<PredictResponse> {
        let mut response = match result {
            Ok(response) => response,
            Err(error) => return Err(self.fail(deployment, error)),
        };
        deployment.scratches.give(self.scratch);
        self.timing.total = self.arrived.elapsed();
        (response.id, response.timing) = (self.id, self.timing);
        let now_us = self.clock.now_us();
        deployment.core.metrics.record(&self.timing, response.rows, response.row_errors.len(), now_us);
        Ok(response)
    }

    /// Turns margins into the answers of the task; failed rows are blanked.
    fn name_answers(
        &mut self,
        deployment: &Deployment,
        outputs: Outputs,
        explain: Option<Explain>,
        mut contributions: Vec<f64>,
    ) -> Result<PredictResponse> {
        let (rows, scratch) = (self.rows, &mut self.scratch);
        let margins_count = deployment.margins_count();
        let mut margins = if outputs.margin { scratch.margins.clone() } else { Vec::new() };
        deployment.row_model()?.scores(&mut scratch.margins);
        let kind = deployment.core.kind;
        let scores_count = kind.scores_count(margins_count);
        let mut scores = Vec::with_capacity(rows * scores_count);
        kind.fill_scores(&scratch.margins, &mut scores);
        let mut without_score = RowErrors::default();
        let is_all_finite = |numbers: &[f64]| numbers.iter().fold(true, |all, number| all & number.is_finite());
        let told = if is_all_finite(&scores) && is_all_finite(&margins) { &[][..] } else { &scores[..] };
        for (row, row_scores) in told.chunks_exact(scores_count).enumerate() {
            let row_margins =
                margins.get(row * margins_count..).map_or(&[][..], |rest| &rest[..margins_count.min(rest.len())]);
            let numbers = || row_scores.iter().chain(row_margins);
            if !numbers().all(|number| number.is_finite()) {
                without_score.note(row, || no_score(row, numbers().any(|number| number.is_nan())));
            }
        }
        scratch.row_errors.extend(without_score.into_vec());
        let mut labels = Vec::new();
        if deployment.task() == headrace_types::Task::Classification {
            labels.extend(scores.chunks_exact(scores_count).map(|row| kind.label_of(row)));
        }
        let row_errors = scratch.take_row_errors();
        for error in &row_errors {
            scores[error.row * scores_count..][..scores_count].fill(f64::NAN);
            if let Some(label) = labels.get_mut(error.row) {
                *label = NO_LABEL;
            }
            if !margins.is_empty() {
                margins[error.row * margins_count..][..margins_count].fill(f64::NAN);
            }
            if !contributions.is_empty() {
                let width = contributions.len() / rows;
                contributions[error.row * width..][..width].fill(f64::NAN);
            }
        }
        Ok(PredictResponse {
            id: String::new(),
            deployment: deployment.core.name.clone(),
            model: deployment.core.name.clone(),
            model_version: deployment.version(),
            task: deployment.task(),
            rows,
            outputs,
            classes: deployment.core.classes.clone(),
            labels,
            scores,
            margins,
            margins_count,
            explain,
            contributions,
            row_errors,
            timing: Timing::default(),
        })
    }
}

/// Calls the model over the matrix, and for its contributions if the answer shall be explained.
fn call_model(
    deployment: &Deployment,
    explain: Option<Explain>,
    rows: usize,
    scratch: &mut Scratch,
) -> Result<Vec<f64>> {
    let model = deployment.row_model()?;
    let mut contributions = Vec::new();
    if rows == 0 {
        return Ok(contributions);
    }
    match &scratch.matrix {
        Matrix { is_float32: true, float32, .. } => model.margins_of_float32(float32, rows, &mut scratch.margins)?,
        Matrix { float64, .. } => model.margins(float64, rows, &mut scratch.margins)?,
    }
    if explain.is_some() {
        contributions.resize(deployment.explained_values(rows).unwrap_or_default(), 0.0);
        model.contributions(&scratch.matrix.float64, rows, &mut contributions)?;
    }
    Ok(contributions)
}
