//! The process as the kernel sees it: memory, CPU time, threads and open files, read from /proc.

use std::fs;

/// One reading. Zeros where the kernel does not tell.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Bytes of memory in use.
    pub(super) resident_bytes: u64,
    /// Of those, bytes that belong to no file: what the process really costs, as the store's pages are the
    /// page cache's.
    pub(super) anonymous_bytes: u64,
    /// Seconds of CPU time used, in user and system mode.
    pub(super) cpu_seconds: f64,
    /// Threads.
    pub(super) threads: u64,
    /// Open file descriptors.
    pub(super) open_files: u64,
}

/// Clock ticks a second in /proc/PID/stat; fixed by the kernel's interface to user space (proc(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads now.
pub(super) fn read() -> Reading {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Reading {
        resident_bytes: field(&status, "VmRSS:") * 1024,
        anonymous_bytes: field(&status, "RssAnon:") * 1024,
        cpu_seconds: cpu_ticks(&stat) as f64 / TICKS_PER_SECOND,
        threads: field(&status, "Threads:"),
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Fields 14 and 15, counted from behind the command's name, which may hold spaces.
fn cpu_ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_threads() {
        let reading = read();
        assert!(
            reading.resident_bytes > reading.anonymous_bytes && reading.anonymous_bytes > 0,
            "{reading:?}"
        );
        assert!(reading.threads >= 1 && reading.open_files >= 3, "{reading:?}");
    }

    #[test]
    fn a_command_name_with_spaces_is_no_trouble() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0";
        assert_eq!(cpu_ticks(stat), 42);
    }
}
