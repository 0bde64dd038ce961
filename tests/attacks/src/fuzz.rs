//! libFuzzer's entry: one binary for all targets, chosen by the variable `HEADRACE_FUZZ_TARGET`.
#![no_main]

use std::sync::LazyLock;

use headrace_attacks::{TARGETS, Target, target};

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("HEADRACE_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    target(&name).unwrap_or_else(|| panic!("HEADRACE_FUZZ_TARGET={name}: set it to one of {names:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (CHOSEN.run)(data));
