//! The pool's bounds, with a worker in plain Python (`pool.py`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use headrace_types::ErrorCode;
use headrace_workers::{ColumnType, WorkerOptions, WorkerPool};

fn options(class: &str) -> WorkerOptions {
    WorkerOptions {
        name: "test/1".into(),
        python: "python3".into(),
        worker_file: Path::new("tests/pool.py").canonicalize().unwrap(),
        folder: PathBuf::from("/"),
        module: "module".into(),
        class: class.into(),
        files: Vec::new(),
        columns: vec![("a".into(), ColumnType::Float64)],
        outputs_count: 1,
        workers: 1,
        batch_deadline: Duration::from_secs(2),
        start_deadline: Duration::from_secs(20),
        memory_bytes_max: 0,
        address_bytes_max: 0,
        batch_bytes_max: 1 << 16,
        environment: vec![("PATH".into(), std::env::var("PATH").unwrap())],
    }
}

#[test]
fn who_waited_for_a_worker_has_the_whole_deadline_for_the_batch() {
    let pool = WorkerPool::start(options("Slow")).unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| pool.run(&[1.0], 1, &mut [0.0]))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    // One after the other: the first two have a worker within the deadline, and the last has not.
    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() >= 2, "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert!(error.message.contains("no worker was free within 2 s"), "{error}");
    }
}

#[test]
fn a_worker_that_ends_before_its_first_batch_is_a_start_that_failed() {
    let error = match WorkerPool::start(options("Ends")) {
        Err(error) => error,
        Ok(pool) => {
            let mut outcomes = (0..20).map(|_| pool.run(&[1.0], 1, &mut [0.0]).unwrap_err());
            outcomes.find(|error| error.code != ErrorCode::DeadlineExceeded).unwrap()
        }
    };
    assert!(error.message.contains("ended with status 7"), "{error}");
}

#[test]
fn a_worker_larger_than_its_bound_at_rest_is_refused() {
    let error = WorkerPool::start(WorkerOptions { memory_bytes_max: 1000, ..options("Well") }).unwrap_err();
    assert!(error.message.contains("before its first batch, and memory_bytes_max is 1000"), "{error}");
}

#[test]
fn a_program_that_reads_nothing_ends_at_the_deadline() {
    // A message that no socket takes at once, to a program that sleeps.
    let columns = (0..20_000).map(|number| (format!("column_{number:0100}"), ColumnType::Bool)).collect();
    let mute = WorkerOptions {
        python: Path::new("tests/mute.sh").canonicalize().unwrap(),
        start_deadline: Duration::from_millis(500),
        batch_bytes_max: 16 << 20,
        columns,
        ..options("Well")
    };
    let error = WorkerPool::start(mute).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
}

#[test]
fn a_model_without_columns_is_refused() {
    let error = WorkerPool::start(WorkerOptions { columns: Vec::new(), ..options("Well") }).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedModel);
}
