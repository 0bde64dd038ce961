//! How many connections the limit on open files allows.

/// Files that connections leave to the rest of the process: model files, the online table's log, sockets of the metrics port, runtimes.
const FILES_KEPT: u64 = 256;
/// The limit of a system that does not tell its own.
const FILES_MAX_UNKNOWN: u64 = 1024;

/// Raises the process's soft limit on open files as far as `asked` connections need and the hard limit allows.
///
/// Returns the connections that may be open at a time: `asked`, or fewer where the limit is too low.
pub(crate) fn allowed_connections(asked: usize) -> usize {
    let wanted = (asked as u64).saturating_add(FILES_KEPT);
    let files_max = match rlimit::Resource::NOFILE.get() {
        Ok((soft, _)) if soft >= wanted => soft,
        Ok((soft, _)) => rlimit::increase_nofile_limit(wanted).unwrap_or(soft),
        Err(_) => FILES_MAX_UNKNOWN,
    };
    connections_of(asked, files_max)
}

/// Below twice the reserve, half of the files: a server that takes no connection helps nobody.
fn connections_of(asked: usize, files_max: u64) -> usize {
    let kept = FILES_KEPT.min(files_max / 2);
    let allowed = usize::try_from(files_max.saturating_sub(kept)).unwrap_or(usize::MAX);
    asked.min(allowed).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_the_process() {
        for (asked, files_max, allowed) in
            [(10_000, 1024, 768), (10_000, 20_000, 10_000), (10_000, 300, 150), (5, 1024, 5), (10, 0, 1)]
        {
            assert_eq!(connections_of(asked, files_max), allowed, "{asked} {files_max}");
        }
        assert_eq!(connections_of(usize::MAX, u64::MAX), usize::try_from(u64::MAX - 256).unwrap_or(usize::MAX));
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        assert_eq!(allowed_connections(1), 1);
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap_or((0, 0));
        allowed_connections(usize::try_from(soft).unwrap_or(usize::MAX));
        let (raised, _) = rlimit::Resource::NOFILE.get().unwrap_or((0, 0));
        assert_eq!(raised, hard.min(soft.saturating_add(FILES_KEPT)));
    }
}
