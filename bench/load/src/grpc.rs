//! As much of HTTP/2 as one unary gRPC call at a time on a connection takes: frames, no compression of headers.

/// What a client says first, and a receive window that small answers never fill.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WINDOW: u32 = 1 << 30;
const FRAME_HEAD_BYTES: usize = 9;
/// The largest frame that every peer takes.
const FRAME_BYTES_MAX: usize = 16 << 10;
const MESSAGE_PREFIX_BYTES: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Answers have no HTTP status of their own: this stands for a message, and the other for an end without one.
const ANSWERED: u16 = 200;
const FAILED: u16 = 500;

/// One connection's calls.
#[derive(Debug)]
pub(crate) struct Calls {
    path: String,
    stream: u32,
    has_message: bool,
    consumed_bytes: u32,
}

impl Calls {
    pub(crate) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), stream: 0, has_message: false, consumed_bytes: 0 }
    }

    /// What opens the connection.
    pub(crate) fn opening() -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        frame(&mut bytes, SETTINGS, 0, 0, &setting);
        frame(&mut bytes, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        bytes
    }

    /// The frames of a call.
    ///
    /// # Errors
    /// For a message that needs more than one frame.
    pub(crate) fn call(&mut self, message: &[u8]) -> Result<Vec<u8>, String> {
        if message.len() + MESSAGE_PREFIX_BYTES > FRAME_BYTES_MAX {
            return Err(format!("a message of {} bytes does not fit one frame", message.len()));
        }
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.has_message = false;
        let mut fields = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.path.as_str()),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            literal(&mut fields, name, value)?;
        }
        let mut bytes = Vec::with_capacity(message.len() + fields.len() + 32);
        frame(&mut bytes, HEADERS, END_HEADERS, self.stream, &fields);
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let prefixed = [&[0u8][..], &length.to_be_bytes(), message].concat();
        frame(&mut bytes, DATA, END_STREAM, self.stream, &prefixed);
        Ok(bytes)
    }

    /// Takes whole frames off the front of `received`; frames that the peer is owed go to `replies`. Gives the call's status with its last frame.
    ///
    /// # Errors
    /// When the peer ends the connection.
    pub(crate) fn take(&mut self, received: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Option<u16>, String> {
        let mut at = 0;
        let mut ended = None;
        while let Some((kind, flags, stream, payload)) = front_frame(&received[at..]) {
            at += FRAME_HEAD_BYTES + payload.len();
            match kind {
                DATA => {
                    self.has_message |= !payload.is_empty();
                    self.consumed_bytes += u32::try_from(payload.len()).unwrap_or(0);
                }
                SETTINGS if flags & ACK == 0 => frame(replies, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(replies, PING, ACK, 0, payload),
                GOAWAY => return Err("the peer ended the connection (GOAWAY)".to_owned()),
                _ => {}
            }
            if stream == self.stream && (kind == RST_STREAM || (kind <= HEADERS && flags & END_STREAM != 0)) {
                ended = Some(if self.has_message && kind != RST_STREAM { ANSWERED } else { FAILED });
            }
        }
        received.drain(..at);
        if self.consumed_bytes > WINDOW / 2 {
            frame(replies, WINDOW_UPDATE, 0, 0, &self.consumed_bytes.to_be_bytes());
            self.consumed_bytes = 0;
        }
        Ok(ended)
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn front_frame(bytes: &[u8]) -> Option<(u8, u8, u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, rest.get(..length)?))
}

/// A header field with a new name, which the peer keeps in no table (HPACK, RFC 7541, 6.2.2).
fn literal(bytes: &mut Vec<u8>, name: &str, value: &str) -> Result<(), String> {
    bytes.push(0);
    for text in [name, value] {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        bytes.push(length.ok_or_else(|| format!("'{text}' is too long for a header"))?);
        bytes.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_ends_with_its_trailers_and_settings_are_acknowledged() {
        let mut calls = Calls::new("/inference.GRPCInferenceService/ModelInfer");
        let sent = calls.call(b"message").unwrap();
        assert_eq!(sent[3], HEADERS);
        assert!(sent.ends_with(b"\x00\x00\x00\x00\x07message"));
        let mut answer = Vec::new();
        frame(&mut answer, SETTINGS, 0, 0, &[]);
        frame(&mut answer, HEADERS, END_HEADERS, 1, b"headers");
        frame(&mut answer, DATA, 0, 1, b"\x00\x00\x00\x00\x01x");
        let mut received = answer.clone();
        frame(&mut received, HEADERS, END_HEADERS | END_STREAM, 1, b"trailers");
        let last = received.split_off(received.len() - 1);
        let mut replies = Vec::new();
        assert_eq!(calls.take(&mut received, &mut replies), Ok(None));
        assert_eq!(replies, [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
        received.extend(last);
        assert_eq!(calls.take(&mut received, &mut replies), Ok(Some(ANSWERED)));
        assert!(received.is_empty());
    }

    #[test]
    fn an_end_without_a_message_is_a_failure() {
        let mut calls = Calls::new("/x/Y");
        calls.call(b"").unwrap();
        calls.call(b"").unwrap();
        let mut received = Vec::new();
        frame(&mut received, HEADERS, END_HEADERS | END_STREAM, 1, b"of the call before");
        frame(&mut received, HEADERS, END_HEADERS | END_STREAM, 3, b"status 14");
        assert_eq!(calls.take(&mut received, &mut Vec::new()), Ok(Some(FAILED)));
        frame(&mut received, GOAWAY, 0, 0, &[0; 8]);
        assert!(calls.take(&mut received, &mut Vec::new()).is_err());
        assert!(calls.call(&[0; FRAME_BYTES_MAX]).is_err());
    }
}
