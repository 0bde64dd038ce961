//! Answers that a connection's thread does not make at once: it goes on with its other connections meanwhile.
//!
//! - Work that takes long here (explanations, large bodies) is put aside on threads of its own: as many at a time as there are workers.
//! - A prediction of a model that queues waits for its turn, which takes no thread. Its features have been found before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headrace_engine::{Engine, PredictResponse, SequenceResponse, Submitted, TensorResponse, Timing, Waiting};
use headrace_protocol::oip::Infer;
use headrace_types::{Error, ErrorCode, Result};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::budget::Share;
use crate::counters::WorkerCounters;
use crate::handler::{Asked, Prediction, unpanicked};
use crate::worker::Worker;

/// Requests of a worker that are put aside, those that wait for a thread included; further ones are refused.
const ASIDE_MAX: usize = 256;
/// A request with a larger body takes long to decode, and may to answer.
pub(crate) const LONG_BODY_BYTES: usize = 256 << 10;

/// What is done with a request later, by the protocol that it came in.
pub(crate) trait Work: Send + 'static {
    type Reply: Send + 'static;

    /// The reply, or a place in a queue. A panic becomes an error, and `panicked` is called.
    fn run(self, engine: &Engine, panicked: impl Fn()) -> Made<Self::Reply>;

    /// The reply to a prediction.
    fn reply(prediction: &Prediction, response: EngineResponse) -> Self::Reply;

    /// The reply that tells an error.
    fn refused(error: Error) -> Self::Reply;
}

/// What has become of a request.
pub(crate) enum Made<R> {
    Answered(R),
    Queued(Queued),
}

/// What the engine has answered, by the kind of model.
pub(crate) enum EngineResponse {
    Rows(PredictResponse),
    Tensors(TensorResponse),
    Sequences(SequenceResponse),
}

impl EngineResponse {
    /// The request's id, its rows and where its time went.
    pub(crate) fn facts(&self) -> (&str, usize, Timing) {
        match self {
            Self::Rows(response) => (&response.id, response.rows, response.timing),
            Self::Tensors(response) => (&response.id, response.rows, response.timing),
            Self::Sequences(response) => (&response.id, response.sequences.len(), response.timing),
        }
    }
}

/// A request that is answered later.
pub(crate) enum Later<W> {
    Aside(W),
    Queued(Queued),
}

/// A prediction whose turn will come. Dropping it takes it out of the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    prediction: Box<Prediction>,
    waiting: Box<Waiting>,
}

impl Queued {
    /// The prediction and its answer, when it is there; this thread waits.
    pub(crate) fn waited(self) -> (Box<Prediction>, Result<PredictResponse>) {
        (self.prediction, self.waiting.wait())
    }
}

impl Prediction {
    /// Answers, unless the model queues.
    ///
    /// # Errors
    /// As [`Engine::predict`].
    pub(crate) fn made<R>(
        self: Box<Self>,
        engine: &Engine,
        reply: impl FnOnce(&Prediction, EngineResponse) -> R,
    ) -> Result<Made<R>> {
        let request = match &self.asked {
            Asked::Infer(Infer::Tensors(infer)) => {
                let response = engine.run_on(&self.deployment, &infer.request)?;
                return Ok(Made::Answered(self.tell(EngineResponse::Tensors(response), reply)));
            }
            Asked::Sequences(request) => {
                let response = engine.predict_sequences(&self.deployment, request)?;
                return Ok(Made::Answered(self.tell(EngineResponse::Sequences(response), reply)));
            }
            Asked::Infer(Infer::Rows(infer)) => &infer.predict,
            Asked::Predict(request) => request,
        };
        Ok(match engine.submit(&self.deployment, request)? {
            Submitted::Answered(response) => Made::Answered(self.tell(EngineResponse::Rows(response), reply)),
            Submitted::Waiting(waiting) => Made::Queued(Queued { prediction: self, waiting: Box::new(waiting) }),
        })
    }
}

/// Where requests are put aside.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Of one worker.
    places: Arc<Semaphore>,
    /// A request that has one gets a thread.
    turns: Arc<Semaphore>,
}

impl Lane {
    pub(crate) fn new(turns: Arc<Semaphore>) -> Self {
        Self { places: Arc::new(Semaphore::new(ASIDE_MAX)), turns }
    }
}

/// What a request holds until it is answered.
#[derive(Debug)]
pub(crate) struct Holds {
    pub(crate) share: Share,
    pub(crate) in_flight: InFlight,
}

/// Counts a request as long as it is handled.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<WorkerCounters>);

impl InFlight {
    pub(crate) fn new(counters: &Arc<WorkerCounters>) -> Self {
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reply to a request, when it is there. Dropping the future drops what has not begun.
pub(crate) async fn reply_later<W: Work>(worker: &Worker, later: Later<W>, holds: Holds) -> (W::Reply, Holds) {
    let (made, holds) = match later {
        Later::Queued(queued) => (Made::Queued(queued), holds),
        Later::Aside(work) => made_aside(worker, work, holds).await,
    };
    let reply = match made {
        Made::Answered(reply) => reply,
        Made::Queued(Queued { prediction, waiting }) => {
            let response = waiting.answer().await;
            let panicked = || {
                worker.counters.panics.fetch_add(1, Ordering::Relaxed);
            };
            unpanicked(|| Ok(prediction.tell(EngineResponse::Rows(response?), W::reply)), panicked)
                .unwrap_or_else(W::refused)
        }
    };
    (reply, holds)
}

/// Runs work on a thread of its own, when it is its turn. What it holds stays until the thread has done, also when the client has gone.
async fn made_aside<W: Work>(worker: &Worker, work: W, holds: Holds) -> (Made<W::Reply>, Holds) {
    let lane = &worker.lane;
    let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() else {
        let message = format!("{ASIDE_MAX} requests of this thread take long: explanations, or large bodies");
        let error = Error::new(ErrorCode::Unavailable, message, "try again in a second, or send fewer rows at a time");
        return (Made::Answered(W::refused(error)), holds);
    };
    // The runtime has a thread for each turn.
    let turn = Arc::clone(&lane.turns).acquire_owned().await;
    let (engine, counters) = (Arc::clone(&worker.engine), Arc::clone(&worker.counters));
    let running = tokio::task::spawn_blocking(move || {
        let panicked = || {
            counters.panics.fetch_add(1, Ordering::Relaxed);
        };
        let made = work.run(&engine, panicked);
        drop((turn, place));
        (made, holds)
    });
    let _awaited = Awaited(running.abort_handle());
    running.await.unwrap_or_else(|_| {
        let reply = W::refused(Error::internal("the thread of a request was lost"));
        let holds = Holds { share: Share::new(&worker.budget), in_flight: InFlight::new(&worker.counters) };
        (Made::Answered(reply), holds)
    })
}

/// Keeps a request whose client has gone from getting a thread; one that has begun runs to its end.
struct Awaited(AbortHandle);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.abort();
    }
}
