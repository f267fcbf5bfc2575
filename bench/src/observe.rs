//! What the kernel tells about a process and about a directory: CPU time, memory, bytes on disk, file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Anonymous memory: what only swapping could take back.
    pub(crate) anonymous: u64,
    /// All resident memory, with mapped files.
    pub(crate) resident: u64,
}

/// CPU time that a process has used, user and system, in seconds. Its resolution is a clock tick (10 ms).
///
/// # Errors
/// When the process is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("the server (process {pid}) is gone"))?;
    // The second field, the program's name, may hold blanks and is closed by the last parenthesis;
    // utime and stime are the 14th and 15th (proc(5)).
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    match (ticks.next(), ticks.next()) {
        (Some(Ok(user)), Some(Ok(system))) => {
            Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
        }
        _ => bail!("can't read the CPU time of process {pid}"),
    }
}

/// Bytes that a process has caused to be written to disk since its start.
///
/// # Errors
/// When the process is gone.
pub(crate) fn written_bytes(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))
        .with_context(|| format!("the server (process {pid}) is gone"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).with_context(|| format!("no write_bytes for process {pid}"))
}

/// Memory that a process has now.
///
/// # Errors
/// When the process is gone.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("the server (process {pid}) is gone"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).with_context(|| format!("no {name} for process {pid}"))
    };
    Ok(Memory { anonymous: field("RssAnon:")?, resident: field("VmRSS:")? })
}

/// Bytes allocated on disk by a directory and all below it (what `du` counts: a sparse file's holes don't).
///
/// # Errors
/// When it can't be read.
pub(crate) fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            entry.metadata()?.blocks() * 512
        };
    }
    Ok(total)
}

/// Name of the file system that holds `directory`, as the kernel's mount table has it.
///
/// # Errors
/// When the directory or the mount table can't be read.
pub(crate) fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    // Device, mount point, type; a later mount over the same point hides the earlier.
    let covering = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        directory.starts_with(point).then_some((point.len(), kind))
    });
    let innermost = covering.max_by_key(|(length, _)| *length);
    innermost.map(|(_, kind)| kind.to_owned()).context("no mount holds the directory")
}
