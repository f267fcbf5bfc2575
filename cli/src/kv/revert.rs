//! `konsul kv revert`.

use clap::Args;
use konsul_client::kv::{Difference, Reverted};

use super::point::{self, Point};
use crate::failure::Failure;
use crate::output::Changes;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul kv revert app/port --to 17             one key as it was at revision 17
  konsul kv revert app/ --to 10m --dry-run      what would change, without changing it
  konsul kv revert app/ --to 10m                all keys under app/ as they were ten minutes ago";

/// Make keys what they were
///
/// All keys that differ are changed in one transaction, up to 256 of them; it fails if one of them is written meanwhile. Nothing is
/// lost by it: what is there now stays in the history. Keys that are or were bound to a lease, or have a time to live, are left alone
/// and named: they say that somebody is alive.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revert {
    /// A key, or a prefix that ends with `/`
    key: String,
    /// To when: a revision, a time, or how long ago
    #[arg(long, value_parser = Point::parse)]
    to: Point,
    /// Take the key for a prefix, whatever it ends with; an empty one is all keys of the namespace
    #[arg(long)]
    prefix: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

impl Revert {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let kv = session.client.kv();
        let keys = point::keys(&self.key, self.prefix)?;
        let to = self.to.revision(&kv).await?;
        if self.dry_run {
            let found = kv.diff(keys, 0, to).await?;
            let (leased, changes) = found.into_iter().partition(Difference::is_leased);
            return session.output.made(&Changes::reverted(None, changes, leased));
        }
        let Reverted { revision, changes, leased } = kv.revert(keys, to).await?;
        session.output.made(&Changes::reverted(Some(revision), changes, leased))
    }
}
