//! Answers compressed for clients that take it.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use headrace_types::Error;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::handler::Reply;

/// A smaller answer costs more to compress than to send.
const COMPRESSED_BYTES_MIN: usize = 1 << 10;
/// A larger one is compressed aside: the fastest level takes some 10 ms a MiB.
const LONG_BYTES: usize = 256 << 10;

/// A form of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// In zlib's wrapper, as the standard has it.
    Deflate,
}

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// What the client takes, gzip before deflate.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
        let takes = |name: &str| {
            text.split(',').any(|part| {
                let (coding, quality) = part.split_once(';').unwrap_or((part, ""));
                let quality = quality.trim().strip_prefix("q=").map(str::trim);
                coding.trim().eq_ignore_ascii_case(name)
                    && quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0))
            })
        };
        [Encoding::Gzip, Encoding::Deflate].into_iter().find(|encoding| takes(encoding.name()))
    }

    /// `out`, and the bytes compressed behind it.
    pub(crate) fn append(self, out: Vec<u8>, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
        }
    }
}

/// The answer in a form that the client takes, if that is worth it.
pub(crate) async fn compressed(reply: Reply, accepted: Option<Encoding>) -> Reply {
    let Some(encoding) = worthwhile(&reply, accepted) else { return reply };
    if reply.body.len() < LONG_BYTES {
        return encoded(reply, encoding);
    }
    tokio::task::spawn_blocking(move || encoded(reply, encoding))
        .await
        .unwrap_or_else(|_| Reply::error(&Error::internal("compressing an answer failed")))
}

/// As [`compressed`], on this thread however large it is.
pub(crate) fn compressed_here(reply: Reply, accepted: Option<Encoding>) -> Reply {
    match worthwhile(&reply, accepted) {
        Some(encoding) => encoded(reply, encoding),
        None => reply,
    }
}

fn worthwhile(reply: &Reply, accepted: Option<Encoding>) -> Option<Encoding> {
    accepted.filter(|_| reply.status == 200 && reply.body.len() >= COMPRESSED_BYTES_MIN)
}

fn encoded(reply: Reply, encoding: Encoding) -> Reply {
    match encoding.append(Vec::with_capacity(reply.body.len() / 4), &reply.body) {
        Ok(body) if body.len() < reply.body.len() => Reply { body, encoding: Some(encoding), ..reply },
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_client_says_what_it_takes() {
        for (text, expected) in [
            ("gzip, deflate", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("gzip;q=0, Deflate ; q=0.5", Some(Encoding::Deflate)),
            ("br, identity", None),
            ("gzip;q=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, text.parse().unwrap());
            assert_eq!(Encoding::accepted(&headers), expected, "{text}");
        }
        assert_eq!(Encoding::accepted(&HeaderMap::new()), None);
    }
}
