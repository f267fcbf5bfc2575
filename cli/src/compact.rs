//! `konsul compact`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul compact 1200                                      drop all changes up to revision 1200
  konsul compact \"$(konsul status -o json | jq -r .revision)\"  keep nothing but the present";

/// Drop the history up to and including a revision
///
/// It can no longer be read, listed at or watched from. What the keys hold now stays.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compact {
    /// Last revision to drop
    revision: u64,
}

impl Compact {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let outcome = session.client.admin().compact(self.revision).await?;
        session.output.message(&outcome)
    }
}
