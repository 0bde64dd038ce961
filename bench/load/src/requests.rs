//! The file of requests: what is sent, in turn, so that no two calls in a row are equal.

use std::fs;
use std::io;
use std::path::Path;

/// Reads `u32` (little endian) lengths, each followed by so many bytes: a whole HTTP/1.1 request, or a gRPC message without its prefix.
///
/// # Errors
/// When the file cannot be read, breaks off, or holds nothing.
pub fn read_requests(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path)?;
    let mut rest = bytes.as_slice();
    let mut requests = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (request, after) = after.split_at_checked(length).ok_or_else(|| broken(path, "breaks off"))?;
        requests.push(request.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(broken(path, "breaks off"));
    }
    if requests.is_empty() {
        return Err(broken(path, "holds no request"));
    }
    Ok(requests)
}

fn broken(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
