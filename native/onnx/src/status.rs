//! A status of the library as an error: its text, shortened to what a person can read.

use std::ffi::CStr;

use headrace_types::{Error, ErrorCode};

use crate::api::{Api, Status};

/// Characters of the library's text that a message keeps.
const TEXT_CHARS_MAX: usize = 600;

/// # Safety
/// `status` is what a function of `api` has just returned, and nobody else releases it.
pub(crate) unsafe fn check(api: &Api, status: Status) -> Result<(), String> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null is alive until it is released below; its text is a C string that lives as long.
    let text = unsafe { CStr::from_ptr((api.get_error_message)(status)) }.to_string_lossy();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = words.chars().take(TEXT_CHARS_MAX).collect();
    // SAFETY: the caller owns the status, and it is not used after this.
    unsafe { (api.release_status)(status) };
    Err(text)
}

pub(crate) fn unavailable(message: impl Into<String>) -> Error {
    Error::new(
        ErrorCode::Unavailable,
        message,
        "pip install onnxruntime, or give the path of libonnxruntime.so in HEADRACE_ONNXRUNTIME",
    )
}
