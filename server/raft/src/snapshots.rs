//! Snapshots on disk: `snapshots/<index>/` with a copy of the state and a file that says what it is. A snapshot
//! is made under another name, synced, and then renamed, so one that has its name is whole; its checksum
//! tells whether it still is.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use konsul_state::snapshot::{DATA, inspect};
use konsul_state::{LogPosition, State};
use xxhash_rust::xxh3::Xxh3;

use crate::copy::{Pace, Written, copy};
use crate::error::RaftError;
use crate::peer::pb;
use crate::types::{
    LogId, Membership, SnapshotMeta, StoredMembership, Vote, decode_membership, encode_membership, invalid,
    log_id, position,
};

/// First line of the file beside the copy.
const MAGIC: &str = "konsul snapshot 1";
const META: &str = "META";
const UNFINISHED: &str = "unfinished";
const INCOMING: &str = "incoming";

/// The directory of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    dir: PathBuf,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
    pub(crate) applied: LogPosition,
    membership: Option<(LogPosition, Bytes)>,
    checksum: u128,
    bytes: u64,
}

/// A snapshot that comes in from another member.
pub(crate) struct Incoming {
    snapshot: SnapshotDir,
    file: File,
    received: u64,
}

impl Snapshots {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The newest snapshot, if there is any.
    pub(crate) fn newest(&self) -> Result<Option<SnapshotDir>, RaftError> {
        match self.numbers()?.pop() {
            None => Ok(None),
            Some((_, path)) => SnapshotDir::read(&path).map(Some),
        }
    }

    /// All of them, from the oldest on.
    pub(crate) fn all(&self) -> Result<Vec<Result<SnapshotDir, RaftError>>, RaftError> {
        Ok(self.numbers()?.into_iter().map(|(_, path)| SnapshotDir::read(&path)).collect())
    }

    /// What another member offers, as it will be here.
    pub(crate) fn offered(&self, offer: &pb::SnapshotOffer) -> io::Result<SnapshotDir> {
        SnapshotDir::offered(self.dir.join(INCOMING), offer)
    }

    /// Begins to take in a snapshot from another member, or goes on with it.
    pub(crate) fn receive(&self, offered: SnapshotDir) -> Result<Incoming, RaftError> {
        let dir = offered.path.clone();
        if SnapshotDir::read(&dir).ok().as_ref() != Some(&offered) {
            remove_dir(&dir)?;
            fs::create_dir_all(&dir).map_err(RaftError::file(&dir))?;
            offered.write_meta(&dir)?;
        }
        Incoming::open(offered)
    }

    /// Begins to take in a snapshot from its first byte.
    pub(crate) fn receive_anew(&self, offer: &pb::SnapshotOffer) -> Result<Incoming, RaftError> {
        let offered = self.offered(offer).map_err(RaftError::file(&self.dir))?;
        remove_dir(&offered.path)?;
        self.receive(offered)
    }

    /// Copies the state, and replaces the snapshots there are by that.
    pub(crate) fn make(&self, state: &State, pace: &Pace) -> Result<SnapshotDir, RaftError> {
        fs::create_dir_all(&self.dir).map_err(RaftError::file(&self.dir))?;
        let unfinished = self.dir.join(UNFINISHED);
        remove_dir(&unfinished)?;
        let made = self.make_at(state, pace, &unfinished);
        if made.is_err() {
            remove_dir(&unfinished)?;
        }
        made
    }

    fn make_at(&self, state: &State, pace: &Pace, unfinished: &Path) -> Result<SnapshotDir, RaftError> {
        fs::create_dir_all(unfinished).map_err(RaftError::file(unfinished))?;
        let Written { checksum, bytes } = copy(state, &unfinished.join(DATA), pace)?;
        let content = inspect(unfinished)?;
        let path = self.dir.join(format!("{:020}", content.applied.index));
        let snapshot =
            SnapshotDir { path, applied: content.applied, membership: content.membership, checksum, bytes };
        snapshot.write_meta(unfinished)?;
        self.put_in_place(unfinished, &snapshot)?;
        Ok(snapshot)
    }

    /// Keeps a snapshot that came from elsewhere, in place of those there are.
    pub(crate) fn adopt(&self, snapshot: &SnapshotDir) -> Result<SnapshotDir, RaftError> {
        let path = self.dir.join(format!("{:020}", snapshot.applied.index));
        let adopted = SnapshotDir { path, ..snapshot.clone() };
        if adopted.path != snapshot.path {
            self.put_in_place(&snapshot.path, &adopted)?;
        }
        Ok(adopted)
    }

    fn put_in_place(&self, from: &Path, snapshot: &SnapshotDir) -> Result<(), RaftError> {
        remove_dir(&snapshot.path)?;
        fs::rename(from, &snapshot.path).map_err(RaftError::file(&snapshot.path))?;
        sync_dir(&self.dir)?;
        for (_, other) in self.numbers()? {
            if other != snapshot.path {
                remove_dir(&other)?;
            }
        }
        Ok(())
    }

    /// All snapshots, oldest first.
    fn numbers(&self) -> Result<Vec<(u64, PathBuf)>, RaftError> {
        let found = match fs::read_dir(&self.dir) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(RaftError::file(&self.dir)(e)),
        };
        let mut numbers = Vec::new();
        for entry in found {
            let path = entry.map_err(RaftError::file(&self.dir))?.path();
            let number = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            numbers.extend(number.map(|number| (number, path)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

impl Incoming {
    fn open(snapshot: SnapshotDir) -> Result<Self, RaftError> {
        let data = snapshot.data();
        let open = || {
            let mut file = File::options().create(true).truncate(false).write(true).open(&data)?;
            let mut received = file.metadata()?.len();
            if received > snapshot.bytes {
                file.set_len(0)?;
                received = 0;
            }
            file.seek(SeekFrom::End(0))?;
            Ok((file, received))
        };
        let (file, received) = open().map_err(RaftError::file(&data))?;
        Ok(Self { snapshot, file, received })
    }

    /// Bytes that are here.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes there will be.
    pub(crate) fn expected(&self) -> u64 {
        self.snapshot.bytes
    }

    /// Takes in the next piece.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if self.received + data.len() as u64 > self.snapshot.bytes {
            return Err(invalid("it is longer than what was offered"));
        }
        self.file.write_all(data)?;
        self.received += data.len() as u64;
        Ok(())
    }

    /// Syncs and checks the whole. If it is not what was offered, the next attempt begins anew.
    pub(crate) fn finish(self) -> Result<SnapshotDir, RaftError> {
        let data = self.snapshot.data();
        self.file.sync_all().map_err(RaftError::file(&data))?;
        if self.received < self.snapshot.bytes {
            let (received, bytes) = (self.received, self.snapshot.bytes);
            return Err(RaftError::damaged(&data, format!("only {received} of {bytes} bytes came")));
        }
        let verified = self.snapshot.verify();
        if verified.is_err() {
            remove_dir(&self.snapshot.path)?;
        }
        verified.map(|()| self.snapshot)
    }
}

impl SnapshotDir {
    /// The file with the copy of the state.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// What another member is told of it.
    pub(crate) fn offer(&self, vote: Option<&Vote>) -> io::Result<pb::SnapshotOffer> {
        let (at, membership) = match &self.membership {
            None => (None, None),
            Some((at, bytes)) => (Some((&log_id(*at)).into()), Some((&decode_membership(bytes)?).into())),
        };
        Ok(pb::SnapshotOffer {
            vote: vote.map(Into::into),
            applied: Some((&log_id(self.applied)).into()),
            membership_at: at,
            membership,
            checksum: self.checksum.to_be_bytes().to_vec().into(),
            bytes: self.bytes,
        })
    }

    fn offered(path: PathBuf, offer: &pb::SnapshotOffer) -> io::Result<Self> {
        let checksum =
            <[u8; 16]>::try_from(&offer.checksum[..]).map_err(|_| invalid("checksum is not whole"))?;
        let applied = offer.applied.ok_or_else(|| invalid("applied is missing"))?;
        let membership = match (&offer.membership_at, &offer.membership) {
            (Some(at), Some(membership)) => {
                let membership = Membership::try_from(membership.clone())?;
                Some((position(&LogId::from(*at)), encode_membership(&membership)))
            }
            _ => None,
        };
        let applied = position(&LogId::from(applied));
        Ok(Self { path, applied, membership, checksum: u128::from_be_bytes(checksum), bytes: offer.bytes })
    }

    /// What openraft calls the snapshot's metadata.
    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: Some(log_id(self.applied)),
            last_membership: stored_membership(self.membership.as_ref())?,
        })
    }

    /// Checks that the copy is what was written.
    pub(crate) fn verify(&self) -> Result<(), RaftError> {
        let data = self.path.join(DATA);
        let (checksum, bytes) = checksum(&data).map_err(RaftError::file(&data))?;
        if bytes != self.bytes {
            return Err(RaftError::damaged(
                &data,
                format!("it has {bytes} bytes and should have {}", self.bytes),
            ));
        }
        if checksum != self.checksum {
            return Err(RaftError::damaged(&data, "its checksum is wrong"));
        }
        Ok(())
    }

    fn write_meta(&self, dir: &Path) -> Result<(), RaftError> {
        let path = dir.join(META);
        let (at, membership) = self.membership.clone().unwrap_or_default();
        let text = format!(
            "{MAGIC}\napplied {}\nmembership {} {}\ndata {:032x} {}\n",
            position_text(self.applied),
            position_text(at),
            hex(&membership),
            self.checksum,
            self.bytes,
        );
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(RaftError::file(&path))?;
        sync_dir(dir)
    }

    fn read(path: &Path) -> Result<Self, RaftError> {
        let meta = path.join(META);
        let text = fs::read_to_string(&meta).map_err(RaftError::file(&meta))?;
        Self::parse(path, &text).ok_or_else(|| RaftError::damaged(&meta, "it does not describe a snapshot"))
    }

    fn parse(path: &Path, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let applied = parse_position(&mut lines.next()?.strip_prefix("applied ")?.split(' '))?;
        let mut words = lines.next()?.strip_prefix("membership ")?.split(' ');
        let at = parse_position(&mut words)?;
        let membership = unhex(words.next()?)?;
        let (checksum, bytes) = lines.next()?.strip_prefix("data ")?.split_once(' ')?;
        Some(Self {
            path: path.to_owned(),
            applied,
            membership: (!membership.is_empty()).then(|| (at, membership.into())),
            checksum: u128::from_str_radix(checksum, 16).ok()?,
            bytes: bytes.parse().ok()?,
        })
    }
}

/// A membership as it is stored, in openraft's terms.
pub(crate) fn stored_membership(stored: Option<&(LogPosition, Bytes)>) -> io::Result<StoredMembership> {
    match stored {
        None => Ok(StoredMembership::new(None, Membership::default())),
        Some((at, bytes)) => {
            let membership = decode_membership(bytes).map_err(|e| invalid(format!("the membership: {e}")))?;
            Ok(StoredMembership::new(Some(log_id(*at)), membership))
        }
    }
}

fn position_text(at: LogPosition) -> String {
    format!("{} {} {}", at.term, at.leader, at.index)
}

fn parse_position<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<LogPosition> {
    let mut number = || words.next()?.parse().ok();
    Some(LogPosition { term: number()?, leader: number()?, index: number()? })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

fn checksum(path: &Path) -> io::Result<(u128, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buf = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buf)? {
            0 => return Ok((hash.digest128(), bytes)),
            n => {
                hash.update(&buf[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn sync_dir(dir: &Path) -> Result<(), RaftError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(RaftError::file(dir))
}

fn remove_dir(dir: &Path) -> Result<(), RaftError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RaftError::file(dir)(e)),
        _ => Ok(()),
    }
}
