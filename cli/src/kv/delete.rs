//! `konsul kv delete`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul kv delete app/port
  konsul kv delete app/port --if-revision 17     only if nobody wrote since revision 17
  konsul kv delete --prefix app/                 all keys that start with app/
  konsul kv delete --prefix app/ --previous      and print what they were";

/// Delete one key, or all keys under a prefix
///
/// Deleting what is not there succeeds and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    /// The key
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// Delete all keys that start with this; empty means all keys of the namespace
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Delete only if the key's last write was at this revision; with --prefix: if no key was written after it
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    /// Also print what was deleted
    #[arg(long)]
    previous: bool,
}

impl Delete {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        match (&self.key, &self.prefix) {
            (_, Some(prefix)) => self.delete_range(prefix, &session).await,
            (key, None) => self.delete_key(key.as_deref().unwrap_or_default(), &session).await,
        }
    }

    async fn delete_key(&self, key: &str, session: &Session) -> Result<(), Failure> {
        let mut delete = session.client.kv().delete(key);
        if let Some(revision) = self.if_revision {
            delete = delete.if_revision(revision);
        }
        if self.previous {
            delete = delete.previous();
        }
        session.output.message(&delete.await?)
    }

    async fn delete_range(&self, prefix: &str, session: &Session) -> Result<(), Failure> {
        let mut delete = session.client.kv().delete_range(prefix);
        if let Some(revision) = self.if_revision {
            delete = delete.if_unchanged_since(revision);
        }
        if self.previous {
            delete = delete.previous();
        }
        session.output.message(&delete.await?)
    }
}
