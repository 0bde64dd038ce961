//! Answers as they leave: messages with their five bytes in front, and the trailers with status and reason.

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use headrace_protocol::grpc::{STATUS_OK, STATUS_UNIMPLEMENTED, status_code};
use headrace_types::{Error, ErrorCode, Result};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use super::state::Sending;
use crate::budget::Share;
use crate::compress::Encoding;

/// Before each message: whether it is compressed, and its length as four bytes.
pub(crate) const FRAME_HEAD_BYTES: usize = 5;
/// Bytes of a reason that are told; what a header may hold is bounded.
const REASON_BYTES_MAX: usize = 2048;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Our stable slug of an error.
const HEADRACE_CODE: HeaderName = HeaderName::from_static("headrace-code");

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status_code(error.code), error }
    }
}

impl Failure {
    /// For what is not served, here or at all.
    pub(crate) fn unimplemented(message: impl Into<String>, hint: &str) -> Self {
        let error = Error::new(ErrorCode::MethodNotAllowed, message, hint);
        Self { status: STATUS_UNIMPLEMENTED, error }
    }
}

/// An answer: a framed message, or the reason why there is none.
pub(crate) type Answer = Result<Vec<u8>, Failure>;

/// The status of an answer, for counting.
pub(crate) fn status_of(answer: &Answer) -> u8 {
    answer.as_ref().map_or_else(|failure| failure.status, |_| STATUS_OK)
}

/// A framed message, whose content is written behind the room for its head.
pub(crate) fn framed(bytes_about: usize, content: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Answer {
    let mut message = Vec::with_capacity(FRAME_HEAD_BYTES + bytes_about);
    message.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    content(&mut message)?;
    set_length(&mut message)?;
    Ok(message)
}

fn set_length(message: &mut [u8]) -> Result<()> {
    let Some((head, content)) = message.split_first_chunk_mut::<FRAME_HEAD_BYTES>() else { return Ok(()) };
    let length = u32::try_from(content.len()).map_err(|_| {
        Error::new(ErrorCode::TooLarge, "the answer is larger than 4 GiB", "split the request into several")
    })?;
    head[1..].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The message compressed, if that makes it smaller.
pub(crate) fn compressed(message: Vec<u8>, encoding: Option<Encoding>) -> Vec<u8> {
    let Some(encoding) = encoding else { return message };
    let Some((_, content)) = message.split_first_chunk::<FRAME_HEAD_BYTES>() else { return message };
    let mut smaller = Vec::with_capacity(message.len() / 2);
    smaller.extend_from_slice(&[1, 0, 0, 0, 0]);
    match encoding.append(smaller, content) {
        Ok(mut smaller) if smaller.len() < message.len() => {
            // It has fewer bytes than the message, whose length was told.
            if set_length(&mut smaller).is_ok() { smaller } else { message }
        }
        _ => message,
    }
}

/// Bytes that keep their share of the budget, and their connection busy, until they are sent.
struct Held {
    bytes: Vec<u8>,
    _share: Share,
    _sending: Sending,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A message that counts as memory until it is sent.
pub(crate) fn held(bytes: Vec<u8>, share: Share, sending: Sending) -> Bytes {
    Bytes::from_owner(Held { bytes, _share: share, _sending: sending })
}

/// The headers before messages.
pub(crate) fn answer_headers(encoding: Option<Encoding>) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    if let Some(encoding) = encoding {
        headers.insert(GRPC_ENCODING, HeaderValue::from_static(encoding.name()));
        headers.insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
    }
    response
}

/// Sends the whole answer of a unary call. A client that has gone does not get it.
pub(crate) fn send_unary(mut respond: SendResponse<Bytes>, answer: Result<Bytes, Failure>, encoding: Option<Encoding>) {
    let sent = match answer {
        Ok(message) => respond.send_response(answer_headers(encoding), false).and_then(|mut stream| {
            stream.send_data(message, false)?;
            stream.send_trailers(ok_trailers())
        }),
        Err(failure) => {
            let mut response = Response::new(());
            *response.headers_mut() = trailers_of(&failure);
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
            respond.send_response(response, true).map(drop)
        }
    };
    drop(sent);
}

/// Ends a stream of messages.
pub(crate) fn send_end(stream: &mut SendStream<Bytes>, end: Result<(), Failure>) {
    let trailers = end.map_or_else(|failure| trailers_of(&failure), |()| ok_trailers());
    drop(stream.send_trailers(trailers));
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn trailers_of(failure: &Failure) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(failure.status)));
    if let Ok(reason) = HeaderValue::try_from(percent_encoded(&failure.error.to_string())) {
        trailers.insert(GRPC_MESSAGE, reason);
    }
    trailers.insert(HEADRACE_CODE, HeaderValue::from_static(failure.error.code.slug()));
    trailers
}

/// Everything but printable ASCII as `%41`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        if encoded.len() >= REASON_BYTES_MAX {
            break;
        }
        if (' '..='~').contains(&character) && character != '%' {
            encoded.push(character);
        } else {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                encoded.push('%');
                for digit in [byte >> 4, byte & 15] {
                    encoded.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reason_is_printable_and_bounded() {
        assert_eq!(percent_encoded("100% of 'ä'\n"), "100%25 of '%C3%A4'%0A");
        assert!(percent_encoded(&"ä".repeat(10_000)).len() <= REASON_BYTES_MAX + 6);
    }

    #[test]
    fn a_message_has_its_length_in_front_and_is_compressed_where_that_helps() {
        let message = framed(0, |out| {
            out.extend_from_slice(&[7; 1000]);
            Ok(())
        })
        .unwrap();
        assert_eq!(message[..6], [0, 0, 0, 3, 232, 7]);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let smaller = compressed(message.clone(), Some(encoding));
            assert_eq!(smaller[0], 1);
            assert_eq!(u32::from_be_bytes(*smaller[1..].first_chunk().unwrap()) as usize, smaller.len() - 5);
        }
        assert_eq!(compressed(vec![0, 0, 0, 0, 1, 9], Some(Encoding::Gzip)), [0, 0, 0, 0, 1, 9]);
    }
}
