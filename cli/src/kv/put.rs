//! `konsul kv put`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;
use crate::value;

const EXAMPLES: &str = "\
Examples:
  konsul kv put app/port 8080
  konsul kv put app/site.conf @site.conf         the contents of a file
  date | konsul kv put app/started -             what comes on stdin
  konsul kv put app/leader me --if-absent        only if the key is not there
  konsul kv put app/port 8081 --if-revision 17   only if nobody wrote since revision 17
  konsul kv put app/handle @home --literal       a value that begins with @
  konsul kv put app/offset -- -5                 a value that begins with -";

/// Write one key
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Put {
    /// The key
    key: String,
    /// The value; `@FILE` reads a file, `-` reads stdin
    value: String,
    /// Take the value as it is, also if it is `-` or begins with `@`
    #[arg(long)]
    literal: bool,
    /// A number that is stored with the value
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    flags: u64,
    /// The value's media type, such as application/json
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Write only if the key does not exist
    #[arg(long, conflicts_with_all = ["if_exists", "if_revision"])]
    if_absent: bool,
    /// Write only if the key exists
    #[arg(long)]
    if_exists: bool,
    /// Write only if the key's last write was at this revision; 0: if it does not exist
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    /// Also print the entry that was overwritten
    #[arg(long)]
    previous: bool,
}

impl Put {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let value = if self.literal { self.value.into() } else { value::read(&self.value)? };
        let mut put =
            session.client.kv().put(self.key, value).flags(self.flags).content_type(self.content_type);
        if self.if_absent {
            put = put.if_absent();
        }
        if self.if_exists {
            put = put.if_exists();
        }
        if let Some(revision) = self.if_revision {
            put = put.if_revision(revision);
        }
        if self.previous {
            put = put.previous();
        }
        session.output.message(&put.await?)
    }
}
