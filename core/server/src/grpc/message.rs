//! Messages as they arrive: five bytes, then as many as those say, in any number of pieces.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::RecvStream;
use headrace_types::{Error, ErrorCode, Result};

use super::answer::FRAME_HEAD_BYTES;
use super::state::GrpcState;
use crate::body::inflate_as;
use crate::budget::Share;
use crate::compress::Encoding;

/// A message, and whether it came compressed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) is_compressed: bool,
}

/// Reads the messages of a call.
#[derive(Debug)]
pub(crate) struct MessageReader {
    body: RecvStream,
    state: Arc<GrpcState>,
    encoding: Option<Encoding>,
    bytes_max: usize,
    /// What has come and is not read: here while it is one piece, which is then not copied,
    piece: Bytes,
    /// else here.
    pieces: Vec<u8>,
}

impl MessageReader {
    pub(crate) fn new(body: RecvStream, state: Arc<GrpcState>, encoding: Option<Encoding>, bytes_max: usize) -> Self {
        Self { body, state, encoding, bytes_max, piece: Bytes::new(), pieces: Vec::new() }
    }

    /// The only message of a call, if the call has come whole; else it goes on with [`Self::only`].
    pub(crate) fn only_now(&mut self, share: &mut Share) -> Option<Result<Message>> {
        // Nothing is to be woken: who comes back registers itself.
        let mut context = Context::from_waker(Waker::noop());
        while !self.body.is_end_stream() {
            match self.body.poll_data(&mut context) {
                Poll::Pending => return None,
                Poll::Ready(None) => break,
                Poll::Ready(Some(data)) => {
                    if let Err(error) = self.take(data, share).and_then(|()| self.check_single()) {
                        return Some(Err(error));
                    }
                }
            }
        }
        Some(self.only_of_all(share))
    }

    /// The only message of a call.
    ///
    /// # Errors
    /// `too_large`; `unavailable` when all requests together hold too much; `cancelled` when it does not come in time or breaks off;
    /// `invalid_argument` when it is not one message, or not compressed as it says.
    pub(crate) async fn only(&mut self, share: &mut Share, timeout: Duration) -> Result<Message> {
        let all = async {
            while let Some(data) = self.body.data().await {
                self.take(data, share)?;
                self.check_single()?;
            }
            Ok::<_, Error>(())
        };
        tokio::time::timeout(timeout, all).await.map_err(|_| too_slow(timeout))??;
        self.only_of_all(share)
    }

    fn only_of_all(&mut self, share: &mut Share) -> Result<Message> {
        match self.take_message(share)? {
            Some(message) => Ok(message),
            None if self.unread().is_empty() => Err(invalid("the call has no message", "send one")),
            None => Err(broken_off()),
        }
    }

    /// The next message of a stream; `None` at its end. It may take any time to begin, and then `timeout`.
    ///
    /// # Errors
    /// As [`Self::only`].
    pub(crate) async fn next(&mut self, share: &mut Share, timeout: Duration) -> Result<Option<Message>> {
        let mut deadline = None;
        loop {
            if let Some(message) = self.take_message(share)? {
                return Ok(Some(message));
            }
            let data = if self.unread().is_empty() {
                self.body.data().await
            } else {
                let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + timeout);
                tokio::time::timeout_at(deadline, self.body.data()).await.map_err(|_| too_slow(timeout))?
            };
            match data {
                Some(data) => self.take(data, share)?,
                None if self.unread().is_empty() => return Ok(None),
                None => return Err(broken_off()),
            }
        }
    }

    fn unread(&self) -> &[u8] {
        if self.pieces.is_empty() { &self.piece } else { &self.pieces }
    }

    fn take(&mut self, data: Result<Bytes, h2::Error>, share: &mut Share) -> Result<()> {
        let data = data.map_err(|_| broken_off())?;
        self.state.earn(data.len());
        // Room for the next pieces; the connection tells the client.
        drop(self.body.flow_control().release_capacity(data.len()));
        share.take(data.len())?;
        if self.unread().is_empty() {
            self.piece = data;
        } else {
            if self.pieces.is_empty() {
                self.pieces.extend_from_slice(&std::mem::take(&mut self.piece));
            }
            self.pieces.extend_from_slice(&data);
        }
        self.length().map(drop)
    }

    /// # Errors
    /// `invalid_argument` when more has come than one message.
    fn check_single(&self) -> Result<()> {
        match self.length()? {
            Some(length) if self.unread().len() > FRAME_HEAD_BYTES + length => {
                Err(invalid("the call has more than one message", "send one"))
            }
            _ => Ok(()),
        }
    }

    /// What the head of the next message says, once it is there; what is too long is refused before it has come.
    fn length(&self) -> Result<Option<usize>> {
        let Some(head) = self.unread().first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] > 1 {
            return Err(invalid("the bytes before the message are not gRPC's", "use a gRPC client"));
        }
        if length > self.bytes_max {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the message has {length} bytes, the limit is {}", self.bytes_max),
                "split the request, or raise the server's body_bytes_max",
            ));
        }
        Ok(Some(length))
    }

    fn take_message(&mut self, share: &mut Share) -> Result<Option<Message>> {
        let Some(length) = self.length()?.filter(|length| self.unread().len() >= FRAME_HEAD_BYTES + length) else {
            return Ok(None);
        };
        if !self.pieces.is_empty() {
            self.piece = std::mem::take(&mut self.pieces).into();
        }
        let is_compressed = self.piece[0] == 1;
        self.piece.advance(FRAME_HEAD_BYTES);
        let bytes = self.piece.split_to(length);
        if !is_compressed {
            return Ok(Some(Message { bytes, is_compressed }));
        }
        let Some(encoding) = self.encoding else {
            return Err(invalid("a compressed message came without grpc-encoding", "name it: gzip or deflate"));
        };
        let inflated = inflate_as(encoding.name(), bytes, self.bytes_max)?;
        share.take(inflated.len().saturating_sub(length))?;
        Ok(Some(Message { bytes: inflated, is_compressed }))
    }
}

fn invalid(message: &str, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, message, hint)
}

fn broken_off() -> Error {
    Error::new(ErrorCode::Cancelled, "the message broke off", "send the whole message")
}

fn too_slow(timeout: Duration) -> Error {
    Error::new(
        ErrorCode::Cancelled,
        format!("the message did not come within {} s", timeout.as_secs_f64()),
        "send it faster, or raise the server's body timeout",
    )
}
