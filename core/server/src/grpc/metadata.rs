//! What the headers of a call say.

use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode};
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::answer::Failure;
use super::method::Method;
use crate::compress::Encoding;

/// A call before its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) method: Method,
    pub(crate) arrived: Instant,
    /// When the client stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// Of the messages that come compressed, and of the answers to those.
    pub(crate) encoding: Option<Encoding>,
}

impl Opened {
    /// # Errors
    /// The refusal of what is no call of ours.
    pub(crate) fn of(head: &Parts, arrived: Instant) -> Result<Self, Failure> {
        let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
        let content_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
        if !content_type.starts_with("application/grpc") || content_type.starts_with("application/grpc-web") {
            return Err(Failure::unimplemented(
                format!("the content type '{}' is not served here", short(content_type)),
                "this port speaks gRPC; HTTP requests go to the HTTP port",
            ));
        }
        let path = head.uri.path();
        let Some(method) = Method::of_path(path) else {
            return Err(Failure::unimplemented(
                format!("there is no method '{}'", short(path)),
                "use inference.GRPCInferenceService or headrace.v1.Headrace; the server's reflection lists their methods",
            ));
        };
        let timeout = match text("grpc-timeout") {
            None => None,
            Some(text) => Some(timeout_of(text).ok_or_else(|| {
                invalid(format!("grpc-timeout '{}' is not a timeout", short(text)), "write it like 500m or 2S")
            })?),
        };
        let encoding = match text("grpc-encoding") {
            None | Some("identity") => None,
            Some("gzip") => Some(Encoding::Gzip),
            Some("deflate") => Some(Encoding::Deflate),
            Some(other) => {
                let what = format!("the message encoding '{}' is not known", short(other));
                return Err(Failure::unimplemented(what, "use gzip, deflate or identity"));
            }
        };
        // A timeout beyond what the clock can tell is none.
        let deadline = timeout.and_then(|timeout| arrived.checked_add(timeout));
        Ok(Self { method, arrived, deadline, encoding })
    }
}

fn invalid(message: String, hint: &str) -> Failure {
    Failure::from(Error::new(ErrorCode::InvalidArgument, message, hint))
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// At most eight digits and a unit.
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, timeout) in [
            ("5S", Some(Duration::from_secs(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0n", Some(Duration::ZERO)),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("2M", Some(Duration::from_secs(120))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("100000000S", None),
            ("5é", None),
        ] {
            assert_eq!(timeout_of(text), timeout, "{text}");
        }
    }
}
