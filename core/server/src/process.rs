//! What the process itself uses, under the names that every exporter of Prometheus uses. Read from /proc; nothing where there is none.

use std::fs;

use crate::counters::Page;

/// Ticks a second in which Linux tells programs their times, on every architecture that we run on.
const TICKS_A_SECOND: f64 = 100.0;

pub(crate) fn write_process(page: &mut Page) {
    let Some(process) = Process::read() else { return };
    page.family("process_cpu_seconds_total", "counter", "Processor time of the process, in seconds.");
    page.number("process_cpu_seconds_total", &[], process.cpu_seconds);
    page.family("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.");
    page.number("process_start_time_seconds", &[], process.start_seconds);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory of the process that is in use.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space of the process.", process.virtual_bytes),
        ("process_threads", "Threads of the process.", process.threads),
        ("process_open_fds", "Open files of the process.", process.open_files),
        ("process_max_fds", "Files that the process may open.", process.files_max),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
}

#[derive(Debug, PartialEq)]
struct Process {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_files: u64,
    files_max: u64,
}

impl Process {
    fn read() -> Option<Self> {
        let (user, system, start) = times(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let boot = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        #[allow(clippy::cast_precision_loss)]
        Some(Self {
            cpu_seconds: (user + system) as f64 / TICKS_A_SECOND,
            start_seconds: boot as f64 + start as f64 / TICKS_A_SECOND,
            resident_bytes: number_after(&status, "VmRSS:")? << 10,
            virtual_bytes: number_after(&status, "VmSize:")? << 10,
            threads: number_after(&status, "Threads:")?,
            // One of them is the folder that was just read.
            open_files: open_files.saturating_sub(1) as u64,
            files_max: rlimit::getrlimit(rlimit::Resource::NOFILE).ok()?.0,
        })
    }
}

/// User and system time, and the start since the machine's, in ticks. The second field is the program's name, which may hold anything.
fn times(stat: &str) -> Option<(u64, u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place).and_then(|field| field.parse().ok());
    // They are fields 14, 15 and 22 of all, of which this begins with the third.
    Some((number(11)?, number(12)?, number(19)?))
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4242 1 2";
        assert_eq!(times(stat), Some((150, 50, 4242)));
        assert_eq!(times("7 no brackets"), None);
        assert_eq!(number_after("a\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(number_after("a\n", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_threads_and_files() {
        let Some(process) = Process::read() else { panic!("not read") };
        assert!(process.resident_bytes > 0 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads > 0 && process.open_files > 0 && process.files_max >= process.open_files);
        assert!(process.start_seconds > 1.6e9, "{process:?}");
    }
}
