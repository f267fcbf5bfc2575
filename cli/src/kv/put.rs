//! `konsul kv put`.

use std::time::Duration;

use clap::Args;
use konsul_client::proto::{Fence, fence};

use crate::args::duration;
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
  konsul kv put app/session me --ttl 30s         gone unless it is written again within 30 s
  konsul kv put app/state done --if-locked jobs/nightly=$KONSUL_FENCING_TOKEN
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
    /// Bind the key to this lease: it is deleted when the lease ends
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    lease: u64,
    /// Delete the key when it was not written again for this long, 1s to 24h
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "lease")]
    ttl: Option<Duration>,
    /// Write only while this lock is held under this token
    #[arg(long, value_name = "LOCK=TOKEN", value_parser = fence)]
    if_locked: Option<Fence>,
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
        put = put.lease(self.lease);
        if let Some(ttl) = self.ttl {
            put = put.ttl(ttl);
        }
        if let Some(fence) = self.if_locked {
            put = put.fence(fence);
        }
        if self.previous {
            put = put.previous();
        }
        session.output.message(&put.await?)
    }
}

/// A lock and the token under which it is held.
fn fence(text: &str) -> Result<Fence, String> {
    let parsed = text.rsplit_once('=').and_then(|(name, token)| Some((name, token.parse().ok()?)));
    let (name, token) = parsed.ok_or("it should be LOCK=TOKEN, with the token that `konsul lock` gives")?;
    Ok(Fence { held: Some(fence::Held::Lock(name.to_owned())), token })
}
