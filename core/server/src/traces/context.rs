//! W3C Trace Context: what a caller's headers say of the trace that a request belongs to.

use http::HeaderMap;

/// Bytes of `tracestate` that are passed on; a longer one is dropped whole.
const STATE_BYTES_MAX: usize = 512;
/// Members that a `tracestate` may list.
const STATE_MEMBERS_MAX: usize = 32;

/// The caller's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    /// Whether the caller records the trace.
    pub(crate) is_sampled: bool,
    /// What vendors have noted, passed on as it is.
    pub(crate) state: String,
}

impl Parent {
    /// Reads `traceparent` and `tracestate`. Whatever is malformed counts as absent: a caller can neither fail a request with them nor
    /// write what it likes into traces.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all("traceparent").iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let (trace_id, span_id, is_sampled) = parse_traceparent(line.as_bytes())?;
        Some(Self { trace_id, span_id, is_sampled, state: tracestate(headers).unwrap_or_default() })
    }
}

/// `VERSION-TRACE-PARENT-FLAGS` in lower-case hexadecimal. A later version may say more behind a further dash.
fn parse_traceparent(line: &[u8]) -> Option<([u8; 16], [u8; 8], bool)> {
    let (head, rest) = line.split_first_chunk::<55>()?;
    let [version] = bytes_of(&head[..2])?;
    let is_whole = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
    if version == 0xff || !is_whole || [head[2], head[35], head[52]] != [b'-'; 3] {
        return None;
    }
    let (trace_id, span_id) = (bytes_of::<16>(&head[3..35])?, bytes_of::<8>(&head[36..52])?);
    let [flags] = bytes_of(&head[53..])?;
    let is_none = trace_id == [0; 16] || span_id == [0; 8];
    (!is_none).then_some((trace_id, span_id, flags & 1 == 1))
}

/// Bytes of their lower-case hexadecimal digits.
fn bytes_of<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// The members of all `tracestate` headers, joined; nothing when one of them is malformed.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let mut joined = String::new();
    let mut members = 0;
    for line in headers.get_all("tracestate") {
        for member in line.to_str().ok()?.split(',').map(|member| member.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            members += 1;
            if !is_member(member) || members > STATE_MEMBERS_MAX || joined.len() + member.len() >= STATE_BYTES_MAX {
                return None;
            }
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(member);
        }
    }
    Some(joined)
}

/// `key=value`, the key in lower case, `tenant@system` allowed.
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key_byte = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let is_key = key.len() <= 256
        && key.bytes().all(is_key_byte)
        && key.bytes().filter(|byte| *byte == b'@').count() <= 1
        && key.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_value = !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    is_key && is_value
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(name: &'static str, lines: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_str(line).unwrap());
        }
        if name == "tracestate" {
            headers.insert("traceparent", HeaderValue::from_static(SOUND));
        }
        Parent::of(&headers)
    }

    #[test]
    fn a_sound_parent_is_taken() {
        let found = parent("traceparent", &[SOUND]).unwrap();
        assert_eq!(hex(&found.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((hex(&found.span_id).as_str(), found.is_sampled), ("00f067aa0ba902b7", true));
        for flags in ["00", "02", "fe"] {
            assert!(!parent("traceparent", &[&format!("{}{flags}", &SOUND[..53])]).unwrap().is_sampled, "{flags}");
        }
        // A version that we do not know may say more.
        for later in [format!("cc{}", &SOUND[2..]), format!("01{}-what-the-future-brings", &SOUND[2..])] {
            assert_eq!(parent("traceparent", &[&later]).unwrap(), found, "{later}");
        }
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let no_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let wrong = [
            String::new(),
            "0".to_owned(),
            "-".repeat(55),
            zeros.to_owned(),
            no_span.to_owned(),
            format!("ff{}", &SOUND[2..]),
            format!("0G{}", &SOUND[2..]),
            format!("{SOUND}-more"),
            format!("01{}.more", &SOUND[2..]),
            SOUND.to_uppercase(),
            format!(" {}", &SOUND[1..]),
            SOUND.replace('-', "_"),
            SOUND[..54].to_owned(),
            SOUND.replace("4bf9", "4b+9"),
            "a".repeat(5000),
        ];
        for line in &wrong {
            assert_eq!(parent("traceparent", &[line]), None, "{line}");
        }
        assert_eq!(parent("traceparent", &[SOUND, SOUND]), None);
        assert_eq!(parent("traceparent", &[]), None);
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_bytes(&[0xe9; 55]).unwrap());
        assert_eq!(Parent::of(&headers), None);
    }

    #[test]
    fn a_state_is_passed_on_whole_or_not_at_all() {
        let state = |lines: &[&str]| parent("tracestate", lines).unwrap().state;
        assert_eq!(
            state(&["rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE , ten@nt=x"]),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,ten@nt=x"
        );
        assert_eq!(state(&["", ", ,"]), "");
        let long = format!("a={}", "x".repeat(600));
        let many = vec!["a=1"; 33].join(",");
        for wrong in ["Rojo=1", "a", "=1", "a=", "a=b=c", "@a=1", "a@b@c=1", &long, &many] {
            assert_eq!(state(&["first=1", wrong]), "", "{wrong}");
        }
    }
}
