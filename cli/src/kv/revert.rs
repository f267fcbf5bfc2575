//! `konsul kv revert`.

use clap::Args;

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
/// lost by it: what is there now stays in the history.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revert {
    /// A key, or a prefix that ends with `/`
    key: String,
    /// To when: a revision, a time, or how long ago
    #[arg(long, value_parser = Point::parse)]
    to: Point,
    /// Take the key for a prefix, whatever it ends with
    #[arg(long)]
    prefix: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

impl Revert {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let kv = session.client.kv();
        let to = self.to.revision(&kv).await?;
        let keys = point::keys(&self.key, self.prefix);
        if self.dry_run {
            let changes = kv.diff(keys, 0, to).await?;
            return session.output.made(&Changes::new(None, changes));
        }
        let reverted = kv.revert(keys, to).await?;
        session.output.made(&Changes::new(Some(reverted.revision), reverted.changes))
    }
}
