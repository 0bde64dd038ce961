//! Blocks of calls, the functions in turns, medians of the blocks.

use std::io::{self, Write};
use std::time::{Duration, Instant};

const BLOCK: Duration = Duration::from_millis(60);
const BLOCKS: usize = 5;

/// A function to time; it is given the number of its call, so that it can use other inputs each time.
pub struct Timed<'a> {
    pub name: String,
    pub rows_per_call: usize,
    pub call: Box<dyn FnMut(usize) + 'a>,
    nanoseconds: Vec<f64>,
    calls: usize,
}

impl std::fmt::Debug for Timed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timed").field("name", &self.name).field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl<'a> Timed<'a> {
    pub fn new(name: impl Into<String>, rows_per_call: usize, call: impl FnMut(usize) + 'a) -> Self {
        Self { name: name.into(), rows_per_call, call: Box::new(call), nanoseconds: Vec::new(), calls: 0 }
    }

    fn run_block(&mut self) -> f64 {
        let first = self.calls;
        let start = Instant::now();
        while start.elapsed() < BLOCK {
            (self.call)(self.calls);
            self.calls += 1;
        }
        start.elapsed().as_nanos() as f64 / (self.calls - first) as f64
    }

    /// Nanoseconds of one call: the median of the blocks' means.
    pub fn median_ns(&self) -> f64 {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Times all functions, block by block in turns, after one block each that does not count.
pub fn time_in_turns(functions: &mut [Timed<'_>]) {
    for function in functions.iter_mut() {
        function.run_block();
    }
    for _ in 0..BLOCKS {
        for function in functions.iter_mut() {
            let took = function.run_block();
            function.nanoseconds.push(took);
        }
    }
}

/// Prints one line a function.
///
/// # Errors
/// What writing to stdout gives.
pub fn print_table(title: &str, functions: &[Timed<'_>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{title}")?;
    writeln!(out, "  {:<28} {:>8} {:>12} {:>12}", "", "rows", "us a call", "ns a row")?;
    for function in functions {
        let ns = function.median_ns();
        let per_row = ns / function.rows_per_call as f64;
        writeln!(out, "  {:<28} {:>8} {:>12.2} {:>12.1}", function.name, function.rows_per_call, ns / 1000.0, per_row)?;
    }
    Ok(())
}
