//! Reads a request's body within its limits, and inflates it within the same limits.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use headrace_types::{Error, ErrorCode, Result};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::budget::Share;

/// Bytes of a refused body that are still read, so that a client that only listens after sending gets its answer.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
/// A client that pauses this long within a refused body listens already.
const DISCARD_PAUSE: Duration = Duration::from_millis(100);
/// How long a refused body is read on at most.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The whole body, inflated.
///
/// # Errors
/// `too_large`, `unavailable` when all requests together hold too much, `cancelled` when it does not come in time or breaks off, `invalid_argument` for an encoding that is unknown or broken.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    mut body: Incoming,
    bytes_max: usize,
    timeout: Duration,
    share: &mut Share,
) -> Result<Bytes> {
    let read = async {
        let declared = content_length(headers);
        if declared.is_some_and(|length| length > bytes_max) {
            return Err(too_large(bytes_max));
        }
        collect(&mut body, declared, bytes_max, share).await
    };
    let raw = match tokio::time::timeout(timeout, read).await {
        Ok(Ok(raw)) => raw,
        Ok(Err(error)) => {
            share.release();
            discard_body(body).await;
            return Err(error);
        }
        Err(_) => {
            return Err(Error::new(
                ErrorCode::Cancelled,
                format!("the body did not come within {} s", timeout.as_secs_f64()),
                "send it faster, or raise the server's body timeout",
            ));
        }
    };
    let raw_bytes = raw.len();
    let inflated = inflate(headers, raw, bytes_max)?;
    share.take(inflated.len().saturating_sub(raw_bytes))?;
    Ok(inflated)
}

/// Reads what still comes of the body of a refused request: a connection with unread bytes would have to be closed.
pub(crate) async fn discard_body(mut body: Incoming) {
    // Whether all of it came or not, the answer is the same.
    drop(tokio::time::timeout(DISCARD_TIMEOUT, discard(&mut body)).await);
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(body: &mut Incoming, declared: Option<usize>, bytes_max: usize, share: &mut Share) -> Result<Bytes> {
    let mut first: Option<Bytes> = None;
    let mut joined: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Error::new(ErrorCode::Cancelled, format!("the body broke off: {error}"), "send the whole body")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if joined.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.take(data.len())?;
        match first.take() {
            // A small body comes in one piece and is not copied.
            None if joined.is_empty() => first = Some(data),
            earlier => {
                if let Some(earlier) = earlier {
                    joined.reserve(declared.unwrap_or(0).min(bytes_max));
                    joined.extend_from_slice(&earlier);
                }
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.into()))
}

async fn discard(body: &mut Incoming) {
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 && !body.is_end_stream() {
        let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE, body.frame()).await else { return };
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

pub(crate) fn too_large(bytes_max: usize) -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("the body is larger than {bytes_max} bytes"),
        "split the request, or raise the server's body_bytes_max",
    )
}

/// The bytes as the header says that they are compressed.
///
/// # Errors
/// As [`inflate_as`].
pub(crate) fn inflate(headers: &HeaderMap, raw: Bytes, bytes_max: usize) -> Result<Bytes> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(raw) };
    inflate_as(&encoding.to_str().unwrap_or("?").trim().to_ascii_lowercase(), raw, bytes_max)
}

/// The bytes inflated.
///
/// # Errors
/// `too_large`; `invalid_argument` for an encoding that is unknown or broken.
pub(crate) fn inflate_as(encoding: &str, raw: Bytes, bytes_max: usize) -> Result<Bytes> {
    match encoding {
        "" | "identity" => Ok(raw),
        "gzip" | "x-gzip" => read_bounded(GzDecoder::new(&*raw), bytes_max),
        // The standard means zlib's wrapper; some clients send bare deflate data. Zlib's first byte tells them apart.
        "deflate" if raw.first().is_some_and(|byte| byte & 0x0f == 8) => {
            read_bounded(ZlibDecoder::new(&*raw), bytes_max)
        }
        "deflate" => read_bounded(DeflateDecoder::new(&*raw), bytes_max),
        other => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("the content encoding '{}' is not known", other.chars().take(40).collect::<String>()),
            "use gzip, deflate or identity",
        )),
    }
}

fn read_bounded(decoder: impl Read, bytes_max: usize) -> Result<Bytes> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut inflated).map_err(|error| {
        Error::new(ErrorCode::InvalidArgument, format!("the compressed body is damaged: {error}"), "compress it again")
    })?;
    if inflated.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    fn inflated(encoding: &str, raw: Vec<u8>, bytes_max: usize) -> Result<Bytes> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
        inflate(&headers, raw.into(), bytes_max)
    }

    #[test]
    fn gzip_zlib_and_bare_deflate_come_out_the_same() {
        let text = b"{\"inputs\":[]}".repeat(20);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(&text).unwrap();
        for (encoding, raw) in [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("Deflate", bare.finish().unwrap()),
            ("identity", text.clone()),
        ] {
            assert_eq!(inflated(encoding, raw, 1 << 20).unwrap(), text, "{encoding}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_damage_is_named() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 8 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 16 << 10);
        assert_eq!(inflated("gzip", bomb.clone(), 1 << 20).unwrap_err().code, ErrorCode::TooLarge);
        let error = inflated("gzip", bomb[..bomb.len() / 2].to_vec(), 64 << 20).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(inflated("br", Vec::new(), 10).unwrap_err().code, ErrorCode::InvalidArgument);
    }
}
