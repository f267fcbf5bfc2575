//! Backups: what a state holds, as a file that later versions, other machines and other clusters can read.
//!
//! A backup has the rows of the tables of [`Tables::backed_up`] at one revision, as they are: everything that users see now,
//! and the outcomes by which retries are known. History is not in it: what is restored begins a history of its own. The bytes
//! are [`MAGIC`], [`FORMAT`] (u32, big-endian), then frames: length (u32), checksum (u64, of the payload, seeded with the
//! frame's number, so that frames can't change places), payload (a `BackupFrame`). The first is the header, the last the
//! trailer with the number and the hash of all rows; a file without one was cut off.
//!
//! [`Source`] makes the bytes of a view, [`Reader`] takes them apart again; neither does I/O. [`Trial`] restores them in a store that is
//! thrown away.

mod trial;

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::command::{BackupFrame, BackupHeader, BackupRows, BackupTrailer, Row, backup_frame};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::view::View;

pub use trial::{Trial, TrialError};

/// What a backup begins with.
pub const MAGIC: [u8; 8] = *b"KONSULBK";
/// Version of the format. A greater one is refused.
pub const FORMAT: u32 = 1;

/// About how many bytes of rows are in a frame; a greater row is in one by itself.
const FRAME_BYTES: usize = 256 << 10;
/// No frame is longer: longer than any row can be.
const MAX_FRAME_BYTES: usize = 32 << 20;
/// A frame that is longer has only one row: many tiny ones would take some forty times their bytes in memory.
const MAX_MANY_ROWS_BYTES: usize = 2 * FRAME_BYTES;
/// Length and checksum of a frame.
const FRAME_HEAD_BYTES: usize = 12;

/// Who makes a backup.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The cluster's id.
    pub cluster_id: String,
    /// The version of konsul.
    pub version: String,
    /// The time, in ms since 1970.
    pub created_ms: u64,
}

/// Makes a backup of a view, piece by piece.
pub struct Source {
    view: View,
    stage: Stage,
    frames: u64,
    sum: Sum,
}

enum Stage {
    Header(BackupHeader),
    /// Rows of the table of this place in the list are due, after this key.
    Rows(usize, Option<Bytes>),
    Trailer,
    Done,
}

/// What rows come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hash: StateHash,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.hash.add(row.table, &row.key, &row.row);
    }
}

impl Source {
    /// Begins a backup. The view is held until all is taken.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn new(view: View, maker: Maker) -> Result<Self, StateError> {
        let (entries, leases, locks, outcomes) = view.counts()?;
        let progress = view.progress();
        let header = BackupHeader {
            cluster_id: maker.cluster_id,
            version: maker.version,
            created_ms: maker.created_ms,
            revision: progress.revision,
            time_ms: progress.time_ms,
            steady_ms: progress.steady_ms,
            entries,
            leases,
            locks,
            outcomes,
            bytes: view.used_bytes()?.saturating_sub(progress.history_bytes),
        };
        Ok(Self { view, stage: Stage::Header(header), frames: 0, sum: Sum::default() })
    }

    /// What the backup begins with; `None` once it was taken.
    #[must_use]
    pub fn header(&self) -> Option<&BackupHeader> {
        match &self.stage {
            Stage::Header(header) => Some(header),
            _ => None,
        }
    }

    /// The next bytes of the backup; `None` after the last.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, StateError> {
        loop {
            let (piece, next) = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Header(header) => {
                    let mut piece = BytesMut::from(&MAGIC[..]);
                    piece.put_u32(FORMAT);
                    self.frame(&mut piece, backup_frame::Frame::Header(header));
                    (piece, Stage::Rows(0, None))
                }
                Stage::Rows(table, after) => match self.rows(table, after.as_deref())? {
                    None => {
                        let is_last = table + 1 == self.view.tables().backed_up().len();
                        self.stage = if is_last { Stage::Trailer } else { Stage::Rows(table + 1, None) };
                        continue;
                    }
                    Some(rows) => {
                        let last = rows.last().map(|row| row.key.clone());
                        rows.iter().for_each(|row| self.sum.add(row));
                        let mut piece = BytesMut::new();
                        self.frame(&mut piece, backup_frame::Frame::Rows(BackupRows { rows }));
                        (piece, Stage::Rows(table, last))
                    }
                },
                Stage::Trailer => {
                    let Sum { rows, hash } = self.sum;
                    let (hash_high, hash_low) = hash.halves();
                    let mut piece = BytesMut::new();
                    let trailer = BackupTrailer { rows, hash_high, hash_low };
                    self.frame(&mut piece, backup_frame::Frame::Trailer(trailer));
                    (piece, Stage::Done)
                }
                Stage::Done => return Ok(None),
            };
            self.stage = next;
            return Ok(Some(piece.freeze()));
        }
    }

    /// The rows of a table after a key, as many as a frame has; `None` if there are none.
    fn rows(&self, place: usize, after: Option<&[u8]>) -> Result<Option<Vec<Row>>, StateError> {
        let (table, db) = self.view.tables().backed_up()[place];
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for found in self.view.raw_from(db, from)? {
            let (key, row) = found?;
            bytes += key.len() + row.len();
            if bytes > FRAME_BYTES && !rows.is_empty() {
                break;
            }
            let (key, row) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(row));
            rows.push(Row { table: table.number.into(), key, row });
        }
        Ok((!rows.is_empty()).then_some(rows))
    }

    fn frame(&mut self, into: &mut BytesMut, frame: backup_frame::Frame) {
        let payload = BackupFrame { frame: Some(frame) }.encode_to_vec();
        // A frame has a row or about `FRAME_BYTES`, far less than 4 GiB.
        into.put_u32(payload.len() as u32);
        into.put_u64(xxh3_64_with_seed(&payload, self.frames));
        into.extend_from_slice(&payload);
        self.frames += 1;
    }
}

/// Why a backup can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of konsul: it does not begin with KONSULBK")]
    NotABackup,
    /// It was made by a newer version.
    #[error(
        "the backup has format {found}, and this version of konsul reads up to {known}: use a newer konsul"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// It ends before its end.
    #[error("the backup is cut off after {bytes} bytes")]
    CutOff {
        /// How many bytes there are.
        bytes: u64,
    },
    /// Bytes were changed.
    #[error("the backup is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// What it begins with.
    Header(BackupHeader),
    /// Rows, in order.
    Rows(Vec<Row>),
    /// What it ends with: all rows came, and as they were.
    Trailer(BackupTrailer),
}

/// Whether a frame has exactly one row, seen before it is decoded: in it is one list, and in that one row, each to the end.
fn is_one_row(mut payload: &[u8]) -> bool {
    const ROWS_OF_FRAME: u32 = 2;
    const ROWS_OF_LIST: u32 = 1;
    [ROWS_OF_FRAME, ROWS_OF_LIST].into_iter().all(|tag| {
        let key = decode_key(&mut payload);
        key.is_ok_and(|key| key == (tag, WireType::LengthDelimited))
            && decode_varint(&mut payload).is_ok_and(|length| length == payload.len() as u64)
    })
}

/// Takes a backup apart. Bytes are pushed in as they come, parts are taken out.
#[derive(Default)]
pub struct Reader {
    buffer: BytesMut,
    /// Bytes taken apart so far.
    at: u64,
    frames: u64,
    has_begun: bool,
    has_header: bool,
    is_over: bool,
    sum: Sum,
    /// Table and key of the last row.
    last: Option<(u32, Bytes)>,
}

impl Reader {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`BackupError`] when the bytes are no backup, or not as they were made.
    pub fn next_part(&mut self) -> Result<Option<Part>, BackupError> {
        if !self.has_begun {
            if !MAGIC.starts_with(&self.buffer[..self.buffer.len().min(MAGIC.len())]) {
                return Err(BackupError::NotABackup);
            }
            if self.buffer.len() < MAGIC.len() + 4 {
                return Ok(None);
            }
            self.advance(MAGIC.len());
            let found = self.buffer.get_u32();
            self.at += 4;
            if found == 0 || found > FORMAT {
                return Err(BackupError::Newer { found, known: FORMAT });
            }
            self.has_begun = true;
        }
        if self.is_over && !self.buffer.is_empty() {
            return Err(self.damaged("something follows its end"));
        }
        if self.buffer.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let length = (&self.buffer[..4]).get_u32() as usize;
        if length > MAX_FRAME_BYTES {
            return Err(self.damaged("a frame is longer than any can be"));
        }
        if self.buffer.len() < FRAME_HEAD_BYTES + length {
            return Ok(None);
        }
        let checksum = (&self.buffer[4..FRAME_HEAD_BYTES]).get_u64();
        let payload = Bytes::copy_from_slice(&self.buffer[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + length]);
        if xxh3_64_with_seed(&payload, self.frames) != checksum {
            return Err(self.damaged("a checksum is wrong"));
        }
        if length > MAX_MANY_ROWS_BYTES && !is_one_row(&payload) {
            return Err(self.damaged("a frame has more than it may"));
        }
        let frame = BackupFrame::decode(payload).map_err(|_| self.damaged("a frame does not decode"))?;
        let part = self.judge(frame)?;
        self.advance(FRAME_HEAD_BYTES + length);
        self.frames += 1;
        Ok(Some(part))
    }

    /// Checks that there was all of it.
    ///
    /// # Errors
    /// [`BackupError::CutOff`] if not.
    pub fn end(&self) -> Result<(), BackupError> {
        let bytes = self.at + self.buffer.len() as u64;
        if self.is_over && self.buffer.is_empty() { Ok(()) } else { Err(BackupError::CutOff { bytes }) }
    }

    fn judge(&mut self, frame: BackupFrame) -> Result<Part, BackupError> {
        use backup_frame::Frame;
        match frame.frame {
            Some(Frame::Header(header)) if !self.has_header => {
                self.has_header = true;
                Ok(Part::Header(header))
            }
            Some(Frame::Rows(BackupRows { rows })) if self.has_header => {
                for row in &rows {
                    let is_next = match &self.last {
                        None => true,
                        Some((table, key)) => (row.table, &row.key) > (*table, key),
                    };
                    if !is_next {
                        return Err(self.damaged("its rows are not in order"));
                    }
                    self.sum.add(row);
                    self.last = Some((row.table, row.key.clone()));
                }
                Ok(Part::Rows(rows))
            }
            Some(Frame::Trailer(trailer)) if self.has_header => {
                let hash = StateHash::from_halves((trailer.hash_high, trailer.hash_low));
                if self.sum != (Sum { rows: trailer.rows, hash }) {
                    return Err(self.damaged("its rows are not those that it was made of"));
                }
                self.is_over = true;
                Ok(Part::Trailer(trailer))
            }
            _ => Err(self.damaged("its frames are not in order")),
        }
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.at, what }
    }

    fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.at += bytes as u64;
    }
}
