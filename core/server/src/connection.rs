//! What a connection is doing and since when, for the sweep that ends those that take too long; and when it writes.
//!
//! A timer for each request would cost more than a small prediction. So a connection only notes the worker's tick when its phase
//! changes, and the worker looks over its connections once a tick.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::ServerConfig;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waits for the next request.
    Idle = 0,
    /// Some of a request's headers have come.
    Head = 1,
    /// A request is read and answered; the body has its own timeout.
    Handling = 2,
    /// The answer is made and goes out.
    Replied = 3,
}

/// Shared by a connection's stream, its requests, and the sweep.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    phase: AtomicU8,
    since_tick: AtomicU64,
    /// The worker's tick counter.
    ticks: Arc<AtomicU64>,
}

impl ConnectionState {
    pub(crate) fn new(ticks: Arc<AtomicU64>) -> Self {
        let since = ticks.load(Ordering::Relaxed);
        Self { phase: AtomicU8::new(Phase::Idle as u8), since_tick: AtomicU64::new(since), ticks }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Ordering::Relaxed) != phase as u8 {
            self.since_tick.store(self.ticks.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Handling,
            _ => Phase::Replied,
        }
    }

    /// Ticks that the connection has been in its phase.
    fn age_ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed).saturating_sub(self.since_tick.load(Ordering::Relaxed))
    }

    pub(crate) fn is_overdue(&self, limits: &TickLimits) -> bool {
        let limit = match self.phase() {
            Phase::Idle => limits.idle,
            Phase::Head => limits.head,
            Phase::Replied => limits.write,
            Phase::Handling => return false,
        };
        self.age_ticks() > limit
    }
}

/// The timeouts, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TickLimits {
    pub(crate) tick: Duration,
    pub(crate) idle: u64,
    pub(crate) head: u64,
    pub(crate) write: u64,
}

impl TickLimits {
    /// Ticks are a quarter of the shortest timeout, but between 10 ms and 1 s.
    pub(crate) fn of(config: &ServerConfig) -> Self {
        let shortest = config.idle_timeout.min(config.header_timeout).min(config.write_timeout);
        let tick = (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let ticks = |timeout: Duration| u64::try_from(timeout.as_millis() / tick.as_millis()).unwrap_or(u64::MAX);
        Self {
            tick,
            idle: ticks(config.idle_timeout),
            head: ticks(config.header_timeout),
            write: ticks(config.write_timeout),
        }
    }
}

/// Hears what happens on a stream.
pub(crate) trait Watch {
    /// Something has come, or the end.
    ///
    /// # Errors
    /// Why the connection ends.
    fn on_read(&self, bytes: usize) -> io::Result<()>;

    /// Nothing is buffered above the stream any more.
    fn on_flush(&self) {}
}

impl Watch for ConnectionState {
    fn on_read(&self, _bytes: usize) -> io::Result<()> {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
        Ok(())
    }

    fn on_flush(&self) {
        // The answer is out.
        if self.phase() == Phase::Replied {
            self.enter(Phase::Idle);
        }
    }
}

/// A stream, plain or of TLS, whose happenings are noted.
///
/// What is written waits for one turn of the worker's other connections. Answers to requests that came together so go out together: each
/// write may wake a client, and one on this machine would take the core before the next request is worked on (a quarter more requests
/// a second from 64 connections on 2 cores). With nothing else to do the turn is over at once.
#[derive(Debug)]
pub(crate) struct WatchedStream<S, W> {
    stream: S,
    watch: Arc<W>,
    /// What has been written since the last flush has had its turn.
    has_waited: bool,
}

impl<S, W> WatchedStream<S, W> {
    pub(crate) fn new(stream: S, watch: Arc<W>) -> Self {
        Self { stream, watch, has_waited: false }
    }

    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.has_waited {
            return Poll::Ready(());
        }
        self.has_waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for WatchedStream<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if poll.is_ready() {
            self.watch.on_read(buf.filled().len() - before)?;
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for WatchedStream<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(poll, Poll::Ready(Ok(()))) {
            self.has_waited = false;
            self.watch.on_flush();
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;

    struct Nobody;

    impl Watch for Nobody {
        fn on_read(&self, _bytes: usize) -> io::Result<()> {
            Ok(())
        }
    }

    fn stream(room: usize) -> (WatchedStream<DuplexStream, Nobody>, DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (WatchedStream::new(near, Arc::new(Nobody)), far)
    }

    #[tokio::test]
    async fn what_is_ready_together_is_worked_on_before_any_of_it_is_written() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let connection = |name: &'static str| {
            let (told, (mut stream, far)) = (Rc::clone(&told), stream(64));
            async move {
                for _ in 0..2 {
                    told.borrow_mut().push(format!("{name} works"));
                    stream.write_all(b"answer").await.unwrap();
                    stream.flush().await.unwrap();
                    told.borrow_mut().push(format!("{name} has written"));
                }
                drop(far);
            }
        };
        let tasks = tokio::task::LocalSet::new();
        let running = [tasks.spawn_local(connection("a")), tasks.spawn_local(connection("b"))];
        tasks.await;
        for one in running {
            one.await.unwrap();
        }
        assert_eq!(
            told.borrow()[..],
            [
                "a works",
                "b works",
                "a has written",
                "a works",
                "b has written",
                "b works",
                "a has written",
                "b has written"
            ]
        );
    }

    #[tokio::test]
    async fn a_long_answer_waits_for_one_turn_only() {
        let (mut stream, far) = stream(4);
        let mut waits = 0;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            waits += usize::from(Pin::new(&mut stream).poll_write(&mut cx, b"ab").is_pending());
        }
        assert!(Pin::new(&mut stream).poll_write(&mut cx, b"cd").is_ready());
        assert_eq!(waits, 1);
        drop(far);
    }
}
