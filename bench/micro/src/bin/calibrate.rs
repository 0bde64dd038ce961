//! Three costs of this machine that no engine can avoid, so that an absolute figure can be read on another machine: a
//! dependent memory access, a system call, and a round trip over loopback.
//!
//! Uses the standard library only, so that the harness can compile this one file with `rustc -O` in a second. Prints one
//! line of JSON. The harness runs it twice: free to use every core, and pinned to one.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::parent_id;
use std::thread;
use std::time::Instant;

/// Larger than the last-level cache of any machine this is likely to meet.
const CHASE_BYTES: usize = 256 << 20;
const LINE_BYTES: usize = 64;
const CHASE_HOPS: usize = 1_000_000;
const SYSTEM_CALLS: u32 = 200_000;
const ROUND_TRIPS: u32 = 10_000;
const REPEATS: usize = 5;

/// One cache line that names the next one to visit.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    next: u64,
}

fn main() -> io::Result<()> {
    let chase_ns = pointer_chase_ns();
    let call_ns = system_call_ns();
    let loopback_us = loopback_round_trip_us()?;
    writeln!(
        io::stdout(),
        "{{\"pointer_chase_ns\": {chase_ns:.2}, \"system_call_ns\": {call_ns:.2}, \"loopback_round_trip_us\": {loopback_us:.2}}}"
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// xorshift64*: enough to scatter a permutation, and no dependency.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

/// Follows one random cycle through all lines (Sattolo's shuffle makes exactly one cycle), so no prefetcher can help.
fn pointer_chase_ns() -> f64 {
    let count = CHASE_BYTES / LINE_BYTES;
    let mut lines: Vec<Line> = (0..count as u64).map(|next| Line { next }).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15;
    for last in (1..count).rev() {
        let other = (next_random(&mut state) % last as u64) as usize;
        lines.swap(last, other);
    }
    let mut at = 0;
    let times = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CHASE_HOPS {
                at = lines[at as usize].next;
            }
            black_box(at);
            start.elapsed().as_nanos() as f64 / CHASE_HOPS as f64
        })
        .collect();
    median(times)
}

/// `getppid`: the kernel answers it at once and the C library never caches it.
fn system_call_ns() -> f64 {
    let times = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..SYSTEM_CALLS {
                black_box(parent_id());
            }
            start.elapsed().as_nanos() as f64 / f64::from(SYSTEM_CALLS)
        })
        .collect();
    median(times)
}

/// One byte there and back between two threads over TCP, each blocked while it waits.
fn loopback_round_trip_us() -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = thread::spawn(move || -> io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        peer.set_nodelay(true)?;
        let mut byte = [0_u8; 1];
        while peer.read(&mut byte)? == 1 {
            peer.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(ROUND_TRIPS as usize);
    let mut byte = [1_u8; 1];
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    drop(stream);
    echo.join().map_err(|_| io::Error::other("the echo thread panicked"))??;
    Ok(median(times))
}
