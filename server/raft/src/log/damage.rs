//! Telling a torn tail from damage. A crash can tear only the last record, because each is synced before the
//! next is written. So if a whole record follows the place where recovery stopped, what is between was
//! durable once, and cutting there would lose acknowledged writes.
//!
//! A record of raft-engine (its `log_batch.rs`, version 2): u56 length and u8 compression, u64 offset of the
//! footer, entries with their checksum, footer; the footer ends in its CRC-32 xor the number of its file.

use std::io;
use std::path::Path;

use crate::disk::{Access, Disk, DiskFile};

const HEADER: usize = 16;
const CHECKSUM: usize = 4;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Whether a whole record of this file lies somewhere after `from`.
pub(crate) fn has_record_after(disk: &dyn Disk, path: &Path, from: u64) -> io::Result<bool> {
    let Some(signature) = signature(path) else { return Ok(false) };
    let file = disk.open(path, Access::Read)?;
    let rest = without_end_of_zeros(&*file, from)?;
    // A torn record whose header is whole may hold anything inside, so the search begins after it.
    let begin = length(&rest).map_or(1, |(len, _)| len);
    Ok((begin..rest.len()).any(|at| is_record(&rest[at..], signature)))
}

/// The file from `from` on, but for the zeros it ends in: of a file that was filled with them before it was needed
/// that is nearly all, and no record ends in as many as a piece.
fn without_end_of_zeros(file: &dyn DiskFile, from: u64) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = from;
    loop {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Ok(rest);
        }
        if piece[..read].iter().any(|byte| *byte != 0) {
            rest.resize((at - from) as usize, 0);
            rest.extend_from_slice(&piece[..read]);
        }
        at += read as u64;
    }
}

/// The number in a log file's name, as its records are signed with it.
fn signature(path: &Path) -> Option<u32> {
    let seq: u64 = path.file_stem()?.to_str()?.parse().ok()?;
    Some(seq as u32)
}

/// The length of the record that begins here, and where its footer begins, if they are possible.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let (len_and_type, footer) = (number(0)?, number(8)?);
    let len = (len_and_type >> 8) as usize;
    let footer = footer as usize;
    let is_possible =
        len_and_type & 0xff == 0 && footer >= HEADER && footer + CHECKSUM < len && len <= bytes.len();
    is_possible.then_some((len, footer))
}

fn is_record(bytes: &[u8], signature: u32) -> bool {
    let Some((len, footer)) = length(bytes) else { return false };
    let (content, checksum) = bytes[footer..len].split_at(len - footer - CHECKSUM);
    checksum.try_into().is_ok_and(|c| u32::from_le_bytes(c) ^ signature == crc32fast::hash(content))
}
