//! Sends requests to a server and prints what it measured as one line of JSON.
//!
//! `load ADDR REQUESTS CONNECTIONS SECONDS [--rate PER_S] [--warm-up SECONDS] [--seed N] [--grpc PATH]`

use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use headrace_load::{Options, Protocol, read_requests, run};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = next(&mut arguments, "ADDR")?;
    let requests: String = next(&mut arguments, "REQUESTS")?;
    let connections = next(&mut arguments, "CONNECTIONS")?;
    let duration = seconds(next(&mut arguments, "SECONDS")?)?;
    let mut options = Options {
        addr,
        protocol: Protocol::Http1,
        connections,
        rate_per_s: None,
        duration,
        warm_up: Duration::ZERO,
        seed: 1,
    };
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--rate" => options.rate_per_s = Some(next(&mut arguments, "--rate")?),
            "--warm-up" => options.warm_up = seconds(next(&mut arguments, "--warm-up")?)?,
            "--seed" => options.seed = next(&mut arguments, "--seed")?,
            "--grpc" => options.protocol = Protocol::Grpc(next(&mut arguments, "--grpc")?),
            other => return Err(format!("there is no option '{other}'").into()),
        }
    }
    let report = run(&options, &read_requests(Path::new(&requests))?)?;
    serde_json::to_writer(std::io::stdout(), &report)?;
    Ok(())
}

fn next<T: FromStr<Err: Error + 'static>>(arguments: &mut impl Iterator<Item = String>, what: &str) -> Outcome<T> {
    let text = arguments.next().ok_or_else(|| format!("{what} is missing"))?;
    Ok(text.parse().map_err(|error| format!("{what} '{text}': {error}"))?)
}

fn seconds(value: f64) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(value)?)
}
