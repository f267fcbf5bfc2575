//! Putting a backup back: it is put together beside the present state on every member, through the log, checked, and then takes the
//! place of the present state in one Command. Until then nothing that anybody sees has changed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use konsul_proto::v1;
use konsul_state::Revision;
use konsul_state::backup::{Part, Reader};
use konsul_state::command::{
    BackupHeader, BackupTrailer, RestoreAbort, RestoreBegin, RestoreCommit, RestoreRows, Row, command::Op,
    outcome,
};
use konsul_state::propose::ProposeError;
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::core::{Core, Writer};
use crate::error::ServiceError;

/// How long a part is proposed again and again while nobody leads, or nobody knows what became of it.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// Restores what the messages hold.
pub(crate) async fn restore<S>(core: &Arc<Core>, messages: S) -> Result<v1::RestoreResponse, ServiceError>
where
    S: Stream<Item = Result<v1::RestoreRequest, Status>> + Unpin,
{
    let id = rand::random::<u64>().max(1);
    let mut restore = Restore { core: core.clone(), id, parts: 0, is_open: false };
    let restored = restore.run(messages).await;
    if restored.is_err() {
        restore.give_up().await;
    }
    restored
}

/// One that is under way. Dropped, because the caller went away, it is given up.
struct Restore {
    core: Arc<Core>,
    id: u64,
    /// Parts that were handed in.
    parts: u64,
    /// Whether there is something that has to be given up.
    is_open: bool,
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.is_open {
            let mut abandoned = Self { core: self.core.clone(), ..*self };
            self.is_open = false;
            tokio::spawn(async move { abandoned.give_up().await });
        }
    }
}

impl Restore {
    /// Gives up what was put together. If this fails, somebody does who restores again, or the leader in a while.
    async fn give_up(&mut self) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let abort = Op::RestoreAbort(RestoreAbort { id: self.id });
        if let Err(error) = self.core.write(Writer::nobody(), abort).await {
            tracing::debug!(%error, "a restore was not given up");
        }
    }

    async fn run<S>(&mut self, mut messages: S) -> Result<v1::RestoreResponse, ServiceError>
    where
        S: Stream<Item = Result<v1::RestoreRequest, Status>> + Unpin,
    {
        let mut reader = Reader::default();
        let mut other_cluster = None;
        let (mut header, mut trailer) = (None, None);
        while let Some(message) = messages.next().await {
            let v1::RestoreRequest { other_cluster: other, chunk } = message.map_err(ServiceError::Broken)?;
            let may_be_another = *other_cluster.get_or_insert(other);
            reader.push(&chunk);
            while let Some(part) = reader.next_part()? {
                match part {
                    Part::Header(found) => {
                        self.begin(&found, may_be_another).await?;
                        header = Some(found);
                    }
                    Part::Rows(rows) => self.add(rows).await?,
                    Part::Trailer(found) => trailer = Some(found),
                }
            }
        }
        reader.end()?;
        // A reader that is at its end has had both.
        let (Some(header), Some(trailer)) = (header, trailer) else {
            return Err(ServiceError::UnexpectedOutcome);
        };
        self.check(&header).await?;
        self.commit(&header, &trailer).await
    }

    async fn begin(&mut self, header: &BackupHeader, other_cluster: bool) -> Result<(), ServiceError> {
        let own = self.core.propose.cluster_id();
        if header.cluster_id != own && !other_cluster {
            return Err(ServiceError::BackupOfOtherCluster { found: header.cluster_id.clone(), own });
        }
        tracing::info!(revision = header.revision, created_ms = header.created_ms, "restoring a backup");
        self.is_open = true;
        self.propose(Op::RestoreBegin(RestoreBegin { id: self.id })).await?;
        Ok(())
    }

    async fn add(&mut self, rows: Vec<Row>) -> Result<(), ServiceError> {
        let part = RestoreRows { id: self.id, part: self.parts, rows };
        self.parts += 1;
        self.propose(Op::RestoreRows(part)).await?;
        Ok(())
    }

    /// Looks at all of what was put together, on this member. The others have the same.
    async fn check(&self, header: &BackupHeader) -> Result<(), ServiceError> {
        self.core.propose.read_barrier().await?;
        let staged = self.core.state.staged(self.id, Revision(header.revision))?;
        let staged = staged.ok_or(ServiceError::RestoreGone)?;
        let verified = tokio::task::spawn_blocking(move || staged.verify_staged());
        let findings = verified.await.map_err(|_| ServiceError::Panicked)??;
        match findings.first() {
            Some(finding) => Err(ServiceError::RestoreRefused { what: finding.to_string() }),
            None => Ok(()),
        }
    }

    async fn commit(
        &mut self,
        header: &BackupHeader,
        trailer: &BackupTrailer,
    ) -> Result<v1::RestoreResponse, ServiceError> {
        let commit = RestoreCommit {
            id: self.id,
            rows: trailer.rows,
            hash_high: trailer.hash_high,
            hash_low: trailer.hash_low,
            revision: header.revision,
            time_ms: header.time_ms,
            steady_ms: header.steady_ms,
        };
        let revision = self.propose(Op::RestoreCommit(commit)).await?;
        self.is_open = false;
        tracing::info!(revision, "the store was restored");
        Ok(v1::RestoreResponse {
            revision,
            backup_revision: header.revision,
            entries: header.entries,
            leases: header.leases,
            locks: header.locks,
        })
    }

    /// Has a step carried out, and returns the store's revision. Every step may be repeated.
    async fn propose(&self, op: Op) -> Result<u64, ServiceError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.core.write(Writer::nobody(), op.clone()).await {
                Ok(outcome) if matches!(outcome.result, Some(outcome::Result::Restore(_))) => {
                    return Ok(outcome.revision);
                }
                Ok(_) => return Err(ServiceError::UnexpectedOutcome),
                Err(ServiceError::Propose(
                    ProposeError::NoLeader | ProposeError::Busy | ProposeError::Unknown,
                )) if Instant::now() < until => sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }
}
