//! One worker: a Python process, its socket and its shared memory.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result};
use serde_json::json;

use crate::layout::Layout;
use crate::memory::{SharedMemory, file_of};
use crate::options::WorkerOptions;
use crate::output::{Tail, forward};

/// A message of a worker may have so many bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a message before its text: batch and status.
const HEAD_BYTES: usize = 12;
/// How often a worker's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// How long the last words of a worker that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    socket: UnixStream,
    memory: SharedMemory,
    tail: Tail,
    batches: u64,
    has_answered: bool,
    measured: Instant,
}

/// Why a batch has no scores.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The worker had ended before; it has not seen the batch.
    Unsent,
    /// The class raised, or answered in another shape; the worker goes on.
    Answered(Error),
    /// The worker is of no use any more.
    Lost(Error),
}

impl Drop for Worker {
    fn drop(&mut self) {
        kill_group(self.pid());
        let _ = self.child.wait();
    }
}

/// Ends a worker and what it has started.
pub(crate) fn kill_group(pid: i32) {
    // SAFETY: sends a signal; the pid is that of a child that nobody has waited for yet, so it is no other process's.
    unsafe {
        libc::kill(-pid, libc::SIGKILL);
        libc::kill(pid, libc::SIGKILL);
    }
}

impl Worker {
    /// Starts a process; it is ready when it says so. The calling thread must live as long as the worker shall: the kernel ends the worker
    /// with it. Nothing here waits for the process: its start message is a file that is its stdin.
    pub(crate) fn spawn(options: &WorkerOptions) -> io::Result<Self> {
        let memory = SharedMemory::new(options.batch_bytes_max)?;
        let (socket, theirs) = UnixStream::pair()?;
        let (reader, writer) = io::pipe()?;
        let columns: Vec<_> = options.columns.iter().map(|(name, column)| [name.as_str(), column.name()]).collect();
        let start = json!({
            "folder": options.folder, "module": options.module, "class": options.class, "files": options.files,
            "columns": columns, "outputs": options.outputs_count, "bytes": memory.bytes(),
        });
        let mut command = Command::new(&options.python);
        let descriptors = [theirs.as_raw_fd(), memory.descriptor()];
        command
            .args(["-I", "-B", "-u", "-X", "faulthandler"])
            .arg(&options.worker_file)
            .args(descriptors.map(|descriptor| descriptor.to_string()))
            .env_clear()
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(file_of(start.to_string().as_bytes())?)
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let (parent, address_bytes_max) = (std::process::id(), options.address_bytes_max);
        // SAFETY: the closure calls nothing but system calls, which is what a child of a process with threads may do before exec.
        unsafe { command.pre_exec(move || prepare(parent, descriptors, address_bytes_max)) };
        let mut child = command.spawn()?;
        drop((command, theirs));
        let prefix = format!("headrace: model {}: worker {}", options.name, child.id());
        let tail = forward(reader, prefix).inspect_err(|_| {
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        Ok(Self { child, socket, memory, tail, batches: 0, has_answered: false, measured: Instant::now() })
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Reads that the worker is ready, or why it is not.
    pub(crate) fn read_start_by(&mut self, options: &WorkerOptions, deadline: Instant) -> Result<()> {
        match self.receive(deadline) {
            Ok((0, 0, _)) => Ok(()),
            Ok((_, _, text)) => Err(failed(&format!("the class cannot be made: {text}"))),
            Err(error) => Err(self.lost(&error, "while it started", options.start_deadline)),
        }
    }

    /// Whether it has answered a batch; one that has not is no better than one that could not be started.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Why a worker that was ready is of no use before its first batch.
    pub(crate) fn lost_before_use(&mut self) -> Error {
        self.lost(&io::ErrorKind::UnexpectedEof.into(), "before its first batch", Duration::ZERO)
    }

    /// Runs a batch that fits into the shared memory, and is lost if it has no answer within the limit.
    pub(crate) fn run(
        &mut self,
        options: &WorkerOptions,
        features: &[f64],
        scores: &mut [f64],
        limit: Duration,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        let rows = scores.len() / options.outputs_count;
        let layout = Layout::new(&options.columns, options.outputs_count, rows);
        let nulls = layout.write(&options.columns, features, rows, &self.memory);
        self.batches += 1;
        let mut message = self.batches.to_le_bytes().to_vec();
        message.extend(u32::try_from(rows).unwrap_or(u32::MAX).to_le_bytes());
        message.extend(nulls);
        if self.send(&message).is_err() {
            return Err(Failure::Unsent);
        }
        match self.receive(deadline) {
            Ok((batch, 0, _)) if batch == self.batches => {
                self.has_answered = true;
                let words = self.memory.words_u64(layout.scores, scores.len());
                scores.iter_mut().zip(words).for_each(|(score, word)| *score = f64::from_bits(word.load(Relaxed)));
                Ok(())
            }
            Ok((batch, 1, text)) if batch == self.batches => {
                self.has_answered = true;
                Err(Failure::Answered(failed(&text)))
            }
            Ok(_) => Err(Failure::Lost(failed("its worker sent an answer to no question"))),
            Err(error) => Err(Failure::Lost(self.lost(&error, "in this batch", limit))),
        }
    }

    /// Whether the socket has something to read or is closed: of an idle worker, that it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        is_readable(self.descriptor(), Duration::ZERO).unwrap_or(true)
    }

    /// The bytes of the worker's own memory, if it is time to look.
    pub(crate) fn memory_if_due(&mut self) -> Option<u64> {
        if self.measured.elapsed() < MEMORY_INTERVAL {
            return None;
        }
        self.memory_bytes()
    }

    /// The bytes of the worker's own memory.
    pub(crate) fn memory_bytes(&mut self) -> Option<u64> {
        self.measured = Instant::now();
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).ok()?;
        let mut pages = text.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        // SAFETY: asks for a constant of the system.
        let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        Some(resident.saturating_sub(shared) * page_bytes)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        self.socket.write_all(&[&length.to_le_bytes(), message].concat())
    }

    /// The next message: batch, status and text. Nothing else comes until the next batch is sent.
    fn receive(&mut self, deadline: Instant) -> io::Result<(u64, u32, String)> {
        let mut message = Vec::new();
        let mut part = [0; 4096];
        loop {
            if !is_readable(self.descriptor(), deadline.saturating_duration_since(Instant::now()))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let count = self.socket.read(&mut part)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            message.extend_from_slice(&part[..count]);
            let Some((length, body)) = message.split_first_chunk() else { continue };
            let length = u32::from_le_bytes(*length) as usize;
            if !(HEAD_BYTES..=MESSAGE_BYTES_MAX).contains(&length) || body.len() > length {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if let (Some((batch, rest)), true) = (body.split_first_chunk(), body.len() == length) {
                let Some((status, text)) = rest.split_first_chunk() else { continue };
                let text = String::from_utf8_lossy(text).into_owned();
                return Ok((u64::from_le_bytes(*batch), u32::from_le_bytes(*status), text));
            }
        }
    }

    /// What to say of a worker that does not answer any more.
    fn lost(&mut self, error: &io::Error, when: &str, deadline: Duration) -> Error {
        if error.kind() == io::ErrorKind::TimedOut {
            return Error::new(
                ErrorCode::DeadlineExceeded,
                format!("the worker did not answer {when} within {} s and was killed", deadline.as_secs_f64()),
                "make predict faster, or raise [models] deadline_seconds (start_seconds for its start)",
            );
        }
        let mut how = "closed its socket".to_owned();
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait_without_reaping() {
                how = status;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(5)); // for the thread that reads its output
        let tail = self.tail.text();
        let said = if tail.is_empty() { String::new() } else { format!(". It said last: {}", tail.trim_end()) };
        failed(&format!("the worker {how} {when}{said}"))
    }
}

/// How a child has ended, without freeing its pid.
trait Ended {
    fn try_wait_without_reaping(&self) -> io::Result<Option<String>>;
}

impl Ended for Child {
    fn try_wait_without_reaping(&self) -> io::Result<Option<String>> {
        // SAFETY: all zeros is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the out pointer is ours; WNOWAIT leaves the child to its owner.
        let result =
            unsafe { libc::waitid(libc::P_PID, self.id(), &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid has filled in a child's fields, or left them zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        if info.si_code == libc::CLD_EXITED {
            return Ok(Some(format!("ended with status {status}")));
        }
        let signal = std::process::ExitStatus::from_raw(status);
        Ok(Some(format!("was ended by {signal}")))
    }
}

fn failed(text: &str) -> Error {
    let hint = "correct the class, and register it as a new version";
    Error::new(ErrorCode::ModelFailed, text, hint)
}

/// In the child, before exec: ends with its parent, takes its limits, keeps two descriptors.
fn prepare(parent: u32, descriptors: [RawFd; 2], address_bytes_max: u64) -> io::Result<()> {
    // SAFETY: plain system calls with numbers; `rlimit` lives on the stack.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return Err(io::Error::last_os_error());
        }
        if u32::try_from(libc::getppid()) != Ok(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if address_bytes_max > 0 {
            let limit = libc::rlimit { rlim_cur: address_bytes_max, rlim_max: address_bytes_max };
            if libc::setrlimit(libc::RLIMIT_AS, &limit) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        // Linux before 5.11 does not know the flag. Rust's and Python's own descriptors are closed by exec anyway.
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for descriptor in descriptors {
            if libc::fcntl(descriptor, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Waits until a descriptor can be read or is closed.
pub(crate) fn is_readable(descriptor: RawFd, timeout: Duration) -> io::Result<bool> {
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the last part of a millisecond is no busy loop.
        let left_ms = left.as_micros().div_ceil(1_000);
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry that is ours.
        let count = unsafe { libc::poll(&mut poll, 1, i32::try_from(left_ms).unwrap_or(i32::MAX)) };
        if count >= 0 {
            return Ok(count > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
