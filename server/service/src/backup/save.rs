//! Streaming a backup out of a view of the state, while everything goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use konsul_proto::v1;
use konsul_state::StateError;
use konsul_state::backup::{Maker, Source};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::core::{Core, now_ms};
use crate::error::ServiceError;

/// Pieces that wait for a slow reader.
const WAITING: usize = 4;
/// How long a reader may take for one piece: as long as it takes, LMDB keeps every page that is overwritten.
const STALL: Duration = Duration::from_secs(30);

/// A backup's bytes.
pub(crate) type Pieces = ReceiverStream<Result<v1::SnapshotResponse, Status>>;

/// Begins a backup of what the member sees, as fresh as asked for.
pub(crate) async fn save(
    core: &Arc<Core>,
    version: &str,
    request: v1::SnapshotRequest,
) -> Result<Pieces, ServiceError> {
    let place = core.snapshots.enter()?;
    let view = core.view(request.read.as_ref(), None).await?;
    let maker =
        Maker { cluster_id: core.propose.cluster_id(), version: version.to_owned(), created_ms: now_ms() };
    let source = Source::new(view, maker)?;
    let (pieces, stream) = mpsc::channel(WAITING);
    let stop = core.readers.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {
                let stopping = ServiceError::from(konsul_state::propose::ProposeError::ShuttingDown);
                // Whoever does not take it in time sees the stream end with the connection.
                let _ = pieces.try_send(Err(stopping.into()));
            }
            () = stream_out(source, &pieces) => {}
        }
        drop(place);
    });
    Ok(ReceiverStream::new(stream))
}

/// Sends piece after piece, each read on a thread where it may wait for the disk.
async fn stream_out(mut source: Source, pieces: &mpsc::Sender<Result<v1::SnapshotResponse, Status>>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let piece = source.next_piece();
            (source, piece)
        });
        let piece: Result<Option<Bytes>, StateError> = match read.await {
            Ok((next, piece)) => {
                source = next;
                piece
            }
            Err(error) => {
                tracing::error!(%error, "a backup was given up");
                let _ = pieces.try_send(Err(ServiceError::Panicked.into()));
                return;
            }
        };
        let message = match piece {
            Ok(None) => return,
            Ok(Some(chunk)) => Ok(v1::SnapshotResponse { chunk }),
            Err(error) => Err(ServiceError::from(error).into()),
        };
        let is_over = message.is_err();
        match pieces.send_timeout(message, STALL).await {
            Ok(()) if !is_over => {}
            // All is told, or the reader went away.
            Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => return,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::warn!("a backup was given up: its reader took nothing for {STALL:?}");
                // There is room for nothing more, so the stream just ends, without the trailer that makes a backup whole.
                return;
            }
        }
    }
}
