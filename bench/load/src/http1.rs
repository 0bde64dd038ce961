//! Where an HTTP/1.1 answer ends.

const HEADER_END: &[u8] = b"\r\n\r\n";
const LENGTH: &[u8] = b"content-length:";

/// The bytes of the answer at the front of `received` and its status; `None` while it is not whole.
///
/// # Errors
/// A text that says what cannot be understood. Answers need a Content-Length: no server under measurement sends chunks.
pub(crate) fn whole_answer(received: &[u8]) -> Result<Option<(usize, u16)>, String> {
    let Some(head_bytes) = received.windows(HEADER_END.len()).position(|window| window == HEADER_END) else {
        return Ok(None);
    };
    let head = &received[..head_bytes];
    let status = head.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok());
    let status =
        status.ok_or_else(|| format!("no HTTP answer: {}", String::from_utf8_lossy(&head[..head.len().min(80)])))?;
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then(|| number(value.trim_ascii()))?
    });
    let length = length.ok_or("an answer without Content-Length")?;
    let bytes = head_bytes + HEADER_END.len() + length;
    Ok((received.len() >= bytes).then_some((bytes, status)))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        for end in 0..answer.len() {
            assert_eq!(whole_answer(&answer[..end]), Ok(None), "{end}");
        }
        assert_eq!(whole_answer(answer), Ok(Some((answer.len(), 503))));
        assert_eq!(whole_answer(&[&answer[..], b"HTTP"].concat()), Ok(Some((answer.len(), 503))));
        assert!(whole_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(whole_answer(b"SSH-2.0-something\r\n\r\n").is_err());
    }
}
