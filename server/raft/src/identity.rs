//! Who this member is: its id and name are made with the data directory, its cluster when it is made or joined. All of it
//! is on the disk before anybody is told.

use std::path::PathBuf;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::data_dir;
use crate::error::RaftError;

/// Who this member is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) member_id: u64,
    pub(crate) name: String,
    /// Names this run of the process.
    pub(crate) run: Uuid,
    dir: PathBuf,
    cluster_id: Mutex<Option<Uuid>>,
}

impl Identity {
    pub(crate) fn new(member_id: u64, name: String, cluster_id: Option<Uuid>, dir: PathBuf) -> Self {
        Self { member_id, name, run: Uuid::new_v4(), dir, cluster_id: Mutex::new(cluster_id) }
    }

    /// The cluster, if it has one yet.
    pub(crate) fn cluster_id(&self) -> Option<Uuid> {
        *self.cluster_id.lock()
    }

    /// Becomes part of a cluster, for good.
    ///
    /// # Errors
    /// [`RaftError::OtherCluster`] when it is part of another already; [`RaftError::File`] when it can't be written.
    pub(crate) fn adopt(&self, cluster: Uuid) -> Result<(), RaftError> {
        let mut mine = self.cluster_id.lock();
        match *mine {
            Some(other) if other != cluster => Err(RaftError::OtherCluster { mine: other, theirs: cluster }),
            Some(_) => Ok(()),
            None => {
                data_dir::write_version(&self.dir, self.member_id, &self.name, Some(cluster))?;
                *mine = Some(cluster);
                Ok(())
            }
        }
    }
}
