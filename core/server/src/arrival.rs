//! A request between its last byte and its decoding.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_engine::Deployment;
use http::{HeaderMap, HeaderValue};

use crate::handler::{Asked, Prediction};
use crate::later::EngineResponse;
use crate::record::Record;

/// Bytes of a request's id in a header; a longer one is none.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The header that names a request, in the request and in its answer.
pub(crate) const REQUEST_ID: &str = "x-request-id";

#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    /// From then to its last byte.
    pub(crate) read: Duration,
    /// When the client stops waiting, as far as the transport knows.
    pub(crate) deadline: Option<Instant>,
    /// What counts as its id where the body has none.
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) record: Option<Arc<Record>>,
}

/// The id that a header gives the request, if it is printable and short.
pub(crate) fn request_id_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_sound = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    is_sound.then(|| id.clone())
}

impl Arrival {
    /// The prediction that was decoded since `began`.
    pub(crate) fn decoded(&self, deployment: Arc<Deployment>, mut asked: Asked, began: Instant) -> Box<Prediction> {
        let decode = began.elapsed();
        let (id, decoded_in) = match &mut asked {
            Asked::Predict(request) | Asked::Sequences(request) => {
                request.arrived(self.at, self.deadline);
                (&mut request.id, &mut request.decoded_in)
            }
            Asked::Infer(infer) => {
                infer.arrived(self.at, self.deadline);
                infer.id_and_decoded_in()
            }
        };
        *decoded_in = self.read + decode;
        if id.as_deref().is_none_or(str::is_empty) {
            let given = self.request_id.as_ref().and_then(|id| id.to_str().ok());
            *id = given.map(str::to_owned).or(id.take());
        }
        if let Some(record) = &self.record {
            record.decoded(&deployment, id.as_deref(), self.read, decode);
        }
        Box::new(Prediction { deployment, asked, read: self.read, decode, record: self.record.clone() })
    }
}

impl Prediction {
    /// Tells what the engine has answered, and notes how long that and what went before has taken.
    pub(crate) fn tell<R>(&self, response: EngineResponse, reply: impl FnOnce(&Prediction, EngineResponse) -> R) -> R {
        let noted = self.record.as_ref().map(|record| {
            let (id, rows, timing) = response.facts();
            (record, id.to_owned(), rows, timing)
        });
        let began = Instant::now();
        let reply = reply(self, response);
        let encode = began.elapsed();
        self.deployment.metrics().record_transport([self.read, self.decode, encode]);
        if let Some((record, id, rows, timing)) = noted {
            record.answered(&id, rows, timing, encode);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_printable_and_short() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            request_id_of(&headers).map(|id| id.as_bytes().to_vec())
        };
        assert_eq!(id(b"7f-a"), Some(b"7f-a".to_vec()));
        for wrong in [&b""[..], b"a b", b"a\tb", b"\xe4", &[b'a'; 129]] {
            assert_eq!(id(wrong), None, "{wrong:?}");
        }
        assert_eq!(request_id_of(&HeaderMap::new()), None);
    }
}
