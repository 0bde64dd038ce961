//! Errors as a transport answers them: a status, and `{"error": text, "code": slug}`.

use headrace_types::{Error, ErrorCode};
use serde::Serialize;

/// The HTTP status of an error: what the caller can mend is 4xx, what it should try again later is 503.
pub fn http_status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::UnknownModel
        | ErrorCode::UnknownModelVersion
        | ErrorCode::UnknownDeployment
        | ErrorCode::UnknownFeatureService
        | ErrorCode::UnknownFeatureView
        | ErrorCode::NotFound => 404,
        ErrorCode::Unauthenticated => 401,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => 403,
        ErrorCode::RateLimited => 429,
        ErrorCode::MethodNotAllowed => 405,
        ErrorCode::TooLarge => 413,
        ErrorCode::Cancelled => 408,
        ErrorCode::Unavailable | ErrorCode::UsedAfterFork | ErrorCode::StoreLocked => 503,
        ErrorCode::Unsupported => 501,
        ErrorCode::DeadlineExceeded => 504,
        ErrorCode::StoreFull => 507,
        ErrorCode::Internal
        | ErrorCode::Io
        | ErrorCode::CorruptStore
        | ErrorCode::CorruptModel
        | ErrorCode::PortBusy
        | ErrorCode::ModelFailed
        | ErrorCode::FunctionFailed => 500,
        _ => 400,
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'a str,
}

/// The JSON body of an error.
pub fn error_body(error: &Error) -> Vec<u8> {
    let body = Body { error: &error.to_string(), code: error.code.slug() };
    serde_json::to_vec(&body).unwrap_or_else(|_| br#"{"error":"internal error","code":"internal"}"#.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_holds_message_hint_and_slug() {
        let error = Error::new(ErrorCode::UnknownModel, "there is no model 'a\"b'", "list them");
        let expected = r#"{"error":"there is no model 'a\"b' (list them)","code":"unknown_model"}"#;
        assert_eq!(error_body(&error), expected.as_bytes());
        assert_eq!(http_status(error.code), 404);
        assert_eq!(http_status(ErrorCode::LengthMismatch), 400);
        assert_eq!(http_status(ErrorCode::Internal), 500);
    }
}
