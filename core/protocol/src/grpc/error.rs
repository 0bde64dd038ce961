//! Errors as gRPC's status codes.

use headrace_types::ErrorCode;

pub const STATUS_OK: u8 = 0;
pub const STATUS_UNIMPLEMENTED: u8 = 12;

/// The names of gRPC's status codes, by their number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The gRPC status of an error: what [`crate::http_status`] is over HTTP.
pub fn status_code(code: ErrorCode) -> u8 {
    match (code, crate::http_status(code)) {
        (ErrorCode::MethodNotAllowed | ErrorCode::Unsupported, _) => STATUS_UNIMPLEMENTED,
        (ErrorCode::Cancelled, _) => 1,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404) => 5,
        (_, 413 | 429 | 507) => 8,
        (_, 500) => 13,
        (_, 503) => 14,
        (_, 504) => 4,
        _ => 3,
    }
}

/// The name of a status code.
pub fn status_name(code: u8) -> &'static str {
    NAMES.get(usize::from(code)).unwrap_or(&NAMES[2])
}
