//! Queues whose time is told by the test, and queues with real threads whose models the test holds back.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Model, Objective, Result};
use tokio::sync::oneshot;

use super::executor::{Batcher, BatcherOptions, Turns};
use super::job::{Answered, Ask, Job};
use super::queue::{Queue, QueueLimits, Refusal, RefusalReason};

const MS: fn(u64) -> Duration = Duration::from_millis;
const LIMITS: QueueLimits = QueueLimits { objective: Duration::from_millis(100), requests_max: 1000, executors: 1 };

fn ask(rows: usize, arrived: Instant) -> Ask {
    Ask { features: vec![1.0; rows], rows, arrived, deadline: None, priority: 0 }
}

/// Jobs whose callers listen as long as the test keeps them.
struct Jobs {
    queue: Queue,
    callers: Vec<oneshot::Receiver<Result<Answered>>>,
}

impl Jobs {
    /// A queue that knows what calls cost.
    fn with_costs(limits: QueueLimits, now: Instant, costs: &[(usize, Duration)]) -> Self {
        let mut queue = Queue::new(limits, now);
        for (rows, took) in costs {
            queue.observe(*rows, *took);
        }
        Self { queue, callers: Vec::new() }
    }

    fn admit(&mut self, ask: Ask, now: Instant) -> Result<Arc<Job>, Refusal> {
        let (job, caller) = Job::new(ask, 1);
        let job = Arc::new(job);
        self.queue.admit(&job, now)?;
        self.callers.push(caller);
        Ok(job)
    }
}

#[test]
fn the_first_call_has_one_row_and_later_ones_what_half_the_objective_allows() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[]);
    jobs.admit(ask(200, now), now).unwrap();
    assert_eq!(jobs.queue.take(now).rows, 1);
    jobs.queue.observe(1, MS(11));
    jobs.queue.observe(5, MS(15)); // 10 ms and 1 ms a row
    let taken = jobs.queue.take(now);
    assert_eq!((taken.rows, taken.parts[0].rows.clone()), (40, 1..41));
}

#[test]
fn nobody_is_refused_for_the_sake_of_callers_that_have_gone() {
    let now = Instant::now();
    let costs = [(1, MS(11)), (5, MS(15))];
    let mut full = Jobs::with_costs(QueueLimits { requests_max: 3, ..LIMITS }, now, &costs);
    let mut late = Jobs::with_costs(LIMITS, now, &costs);
    for (jobs, rows) in [(&mut full, 1), (&mut late, 30)] {
        let deadline = Some(now + MS(190));
        let admit = |jobs: &mut Jobs, now| jobs.admit(Ask { deadline, ..ask(rows, now) }, now);
        while admit(jobs, now).is_ok() {}
        let waited = jobs.callers.len();
        let first = jobs.callers.drain(1..).next();
        assert!(admit(jobs, now + MS(1)).is_err(), "it has just looked");
        drop(first);
        let job = admit(jobs, now + MS(6)).unwrap();
        let taken = jobs.queue.take(now + MS(7));
        assert_eq!(taken.dropped.len(), waited - 1);
        assert!(taken.dropped.iter().all(|(_, refusal)| *refusal == Refusal::Gone));
        assert!(taken.parts.iter().any(|part| Arc::ptr_eq(&part.job, &job)) || rows == 30);
        assert!(jobs.queue.take(now + MS(7)).dropped.is_empty());
    }
}

#[test]
fn a_batch_holds_several_requests_and_a_large_one_is_cut() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[(1, MS(11)), (5, MS(15))]);
    let late = now + MS(1000);
    for rows in [30, 30, 1] {
        let deadline = Some(late);
        jobs.admit(Ask { deadline, ..ask(rows, now) }, now).unwrap();
    }
    let parts = |taken: super::queue::Taken| {
        taken.parts.iter().map(|part| (part.job.ask.rows, part.rows.clone())).collect::<Vec<_>>()
    };
    assert_eq!(parts(jobs.queue.take(now)), [(30, 0..30), (30, 0..10)]);
    assert_eq!(parts(jobs.queue.take(now)), [(30, 10..30), (1, 0..1)]);
    assert!(jobs.queue.is_empty() && parts(jobs.queue.take(now)).is_empty());
}

#[test]
fn who_is_due_first_goes_first_and_a_low_priority_is_reached() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[]);
    let order = |jobs: &mut Jobs| {
        std::iter::from_fn(|| jobs.queue.take(now).parts.pop().map(|part| part.job.ask.features[0])).collect::<Vec<_>>()
    };
    let named = |name: f64, ask: Ask| Ask { features: vec![name], ..ask };
    jobs.admit(named(1.0, ask(1, now)), now).unwrap();
    jobs.admit(named(2.0, ask(1, now)), now).unwrap();
    jobs.admit(named(3.0, Ask { deadline: Some(now + MS(20)), ..ask(1, now) }), now).unwrap();
    jobs.admit(named(4.0, Ask { deadline: Some(now + MS(5000)), ..ask(1, now) }), now).unwrap();
    jobs.admit(named(5.0, Ask { priority: 1, ..ask(1, now) }), now).unwrap();
    jobs.admit(named(6.0, Ask { priority: -2, ..ask(1, now) }), now).unwrap();
    // Three objectives later the low priority is due before a new request of the usual one.
    jobs.admit(named(7.0, ask(1, now + MS(300))), now + MS(300)).unwrap();
    assert_eq!(order(&mut jobs), [5.0, 3.0, 1.0, 2.0, 4.0, 6.0, 7.0]);
}

#[test]
fn what_would_end_too_late_is_refused_when_it_comes() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[(1, MS(10)), (2, MS(20))]);
    let deadline = Some(now + MS(35));
    for _ in 0..3 {
        jobs.admit(Ask { deadline, ..ask(1, now) }, now).unwrap();
    }
    let refusal = jobs.admit(Ask { deadline, ..ask(1, now) }, now).unwrap_err();
    assert_eq!(refusal, Refusal::Late { wait: MS(40), bound: MS(35), has_deadline: true });
    assert_eq!(refusal.error("m").code, ErrorCode::Unavailable);
    // Without a deadline the objective counts: 100 ms, and 30 are taken.
    for _ in 0..7 {
        jobs.admit(ask(1, now), now).unwrap();
    }
    assert_eq!(jobs.admit(ask(1, now), now).unwrap_err().reason(), RefusalReason::Late);
    // Before the others there is room.
    jobs.admit(Ask { priority: 9, ..ask(1, now) }, now).unwrap();
}

#[test]
fn calls_that_run_count_as_long_as_they_are_expected_to() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[(1, MS(40)), (2, MS(80))]);
    let running = jobs.queue.begun(2, now);
    let deadline = |ms| Ask { deadline: Some(now + MS(ms)), ..ask(1, now) };
    assert!(jobs.admit(deadline(115), now).is_err());
    jobs.admit(deadline(125), now).unwrap();
    jobs.queue.take(now);
    jobs.queue.ended(running, None);
    jobs.admit(deadline(45), now).unwrap();
}

#[test]
fn an_idle_model_takes_even_what_is_longer_than_its_objective() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(LIMITS, now, &[(1, MS(400)), (2, MS(800))]);
    jobs.admit(ask(1, now), now).unwrap();
    assert_eq!(jobs.admit(ask(1, now), now).unwrap_err().reason(), RefusalReason::Late);
}

#[test]
fn a_full_queue_refuses_and_turns_drop_who_is_late_or_gone() {
    let now = Instant::now();
    let mut jobs = Jobs::with_costs(QueueLimits { requests_max: 3, ..LIMITS }, now, &[]);
    let deadline = Some(now + MS(10));
    jobs.admit(Ask { deadline, ..ask(1, now) }, now).unwrap();
    jobs.admit(ask(1, now), now).unwrap();
    jobs.admit(ask(2, now), now).unwrap();
    assert_eq!(jobs.admit(ask(1, now), now).unwrap_err(), Refusal::Full { waiting: 3 });
    jobs.callers.remove(1);
    let taken = jobs.queue.take(now + MS(11));
    let dropped: Vec<_> = taken.dropped.iter().map(|(_, refusal)| refusal.reason()).collect();
    assert_eq!(dropped, [RefusalReason::Expired, RefusalReason::Gone]);
    assert_eq!((taken.rows, jobs.queue.len()), (1, 1));
}

/// Margin = twice the only feature. Fails on negative features, panics on -2; tells of each call, and waits for the test's leave.
#[derive(Debug)]
struct HeldModel {
    calls: Mutex<Sender<Vec<f64>>>,
    leave: Mutex<Option<Receiver<()>>>,
    code: ErrorCode,
}

impl HeldModel {
    fn new(held: bool) -> (Arc<Self>, Receiver<Vec<f64>>, Sender<()>) {
        let (calls, called) = channel();
        let (let_go, leave) = channel();
        let leave = Mutex::new(held.then_some(leave));
        (Arc::new(Self { calls: Mutex::new(calls), leave, code: ErrorCode::ModelFailed }), called, let_go)
    }
}

impl Model for HeldModel {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn margins(&self, features: &[f64], _rows: usize, margins: &mut [f64]) -> Result<()> {
        self.calls.lock().unwrap().send(features.to_vec()).unwrap();
        if let Some(leave) = &*self.leave.lock().unwrap() {
            leave.recv().ok();
        }
        assert!(!features.contains(&-2.0), "the test model panics");
        if features.iter().any(|feature| *feature < 0.0) {
            return Err(Error::new(self.code, "a negative feature", ""));
        }
        margins.iter_mut().zip(features).for_each(|(margin, feature)| *margin = 2.0 * feature);
        Ok(())
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

fn batcher(model: &Arc<HeldModel>, executors: usize) -> Batcher {
    let limits = QueueLimits { objective: Duration::from_secs(60), executors, ..LIMITS };
    let model: Arc<dyn Model> = Arc::clone(model) as _;
    Batcher::new("held", model, BatcherOptions { limits, turns: Some(Turns::new(executors)) })
}

fn rows_of(features: &[f64]) -> Ask {
    Ask { features: features.to_vec(), rows: features.len(), ..ask(0, Instant::now()) }
}

/// Lets a batcher learn that calls are cheap, so that it makes large batches.
fn taught(batcher: &Batcher) {
    for rows in [1, 2, 4] {
        batcher.note_call(rows, Duration::from_micros(100 + rows as u64));
    }
}

#[test]
fn requests_that_come_during_a_call_share_the_next_one() {
    let (model, called, let_go) = HeldModel::new(true);
    let batcher = batcher(&model, 1);
    taught(&batcher);
    let first = batcher.enqueue(rows_of(&[1.0])).unwrap();
    assert_eq!(called.recv().unwrap(), [1.0]);
    let others: Vec<_> = (2..6).map(|feature| batcher.enqueue(rows_of(&[f64::from(feature), 0.5])).unwrap()).collect();
    assert_eq!(batcher.stats().waiting, 4);
    drop(let_go);
    assert_eq!(first.blocking_recv().unwrap().unwrap().margins, [2.0]);
    for (feature, answer) in (2..6).zip(others) {
        let answer = answer.blocking_recv().unwrap().unwrap();
        assert_eq!(answer.margins, [2.0 * f64::from(feature), 1.0]);
        assert!(answer.cost <= answer.model);
    }
    assert_eq!(called.recv().unwrap().len(), 8);
    assert_eq!(batcher.stats().calls, 2);
}

#[test]
fn a_bad_row_fails_alone() {
    let (model, called, let_go) = HeldModel::new(true);
    let batcher = batcher(&model, 1);
    taught(&batcher);
    let first = batcher.enqueue(rows_of(&[0.0])).unwrap();
    called.recv().unwrap();
    let answers: Vec<_> = [&[1.0, 2.0][..], &[-1.0], &[3.0, -2.0, 4.0], &[5.0]]
        .map(|features| batcher.enqueue(rows_of(features)).unwrap())
        .into_iter()
        .collect();
    drop(let_go);
    first.blocking_recv().unwrap().unwrap();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect();
    assert_eq!(answers[0].as_ref().unwrap().margins, [2.0, 4.0]);
    assert_eq!(answers[1].as_ref().unwrap_err().code, ErrorCode::ModelFailed);
    let third = answers[2].as_ref().unwrap();
    assert_eq!((third.margins[0], third.margins[2]), (6.0, 8.0));
    assert!(third.margins[1].is_nan());
    assert_eq!((third.row_errors.len(), third.row_errors[0].row), (1, 1));
    assert_eq!(third.row_errors[0].error.code, ErrorCode::Internal);
    assert_eq!(answers[3].as_ref().unwrap().margins, [10.0]);
    // The thread has survived the panic.
    assert_eq!(batcher.enqueue(rows_of(&[7.0])).unwrap().blocking_recv().unwrap().unwrap().margins, [14.0]);
}

#[test]
fn a_model_that_fails_on_every_row_is_not_asked_without_end() {
    let (model, called, _let_go) = HeldModel::new(false);
    let batcher = batcher(&model, 1);
    taught(&batcher);
    let answer = batcher.enqueue(rows_of(&[-1.0; 1000])).unwrap().blocking_recv().unwrap();
    assert_eq!(answer.unwrap_err().code, ErrorCode::ModelFailed);
    drop(batcher);
    assert!(called.try_iter().count() <= 65);
}

#[test]
fn a_model_that_is_not_there_is_not_asked_again() {
    let (model, called, _let_go) = HeldModel::new(false);
    let model = Arc::new(HeldModel { code: ErrorCode::Unavailable, ..Arc::try_unwrap(model).unwrap() });
    let batcher = batcher(&model, 1);
    taught(&batcher);
    let answer = batcher.enqueue(rows_of(&[-1.0, 1.0])).unwrap().blocking_recv().unwrap();
    assert_eq!(answer.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(called.try_iter().count(), 1);
}

#[test]
fn who_has_gone_is_not_computed() {
    let (model, called, let_go) = HeldModel::new(true);
    let batcher = batcher(&model, 1);
    let first = batcher.enqueue(rows_of(&[1.0])).unwrap();
    called.recv().unwrap();
    drop(batcher.enqueue(rows_of(&[2.0])).unwrap());
    let last = batcher.enqueue(rows_of(&[3.0])).unwrap();
    drop(let_go);
    first.blocking_recv().unwrap().unwrap();
    last.blocking_recv().unwrap().unwrap();
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [[3.0]]);
    assert_eq!(batcher.stats().refused[RefusalReason::Gone as usize], 1);
}

#[test]
fn executors_call_beside_each_other_and_a_closed_queue_is_emptied() {
    let (model, called, let_go) = HeldModel::new(false);
    drop(let_go);
    let batcher = batcher(&model, 2);
    let answers: Vec<_> = (0..50).map(|row| batcher.enqueue(rows_of(&[f64::from(row)])).unwrap()).collect();
    drop(batcher);
    for (row, answer) in (0..50).zip(answers) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap().margins, [2.0 * f64::from(row)]);
    }
    assert_eq!(called.try_iter().map(|call| call.len()).sum::<usize>(), 50);
}
