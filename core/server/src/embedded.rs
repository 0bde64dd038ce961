//! The server's answers without its sockets, for a program that has a server of its own: one request in, one reply out.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use headrace_engine::Engine;
use headrace_types::{Error, ErrorCode, Result};
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{HeaderMap, HeaderName, Method};

use crate::access::Permit;
use crate::arrival::{Arrival, request_id_of};
use crate::body::{inflate, too_large};
use crate::compress::{Encoding, compressed_here};
use crate::errands::ErrandQueues;
use crate::handler::{Decoded, Handled, Prediction, Reply, decode_errand, handle, handle_whole, routed, unpanicked};
use crate::later::{EngineResponse, LONG_BODY_BYTES, Made, Queued};
use crate::repository::{ModelChange, change_queue};
use crate::route::Route;
use crate::writes::{ViewWrite, write_queue};

/// Answers requests by the handlers of the server. Cheap to share; every call is independent.
#[derive(Debug)]
pub struct Embedded {
    engine: Arc<Engine>,
    body_bytes_max: usize,
    /// Only asked whether errands are taken: the program around makes them itself.
    errands: ErrandQueues,
}

/// One request, whole.
#[derive(Debug)]
pub struct EmbeddedRequest<'a> {
    pub method: &'a str,
    /// As it was sent: percent-encoded, without the query.
    pub path: &'a str,
    /// Names and values; what is no header is left out.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    /// One byte more than the limit is as good as all of a larger one.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug)]
pub struct EmbeddedReply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// What has become of a request.
#[derive(Debug)]
pub enum Begun {
    Answered(EmbeddedReply),
    /// Its answer is made by [`Later::finish`], on a thread that may wait.
    Later(Later),
    /// The program around makes it, and then [`Later::told`] answers.
    Write(ViewWrite, Later),
    ChangeModel(ModelChange, Later),
}

/// A request that is answered later.
#[derive(Debug)]
pub struct Later {
    engine: Arc<Engine>,
    work: Work,
    accepted: Option<Encoding>,
    request_id: Option<HeaderValue>,
}

#[derive(Debug)]
enum Work {
    /// From decoding to the answer.
    Whole(Box<Whole>),
    Long(Box<Prediction>),
    Queued(Queued),
    Errand,
}

#[derive(Debug)]
struct Whole {
    route: Route,
    headers: HeaderMap,
    body: Bytes,
    arrival: Arrival,
}

impl Embedded {
    /// `writes` and `model_control` are whether such requests are handed out, or refused.
    pub fn new(engine: Arc<Engine>, body_bytes_max: usize, writes: bool, model_control: bool) -> Self {
        let errands = ErrandQueues { writes: write_queue(usize::from(writes)), models: change_queue(model_control) };
        Self { engine, body_bytes_max, errands }
    }

    /// Answers a request, if that is cheap. Whatever it holds, it neither fails nor panics.
    pub fn begin(&self, request: EmbeddedRequest<'_>) -> Begun {
        let at = Instant::now();
        let headers = header_map(&request.headers);
        let accepted = Encoding::accepted(&headers);
        let request_id = request_id_of(&headers);
        let answered = |reply: Reply| Begun::Answered(embedded(compressed_here(reply, accepted), request_id.clone()));
        let routed = match Method::from_bytes(request.method.as_bytes()) {
            Ok(method) => routed(&method, request.path).map(|route| (route, method)),
            Err(_) => Err(Reply::error(&no_method(request.method))),
        };
        let (route, method) = match routed {
            Ok(routed) => routed,
            Err(refusal) => return answered(refusal),
        };
        let body = match self.read(&headers, request.body) {
            // What only shows something must not change it, whatever a client sends along.
            Ok(body) => {
                if method == Method::POST {
                    body
                } else {
                    Bytes::new()
                }
            }
            Err(error) => return answered(Reply::error(&error)),
        };
        let later = |work| Later { engine: Arc::clone(&self.engine), work, accepted, request_id: request_id.clone() };
        if route.is_errand() {
            let decoded = || decode_errand(&self.engine, &self.errands, &route, &headers, &body);
            return match unpanicked(decoded, || {}) {
                Ok(Decoded::Write(write)) => Begun::Write(write, later(Work::Errand)),
                Ok(Decoded::ModelChange(change)) => Begun::ChangeModel(change, later(Work::Errand)),
                Err(error) => answered(Reply::error(&error)),
            };
        }
        let id = request_id.clone();
        let arrival = Arrival { at, read: at.elapsed(), deadline: None, request_id: id, record: None };
        if body.len() > LONG_BODY_BYTES {
            return Begun::Later(later(Work::Whole(Box::new(Whole { route, headers, body, arrival }))));
        }
        match handle(&self.engine, &route, &headers, &body, &arrival, &Permit::Open, || {}) {
            Handled::Answered(reply) => answered(reply),
            Handled::Long(prediction) => Begun::Later(later(Work::Long(prediction))),
            Handled::Queued(queued) => Begun::Later(later(Work::Queued(queued))),
        }
    }

    fn read(&self, headers: &HeaderMap, body: Bytes) -> Result<Bytes> {
        if body.len() > self.body_bytes_max {
            return Err(too_large(self.body_bytes_max));
        }
        inflate(headers, body, self.body_bytes_max)
    }
}

impl Later {
    /// Makes the answer, however long that takes.
    pub fn finish(self) -> EmbeddedReply {
        let engine = &*self.engine;
        let made = match self.work {
            Work::Whole(whole) => {
                let Whole { route, headers, body, arrival } = *whole;
                handle_whole(engine, &route, &headers, &body, &arrival, &Permit::Open, || {})
            }
            Work::Long(prediction) => prediction.made_whole(engine, || {}),
            Work::Queued(queued) => Made::Queued(queued),
            Work::Errand => Made::Answered(Reply::error(&Error::internal("nobody has run an errand"))),
        };
        let reply = match made {
            Made::Answered(reply) => reply,
            Made::Queued(queued) => {
                let told = || {
                    let (prediction, response) = queued.waited();
                    Ok(prediction.told(EngineResponse::Rows(response?)))
                };
                unpanicked(told, || {}).unwrap_or_else(|error| Reply::error(&error))
            }
        };
        embedded(compressed_here(reply, self.accepted), self.request_id)
    }

    /// The answer to an errand that was run: its body, or why it failed.
    pub fn told(self, answer: Result<Vec<u8>>) -> EmbeddedReply {
        let reply = answer.map_or_else(|error| Reply::error(&error), Reply::ok);
        embedded(compressed_here(reply, self.accepted), self.request_id)
    }
}

fn no_method(method: &str) -> Error {
    let shown: String = method.chars().take(40).collect();
    Error::new(ErrorCode::MethodNotAllowed, format!("'{shown}' is no method"), "use GET or POST")
}

/// Several lines of Accept-Encoding are one list.
fn header_map(given: &[(&[u8], &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            && (name != ACCEPT_ENCODING || !headers.contains_key(&name))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// The reply with the headers that the server sends.
fn embedded(reply: Reply, request_id: Option<HeaderValue>) -> EmbeddedReply {
    let mut headers = HeaderMap::with_capacity(4);
    reply.tell_headers(request_id, &mut headers);
    EmbeddedReply { status: reply.status, headers, body: reply.body }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::header::{ALLOW, CONTENT_TYPE};

    use super::*;
    use headrace_engine::EngineOptions;
    use headrace_engine::testing::sum_regressor;

    fn embedded(writes: bool) -> Embedded {
        let engine = Engine::new(EngineOptions::default());
        engine.add_model(sum_regressor("minutes", 1, &["a"])).unwrap();
        Embedded::new(Arc::new(engine), 1 << 20, writes, writes)
    }

    fn ask(embedded: &Embedded, method: &str, path: &str, body: &[u8]) -> EmbeddedReply {
        let body = Bytes::copy_from_slice(body);
        match embedded.begin(EmbeddedRequest { method, path, headers: Vec::new(), body }) {
            Begun::Answered(reply) => reply,
            Begun::Later(later) => later.finish(),
            Begun::Write(_, later) | Begun::ChangeModel(_, later) => later.told(Ok(b"{}".to_vec())),
        }
    }

    #[test]
    fn requests_are_answered_as_the_server_does() {
        let embedded = embedded(false);
        let path = "/v1/deployments/minutes/predict";
        for (method, path, body, status) in [
            ("GET", "/v2/health/live", &b""[..], 200),
            ("POST", path, br#"{"features": {"a": [1]}}"#, 200),
            ("POST", path, br#"{"features": {"a": [1]}, "explain": true}"#, 200),
            ("POST", path, b"{", 400),
            ("GET", path, b"", 405),
            ("no method", path, b"", 405),
            ("GET", "/nothing", b"", 404),
            ("POST", path, &vec![b' '; (1 << 20) + 1], 413),
            ("POST", path, &vec![b' '; 1 << 20], 400),
            ("POST", "/v1/feature-views/v/push", b"{}", 403),
            ("POST", "/v2/repository/models/m/load", b"{}", 403),
        ] {
            let reply = ask(&embedded, method, path, body);
            assert_eq!(reply.status, status, "{method} {path}: {}", String::from_utf8_lossy(&reply.body));
            assert!(reply.headers.contains_key(CONTENT_TYPE));
        }
        assert_eq!(ask(&embedded, "GET", path, b"").headers[ALLOW], "POST");
    }

    #[test]
    fn errands_are_handed_out_where_they_are_allowed() {
        let embedded = embedded(true);
        let reply = ask(&embedded, "POST", "/v2/repository/models/m/load", b"");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
    }
}
