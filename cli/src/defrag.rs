//! `konsul defrag`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul defrag                          the server at --addr
  konsul --timeout 10m defrag            for a store of many gigabytes";

/// Give space that a server's store does not use back to its file system
///
/// Deleting and compacting free space within the store's file, which is used again; this shrinks the file, while everything goes on. It takes room for
/// a copy for the time being. A server does it by itself when more than half of the file is unused (setting `store.max_unused_bytes`).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Defrag {}

impl Defrag {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let outcome = session.client.admin().defragment().await?;
        session.output.message(&outcome)
    }
}
