//! The loop: one thread, all connections, and the times at which requests are due.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::arrivals::Arrivals;
use crate::grpc::Calls;
use crate::histogram::Histogram;
use crate::http1::whole_answer;
use crate::options::{Options, Protocol};
use crate::report::Report;

/// After the last request was due, how long answers are waited for.
const DRAIN: Duration = Duration::from_secs(3);
/// The longest wait for events.
const WAIT_MAX: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 256;

/// Sends `requests` in turn and measures the answers.
///
/// # Errors
/// When the server cannot be reached, ends a connection, or answers what is no answer.
pub fn run(options: &Options, requests: &[Vec<u8>]) -> io::Result<Report> {
    let mut lanes = Lanes::open(options)?;
    let end = nanoseconds(options.warm_up + options.duration);
    let mut load = Load {
        requests: requests.iter().cycle(),
        free: (0..options.connections).collect(),
        waiting: VecDeque::new(),
        due: 0,
        busy: 0,
        measured_from: nanoseconds(options.warm_up),
        end,
        answers: BTreeMap::new(),
        histograms: BTreeMap::new(),
    };
    let mut arrivals =
        options.rate_per_s.map(|rate| Arrivals::new(rate, options.seed).take_while(|at| *at < end).peekable());
    let start = Instant::now();
    loop {
        let now = nanoseconds(start.elapsed());
        let mut wait = WAIT_MAX;
        match &mut arrivals {
            Some(arrivals) => {
                while let Some(at) = arrivals.next_if(|at| *at <= now) {
                    load.is_due(at);
                }
                // With no free connection only an answer changes anything.
                if let (Some(next), false) = (arrivals.peek(), load.free.is_empty()) {
                    wait = wait.min(Duration::from_nanos(next - now));
                }
            }
            None if now < end => (0..load.free.len()).for_each(|_| load.is_due(now)),
            None => {}
        }
        load.send(&mut lanes)?;
        let all_sent = now >= end && load.waiting.is_empty();
        if (all_sent && load.busy == 0) || now >= end + nanoseconds(DRAIN) {
            break;
        }
        for lane in lanes.ready(wait)? {
            if let Some(status) = lanes.lanes[lane].receive(&mut lanes.buffer)? {
                load.answered(lane, &mut lanes.lanes[lane], status, nanoseconds(start.elapsed()));
            }
        }
    }
    Ok(Report::new(options.duration.as_secs_f64(), load.due, &load.answers, &load.histograms))
}

/// The requests that are due, under way, and answered. Times are nanoseconds from the start.
struct Load<'r, R: Iterator<Item = &'r Vec<u8>>> {
    requests: R,
    /// Connections without a request, the one that waits longest first.
    free: VecDeque<usize>,
    /// When the requests that wait for a connection were due.
    waiting: VecDeque<u64>,
    /// Requests due in the measured time.
    due: u64,
    busy: usize,
    measured_from: u64,
    end: u64,
    /// Answers that came in the measured time, by status.
    answers: BTreeMap<u16, u64>,
    /// Latencies of the requests that were due in the measured time.
    histograms: BTreeMap<u16, Histogram>,
}

impl<'r, R: Iterator<Item = &'r Vec<u8>>> Load<'r, R> {
    fn is_due(&mut self, at: u64) {
        self.due += u64::from(at >= self.measured_from);
        self.waiting.push_back(at);
    }

    fn send(&mut self, lanes: &mut Lanes) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let Some(lane) = self.free.pop_front() else { break };
            let (Some(due), Some(request)) = (self.waiting.pop_front(), self.requests.next()) else { break };
            lanes.lanes[lane].send(request, due)?;
            self.busy += 1;
        }
        Ok(())
    }

    fn answered(&mut self, number: usize, lane: &mut Lane, status: u16, now: u64) {
        self.busy -= 1;
        self.free.push_back(number);
        if (self.measured_from..self.end).contains(&now) {
            *self.answers.entry(status).or_default() += 1;
        }
        if lane.due >= self.measured_from {
            self.histograms.entry(status).or_default().record(now.saturating_sub(lane.due));
        }
    }
}

/// The connections and what tells which of them can be read.
struct Lanes {
    lanes: Vec<Lane>,
    poll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Lanes {
    fn open(options: &Options) -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut lanes = Vec::with_capacity(options.connections);
        for number in 0..options.connections {
            let lane = Lane::open(options)?;
            epoll::add(&poll, &lane.stream, EventData::new_u64(number as u64), EventFlags::IN)?;
            lanes.push(lane);
        }
        Ok(Self { lanes, poll, events: Vec::with_capacity(EVENTS_MAX), buffer: vec![0; READ_BYTES] })
    }

    /// The connections that have something, waiting so long at most.
    fn ready(&mut self, wait: Duration) -> io::Result<Vec<usize>> {
        let timeout =
            Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(0), tv_nsec: i64::from(wait.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.poll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().filter_map(|event| usize::try_from(event.data.u64()).ok()).collect())
    }
}

/// One connection, with one request at a time.
struct Lane {
    stream: TcpStream,
    received: Vec<u8>,
    /// Of gRPC only.
    calls: Option<Calls>,
    /// When its request was due.
    due: u64,
}

impl Lane {
    fn open(options: &Options) -> io::Result<Self> {
        let mut stream = TcpStream::connect(options.addr)?;
        stream.set_nodelay(true)?;
        let calls = match &options.protocol {
            Protocol::Http1 => None,
            Protocol::Grpc(path) => {
                stream.write_all(&Calls::opening())?;
                Some(Calls::new(path))
            }
        };
        Ok(Self { stream, received: Vec::new(), calls, due: 0 })
    }

    fn send(&mut self, request: &[u8], due: u64) -> io::Result<()> {
        self.due = due;
        match &mut self.calls {
            None => self.stream.write_all(request),
            Some(calls) => self.stream.write_all(&calls.call(request).map_err(io::Error::other)?),
        }
    }

    /// Reads once, which does not block after an event; the status when the answer is whole.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<u16>> {
        let bytes = self.stream.read(buffer)?;
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection"));
        }
        self.received.extend_from_slice(&buffer[..bytes]);
        let Some(calls) = &mut self.calls else {
            let Some((bytes, status)) = whole_answer(&self.received).map_err(io::Error::other)? else {
                return Ok(None);
            };
            self.received.drain(..bytes);
            return Ok(Some(status));
        };
        let mut replies = Vec::new();
        let status = calls.take(&mut self.received, &mut replies).map_err(io::Error::other)?;
        if !replies.is_empty() {
            self.stream.write_all(&replies)?;
        }
        Ok(status)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
