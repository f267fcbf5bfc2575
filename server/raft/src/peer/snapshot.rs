//! Snapshots on their way to another member: offered first, so that a transfer that broke off goes on where it was;
//! then in pieces, each with a checksum of its own. The whole is checked again before it is installed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::links::Peer;
use super::pb;
use crate::copy::Pace;
use crate::snapshots::{Incoming, SnapshotDir, Snapshots};
use crate::stats::Stats;
use crate::threads::Threads;
use crate::types::Vote;

/// Bytes of a piece.
const CHUNK_BYTES: usize = 256 << 10;
/// Pieces that are read ahead.
const READ_AHEAD: usize = 4;

/// Sends what the other side does not have yet, and returns when it has installed it.
pub(super) async fn send(
    peer: &mut Peer,
    vote: Vote,
    snapshot: SnapshotDir,
    pace: Pace,
    threads: Threads,
    stats: Arc<Stats>,
) -> Result<pb::SnapshotResponse, Status> {
    let unreadable = |e: io::Error| Status::internal(format!("the snapshot can't be read: {e}"));
    // Opened before anything is awaited: a newer snapshot may take its place, and the file stays.
    let mut file = File::open(snapshot.data()).map_err(unreadable)?;
    let offer = snapshot.offer(Some(&vote)).map_err(unreadable)?;
    let offset = peer.offer_snapshot(offer.clone()).await?.into_inner().offset;
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let (chunks, sending) = mpsc::channel(READ_AHEAD);
    let reading = read(file, offer, offset, pace, threads, stats, chunks);
    let (sent, read) = tokio::join!(peer.send_snapshot(ReceiverStream::new(sending)), reading);
    // If the stream could not be filled, that is the cause.
    read.map_err(unreadable)?;
    Ok(sent?.into_inner())
}

/// Fetches a snapshot that another member makes of this moment.
pub(crate) async fn fetch(
    peer: &mut Peer,
    snapshots: &Snapshots,
    threads: Threads,
    stats: &Stats,
) -> Result<SnapshotDir, Status> {
    let mut chunks = peer.fetch_snapshot(pb::FetchSnapshotRequest {}).await?.into_inner();
    let first = chunks.message().await?.ok_or_else(|| Status::data_loss("the snapshot is empty"))?;
    let offer = first.offer.clone().ok_or_else(|| Status::data_loss("the first piece has no offer"))?;
    let incoming = snapshots.receive_anew(&offer).map_err(|e| Status::internal(e.to_string()))?;
    let data = check(first, 0)?;
    receive(incoming, data, chunks, threads, stats).await
}

/// Hands out the pieces of a snapshot.
pub(super) fn hand_out(
    snapshot: &SnapshotDir,
    pace: Pace,
    threads: Threads,
    stats: Arc<Stats>,
) -> io::Result<mpsc::Receiver<pb::SnapshotChunk>> {
    let file = File::open(snapshot.data())?;
    let offer = snapshot.offer(None)?;
    let (chunks, sending) = mpsc::channel(READ_AHEAD);
    // It ends when nobody takes the pieces any more; a failure ends the stream early, which the other side sees.
    tokio::spawn(read(file, offer, 0, pace, threads, stats, chunks));
    Ok(sending)
}

/// Reads the pieces, no faster than the pace allows, until all are read or nobody wants them any more.
async fn read(
    mut file: File,
    offer: pb::SnapshotOffer,
    offset: u64,
    mut pace: Pace,
    threads: Threads,
    stats: Arc<Stats>,
    chunks: mpsc::Sender<pb::SnapshotChunk>,
) -> io::Result<()> {
    let (mut at, began) = (offset, Instant::now());
    let mut offer = Some(offer);
    loop {
        let read = move || {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
            let crc = crc32fast::hash(&data);
            Ok((file, data, crc))
        };
        let data;
        let crc;
        (file, data, crc) = threads.run_briefly(read).await?;
        if data.is_empty() && offer.is_none() {
            return Ok(());
        }
        let bytes = data.len() as u64;
        let chunk = pb::SnapshotChunk { offer: offer.take(), offset: at, data: data.into(), crc };
        at += bytes;
        if chunks.send(chunk).await.is_err() {
            return Ok(());
        }
        stats.snapshot_sent_bytes.fetch_add(bytes, Relaxed);
        pace.rest(at - offset, began).await?;
    }
}

/// Takes the pieces in, in order and each whole. What came before a failure stays for the next attempt.
pub(super) async fn receive(
    incoming: Incoming,
    first: Bytes,
    mut chunks: Streaming<pb::SnapshotChunk>,
    threads: Threads,
    stats: &Stats,
) -> Result<SnapshotDir, Status> {
    stats.snapshot_expected_bytes.store(incoming.expected(), Relaxed);
    let mut incoming = write(incoming, first, threads).await?;
    while let Some(chunk) = chunks.next().await {
        let data = check(chunk?, incoming.received())?;
        incoming = write(incoming, data, threads).await?;
        stats.snapshot_received_bytes.store(incoming.received(), Relaxed);
    }
    stats.snapshot_received_bytes.store(incoming.received(), Relaxed);
    let finish = move || Ok(incoming.finish());
    let finished = threads.run("snapshot-recv", finish).await.map_err(unwritable)?;
    finished.map_err(|e| Status::data_loss(e.to_string()))
}

/// The data of a piece, if it is whole and the next one.
pub(super) fn check(chunk: pb::SnapshotChunk, received: u64) -> Result<Bytes, Status> {
    if chunk.offset != received {
        return Err(Status::out_of_range(format!("{received} bytes are here, and not {}", chunk.offset)));
    }
    if crc32fast::hash(&chunk.data) != chunk.crc {
        return Err(Status::data_loss(format!("the piece at {received} was damaged on its way")));
    }
    Ok(chunk.data)
}

async fn write(mut incoming: Incoming, data: Bytes, threads: Threads) -> Result<Incoming, Status> {
    let write = move || incoming.write(&data).map(|()| incoming);
    threads.run_briefly(write).await.map_err(unwritable)
}

fn unwritable(error: io::Error) -> Status {
    Status::internal(format!("the snapshot can't be written: {error}"))
}
