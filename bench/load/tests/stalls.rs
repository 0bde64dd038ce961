//! The generator against servers that are known: how many requests, in which order, and what a stall costs.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use headrace_load::{Options, Protocol, run};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A server of one thread a connection that answers single bytes, keeps them, and sleeps so long before request number `stalled`.
fn server(stalled: Option<(usize, Duration)>) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), Arc::clone(&kept));
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(byte[0]);
                        seen.len()
                    };
                    if let Some((_, stall)) = stalled.filter(|(at, _)| *at == number) {
                        thread::sleep(stall);
                    }
                    stream.write_all(if byte[0] == b'!' { REFUSAL } else { ANSWER }).unwrap();
                }
            });
        }
    });
    (addr, seen)
}

fn options(addr: SocketAddr, connections: usize, rate_per_s: Option<f64>, millis: u64) -> Options {
    let duration = Duration::from_millis(millis);
    Options { addr, protocol: Protocol::Http1, connections, rate_per_s, duration, warm_up: Duration::ZERO, seed: 3 }
}

#[test]
fn a_closed_loop_sends_in_turn_and_counts_by_status() {
    let (addr, seen) = server(None);
    let requests: Vec<Vec<u8>> = [b'a', b'b', b'!'].map(|byte| vec![byte]).to_vec();
    let report = run(&options(addr, 1, None, 100), &requests).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().zip([b'a', b'b', b'!'].iter().cycle()).all(|(seen, sent)| seen == sent));
    let answered: u64 = report.by_status.values().map(|found| found.count).sum();
    assert_eq!((answered, report.unanswered), (seen.len() as u64, 0));
    assert_eq!(report.by_status.keys().copied().collect::<Vec<_>>(), [200, 503]);
    assert!(report.by_status[&200].p50_us > 0.0 && report.by_status[&200].p50_us <= report.by_status[&200].max_us);
}

#[test]
fn an_open_loop_sends_at_its_rate() {
    let (addr, seen) = server(None);
    let report = run(&options(addr, 8, Some(1000.0), 500), &[vec![b'a']]).unwrap();
    assert_eq!(report.due, seen.lock().unwrap().len() as u64);
    assert!((400..600).contains(&report.due), "{}", report.due);
    assert_eq!(report.unanswered, 0);
}

#[test]
fn a_stall_is_charged_to_every_request_that_it_kept_waiting() {
    // One connection: while it stalls for 200 ms, about 100 of 250 requests become due. A generator that waited with them would
    // count one slow answer among 250, and a 90th percentile of microseconds.
    let (addr, _) = server(Some((50, Duration::from_millis(200))));
    let report = run(&options(addr, 1, Some(500.0), 500), &[vec![b'a']]).unwrap();
    let found = &report.by_status[&200];
    assert!(found.p90_us > 100_000.0, "{found:?}");
    assert!(found.max_us >= 200_000.0, "{found:?}");
}

#[test]
fn requests_without_an_answer_are_counted() {
    // The stall outlasts the wait for answers.
    let (addr, _) = server(Some((10, Duration::from_secs(30))));
    let report = run(&options(addr, 1, Some(200.0), 200), &[vec![b'a']]).unwrap();
    assert!(report.unanswered > 10, "{report:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let addr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    assert!(run(&options(addr, 1, None, 10), &[vec![b'a']]).is_err());
}
