//! Snapshots on their way to another member: offered first, so that a transfer that broke off goes on where it was;
//! then in pieces, each with a checksum of its own. The whole is checked again before it is installed.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::links::Peer;
use super::pb;
use crate::copy::Pace;
use crate::snapshots::{Incoming, SnapshotDir, Snapshots};
use crate::stats::Stats;
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
    pace: &Pace,
    stats: Arc<Stats>,
) -> Result<pb::SnapshotResponse, Status> {
    let unreadable = |e: std::io::Error| Status::internal(format!("the snapshot can't be read: {e}"));
    // Opened before anything is awaited: a newer snapshot may take its place, and the file stays.
    let file = File::open(snapshot.data()).map_err(unreadable)?;
    let offer = snapshot.offer(Some(&vote)).map_err(unreadable)?;
    let offset = peer.offer_snapshot(offer.clone()).await?.into_inner().offset;
    let (chunks, sending) = mpsc::channel(READ_AHEAD);
    let reading = read(file, offer, offset, pace.clone(), stats, chunks).map_err(unreadable)?;
    let sent = peer.send_snapshot(ReceiverStream::new(sending)).await;
    // If the stream could not be filled, that is the cause.
    if let Ok(Err(error)) = reading.await {
        return Err(unreadable(error));
    }
    Ok(sent?.into_inner())
}

/// Fetches a snapshot that another member makes of this moment.
pub(crate) async fn fetch(
    peer: &mut Peer,
    snapshots: &Snapshots,
    stats: &Stats,
) -> Result<SnapshotDir, Status> {
    let mut chunks = peer.fetch_snapshot(pb::FetchSnapshotRequest {}).await?.into_inner();
    let first = chunks.message().await?.ok_or_else(|| Status::data_loss("the snapshot is empty"))?;
    let offer = first.offer.clone().ok_or_else(|| Status::data_loss("the first piece has no offer"))?;
    let incoming = snapshots.receive_anew(&offer).map_err(|e| Status::internal(e.to_string()))?;
    let data = check(first, 0)?;
    receive(incoming, data, chunks, stats).await
}

/// Hands out the pieces of a snapshot.
pub(super) fn hand_out(
    snapshot: &SnapshotDir,
    pace: &Pace,
    stats: Arc<Stats>,
) -> std::io::Result<mpsc::Receiver<pb::SnapshotChunk>> {
    let file = File::open(snapshot.data())?;
    let offer = snapshot.offer(None)?;
    let (chunks, sending) = mpsc::channel(READ_AHEAD);
    // A failure ends the stream early, which the other side sees.
    drop(read(file, offer, 0, pace.clone(), stats, chunks)?);
    Ok(sending)
}

/// Reads the pieces on a thread of their own, no faster than the pace allows.
fn read(
    mut file: File,
    offer: pb::SnapshotOffer,
    offset: u64,
    pace: Pace,
    stats: Arc<Stats>,
    chunks: mpsc::Sender<pb::SnapshotChunk>,
) -> std::io::Result<oneshot::Receiver<std::io::Result<()>>> {
    use std::io::{Seek, SeekFrom};
    let (done, reading) = oneshot::channel();
    let run = move || {
        file.seek(SeekFrom::Start(offset))?;
        let (mut at, began) = (offset, Instant::now());
        let mut offer = Some(offer);
        loop {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
            if data.is_empty() && offer.is_none() {
                return Ok(());
            }
            let crc = crc32fast::hash(&data);
            let bytes = data.len() as u64;
            let chunk = pb::SnapshotChunk { offer: offer.take(), offset: at, data: data.into(), crc };
            at += bytes;
            if chunks.blocking_send(chunk).is_err() {
                return Ok(());
            }
            stats.snapshot_sent_bytes.fetch_add(bytes, Relaxed);
            pace.wait(at - offset, began)?;
        }
    };
    std::thread::Builder::new().name("snapshot-send".to_owned()).spawn(move || {
        // Whoever asked may have gone away.
        let _: Result<(), _> = done.send(run());
    })?;
    Ok(reading)
}

/// Takes the pieces in, in order and each whole. What came before a failure stays for the next attempt.
pub(super) async fn receive(
    mut incoming: Incoming,
    first: Bytes,
    mut chunks: Streaming<pb::SnapshotChunk>,
    stats: &Stats,
) -> Result<SnapshotDir, Status> {
    stats.snapshot_expected_bytes.store(incoming.expected(), Relaxed);
    let failed = |e: &dyn std::fmt::Display| Status::internal(format!("the snapshot can't be written: {e}"));
    incoming = write(incoming, first).await?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let data = check(chunk, incoming.received())?;
        incoming = write(incoming, data).await?;
        stats.snapshot_received_bytes.store(incoming.received(), Relaxed);
    }
    stats.snapshot_received_bytes.store(incoming.received(), Relaxed);
    let (done, finished) = oneshot::channel();
    std::thread::Builder::new()
        .name("snapshot-recv".to_owned())
        .spawn(move || done.send(incoming.finish()).unwrap_or_default())
        .map_err(|e| failed(&e))?;
    let finished = finished.await.map_err(|e| failed(&e))?;
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

async fn write(mut incoming: Incoming, data: Bytes) -> Result<Incoming, Status> {
    let written = tokio::task::spawn_blocking(move || incoming.write(&data).map(|()| incoming)).await;
    let failed = |e: &dyn std::fmt::Display| Status::internal(format!("the snapshot can't be written: {e}"));
    written.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}
