//! What a worker prints: forwarded to this process's stderr with a prefix, within bounds, and its last lines kept for messages.

use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a line; the rest of a longer one is left out.
const LINE_BYTES_MAX: u64 = 1_000;
/// Lines that are forwarded in a second; further ones are counted.
const LINES_MAX: usize = 100;
/// Bytes of the last lines that are kept.
const TAIL_BYTES_MAX: usize = 2_000;

/// The last lines of a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<String>>);

impl Tail {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, line: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(line);
        text.push('\n');
        let excess = text.len().saturating_sub(TAIL_BYTES_MAX);
        let cut = (excess..=text.len()).find(|&cut| text.is_char_boundary(cut)).unwrap_or(0);
        text.drain(..cut);
    }
}

/// Starts a thread that forwards what comes through the pipe until its other end is closed.
pub(crate) fn forward(pipe: PipeReader, prefix: String) -> io::Result<Tail> {
    let tail = Tail::default();
    let kept = tail.clone();
    std::thread::Builder::new().name("headrace-output".into()).spawn(move || {
        let mut reader = BufReader::new(pipe);
        let (mut since, mut lines, mut left_out) = (Instant::now(), 0, 0u64);
        while let Some(line) = next_line(&mut reader) {
            if since.elapsed() >= Duration::from_secs(1) {
                if left_out > 0 {
                    say(&prefix, &format!("({left_out} lines left out)"));
                }
                (since, lines, left_out) = (Instant::now(), 0, 0);
            }
            kept.add(&line);
            lines += 1;
            if lines <= LINES_MAX { say(&prefix, &line) } else { left_out += 1 }
        }
        if left_out > 0 {
            say(&prefix, &format!("({left_out} lines left out)"));
        }
    })?;
    Ok(tail)
}

/// Writes a line to stderr; who has closed it hears nothing.
pub(crate) fn say(prefix: &str, line: &str) {
    let _ = writeln!(io::stderr().lock(), "{prefix}: {line}");
}

/// The next line, cut to its bound; none at the end.
fn next_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let count = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).ok()?;
    if count == 0 {
        return None;
    }
    if line.last() != Some(&b'\n') && count as u64 == LINE_BYTES_MAX {
        reader.skip_until(b'\n').ok()?;
    }
    Some(String::from_utf8_lossy(&line).trim_end().to_owned())
}
