//! What a server is told of its traces.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use headrace_types::{Error, ErrorCode, Result};
use http::Uri;

/// Where traces go, and which.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    pub endpoint: Endpoint,
    /// The share of traces that are recorded, from 0 to 1, where the caller has not decided.
    pub ratio: f64,
    /// Whether the caller's flag decides where it sends one.
    pub is_parent_based: bool,
    /// What the spans are said to come from: `service.name` and further attributes.
    pub resource: Vec<(String, String)>,
    /// Sent with each export, such as a collector's key.
    pub headers: ExportHeaders,
}

/// Headers whose values are not printed.
#[derive(Clone, Default)]
pub struct ExportHeaders(pub Vec<(String, String)>);

impl fmt::Debug for ExportHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// An `http://` address that takes OTLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// Reads an address such as `http://127.0.0.1:4318`; one without a path gets that of OTLP, `/v1/traces`.
    ///
    /// # Errors
    /// `invalid_argument` for what is no `http://` address.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str, hint: &str| {
            Error::new(ErrorCode::InvalidArgument, format!("the traces endpoint '{text}' {why}"), hint)
        };
        let example = "write it like http://127.0.0.1:4318";
        let uri: Uri = text.parse().map_err(|_| wrong("is no address", example))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                let hint = "send to a collector on this machine, which passes traces on with TLS";
                return Err(wrong("is https, which is not spoken here", hint));
            }
            _ => return Err(wrong("does not begin with http://", example)),
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host", example))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it", "give credentials as headers"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong("has no host", example));
        }
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" => 80,
            _ => authority.port_u16().ok_or_else(|| wrong("has no such port", example))?,
        };
        let path = match uri.path() {
            "" | "/" => "/v1/traces".to_owned(),
            path => uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
        };
        Ok(Self { host, port, path })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The host as a `Host` header names it.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    pub(crate) fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl TracesConfig {
    /// # Errors
    /// `invalid_argument` naming a ratio or a header that is none.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.ratio) {
            let message = format!("the ratio of traces is {}", self.ratio);
            return Err(Error::new(ErrorCode::InvalidArgument, message, "give a share from 0 to 1"));
        }
        for (name, value) in &self.headers.0 {
            let is_sound = http::HeaderName::try_from(name.as_str()).is_ok()
                && http::HeaderValue::try_from(value.as_str()).is_ok();
            if !is_sound {
                let message = format!("the traces header '{name}' is none, or its value");
                return Err(Error::new(ErrorCode::InvalidArgument, message, "use letters, digits and dashes"));
            }
        }
        Ok(())
    }

    /// Whether a trace is recorded: the decision of every sampler that goes by the trace's id, so that services agree.
    pub(crate) fn samples(&self, trace_id: &[u8; 16], parent_sampled: Option<bool>) -> bool {
        if let (true, Some(is_sampled)) = (self.is_parent_based, parent_sampled) {
            return is_sampled;
        }
        let low = trace_id.last_chunk::<8>().map_or(0, |low| u64::from_be_bytes(*low));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a ratio of 1 is answered before
        let bound = (self.ratio * 2f64.powi(64)) as u64;
        self.ratio >= 1.0 || low < bound
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ids::new_trace_id;
    use super::*;

    fn config(ratio: f64, is_parent_based: bool) -> TracesConfig {
        let endpoint = Endpoint::parse("http://[::1]:4318").unwrap();
        let headers = ExportHeaders(vec![("x-key".to_owned(), "hidden".to_owned())]);
        TracesConfig { endpoint, ratio, is_parent_based, resource: Vec::new(), headers }
    }

    #[test]
    fn endpoints_are_http_addresses() {
        let parsed = |text| Endpoint::parse(text).unwrap();
        let plain = parsed("http://collector:4318");
        assert_eq!((plain.authority().as_str(), plain.path()), ("collector:4318", "/v1/traces"));
        assert_eq!(parsed("http://h/").path(), "/v1/traces");
        assert_eq!(parsed("http://h/custom?x=1").path(), "/custom?x=1");
        assert_eq!(parsed("http://h").authority(), "h:80");
        assert_eq!(parsed("http://[::1]:9").authority(), "[::1]:9");
        for wrong in
            ["", "collector:4318", "https://h:1", "grpc://h:1", "http://u:p@h:1", "http://", "http://h:99999", "/x"]
        {
            assert_eq!(Endpoint::parse(wrong).unwrap_err().code, ErrorCode::InvalidArgument, "{wrong}");
        }
    }

    #[test]
    fn the_callers_flag_goes_first_and_else_the_ratio() {
        let share =
            |config: &TracesConfig, parent| (0..4000).filter(|_| config.samples(&new_trace_id(), parent)).count();
        assert_eq!(share(&config(0.0, true), Some(true)), 4000);
        assert_eq!(share(&config(1.0, true), Some(false)), 0);
        assert_eq!(share(&config(1.0, false), Some(false)), 4000);
        assert_eq!(share(&config(0.0, true), None), 0);
        let quarter = share(&config(0.25, true), None);
        assert!((800..1200).contains(&quarter), "{quarter}");
        // The same trace is recorded here as where a sampler compares the low half of its id with the ratio.
        let id = |low: u64| (u128::from(low)).to_be_bytes();
        assert!(config(0.5, true).samples(&id((1 << 63) - 1), None));
        assert!(!config(0.5, true).samples(&id(1 << 63), None));
    }

    #[test]
    fn a_ratio_and_headers_are_checked_and_secrets_not_printed() {
        assert!(config(0.5, true).check().is_ok());
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert!(config(ratio, true).check().is_err(), "{ratio}");
        }
        let mut wrong = config(1.0, true);
        wrong.headers.0.push(("x".to_owned(), "a\r\nb: c".to_owned()));
        assert!(wrong.check().is_err());
        let printed = format!("{:?}", config(1.0, true));
        assert!(printed.contains("x-key") && !printed.contains("hidden"), "{printed}");
    }
}
