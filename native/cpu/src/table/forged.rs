//! Tests with files that somebody made.
#![allow(clippy::unwrap_used)]

use super::testing::{use_forged_snapshot, write_sample_snapshot};

#[test]
fn a_forged_file_does_no_harm() {
    let path = std::env::temp_dir().join(format!("headrace-sample-{}.table", std::process::id()));
    write_sample_snapshot(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    use_forgeries_of(&bytes, "2", 1500);
}

#[test]
fn a_forged_file_of_format_1_does_no_harm() {
    use_forgeries_of(include_bytes!("../../tests/fixtures/format-1.table"), "1", 600);
}

fn use_forgeries_of(bytes: &[u8], format: &str, rounds: usize) {
    let path = std::env::temp_dir().join(format!("headrace-forged-{format}-{}.table", std::process::id()));
    let mut state = 12_345u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let extremes = [0, 1, 64, 0xff, u64::MAX, u64::MAX << 6, 1 << 40, bytes.len() as u64, bytes.len() as u64 - 8];
    let mut opened_count = 0;
    for round in 0..rounds {
        let mut forged = bytes.to_vec();
        for _ in 0..1 + round % 4 {
            let word = match round % 3 {
                0 => 10 + random(640),
                _ => random(forged.len() / 8),
            };
            let value = match random(3) {
                0 => extremes[random(extremes.len())],
                1 => random(forged.len()) as u64,
                _ => random(usize::MAX) as u64,
            };
            forged[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        opened_count += use_forged_snapshot(&forged, &path).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert!(opened_count > rounds / 3, "only {opened_count} forged files could be opened");
}
