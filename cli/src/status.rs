//! `konsul status`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul status
  konsul status --addr http://10.0.0.2:8500
  konsul status -o json | jq -r .revision";

/// Tell how the server is doing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let status = session.client.admin().status().await?;
        session.output.message(&status)
    }
}
