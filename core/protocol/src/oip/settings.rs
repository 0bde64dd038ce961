//! Requests to change the settings of traces and logs.

use headrace_types::{Error, ErrorCode, Result};
use serde_json::{Map, Value};

/// Bytes that a request to change settings may have.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The body of a request that changes settings: a JSON object, or nothing.
///
/// # Errors
/// `too_large`, `invalid_json`, `invalid_argument`.
pub fn decode_settings(body: &[u8]) -> Result<Map<String, Value>> {
    if body.len() > BODY_BYTES_MAX {
        let message = format!("the settings have {} bytes, the limit is {BODY_BYTES_MAX}", body.len());
        return Err(Error::new(ErrorCode::TooLarge, message, "send only what is to change"));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorCode::InvalidJson, error.to_string(), "send a JSON object of settings"))?;
    match value {
        Value::Object(changes) => Ok(changes),
        _ => Err(Error::new(ErrorCode::InvalidArgument, "settings are no object", "send a JSON object of settings")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_are_a_small_object_or_nothing() {
        assert!(decode_settings(b" ").unwrap().is_empty());
        assert_eq!(decode_settings(br#"{"log_info": true}"#).unwrap()["log_info"], true);
        assert_eq!(decode_settings(b"[]").unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(decode_settings(b"{").unwrap_err().code, ErrorCode::InvalidJson);
        assert_eq!(decode_settings(&[b' '; 70_000]).unwrap_err().code, ErrorCode::TooLarge);
    }
}
