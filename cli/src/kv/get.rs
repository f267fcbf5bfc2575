//! `konsul kv get`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul kv get app/port
  konsul kv get app/port --revision 17           as it was at revision 17
  konsul kv get app/logo > logo.png              the value's bytes, exactly
  konsul kv get app/port --detail                its revisions, flags and time
  konsul kv get app/port -o json | jq -r .entry.modRevision";

/// Read one key
///
/// Prints the value's bytes exactly as they are; on a terminal a newline is added. A key that is not there is an error
/// (exit code 1).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    /// The key
    key: String,
    /// Read the key as it was at this revision
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    revision: u64,
    /// Read what this server has, even if it lags behind
    #[arg(long)]
    stale: bool,
    /// Print what is known of the key rather than its value
    #[arg(long)]
    detail: bool,
}

impl Get {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let mut get = session.client.kv().get(self.key).at_revision(self.revision);
        if self.stale {
            get = get.stale();
        }
        let response = get.response().await?;
        match response.entry {
            Some(entry) if session.output.is_text() && !self.detail => session.output.value(&entry.value),
            _ => session.output.message(&response),
        }
    }
}
