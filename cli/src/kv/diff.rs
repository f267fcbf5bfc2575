//! `konsul kv diff`.

use clap::Args;

use super::point::{self, Point};
use crate::failure::Failure;
use crate::output::Changes;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul kv diff app/ 17               what has changed since revision 17
  konsul kv diff app/ 10m              what has changed in ten minutes
  konsul kv diff app/ 17 23            what changed between two revisions
  konsul kv diff app/port 2026-11-23T12:00:00Z";

/// Show what differs between two points in time
///
/// A point is a revision, a time, or how long ago. History reaches back as far as it is not compacted.
/// Keys that are or were bound to a lease, which a revert leaves alone, are marked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// A key, or a prefix that ends with `/`
    key: String,
    /// From when on
    #[arg(value_parser = Point::parse)]
    from: Point,
    /// Until when; now if it is not given
    #[arg(value_parser = Point::parse)]
    to: Option<Point>,
    /// Take the key for a prefix, whatever it ends with; an empty one is all keys of the namespace
    #[arg(long)]
    prefix: bool,
}

impl Diff {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let kv = session.client.kv();
        let keys = point::keys(&self.key, self.prefix)?;
        let from = self.from.revision(&kv).await?;
        let to = match self.to {
            Some(to) => to.revision(&kv).await?,
            None => 0,
        };
        let changes = kv.diff(keys, from, to).await?;
        session.output.made(&Changes::found(changes))
    }
}
