//! `konsul kv history`.

use clap::Args;
use futures_util::TryStreamExt;
use konsul_client::proto::HistoryResponse;

use crate::failure::Failure;
use crate::session::Session;

/// Most versions that the API gives in one page.
const PAGE_MAX_VERSIONS: u32 = 1_000;

const EXAMPLES: &str = "\
Examples:
  konsul kv history app/port
  konsul kv history app/port --limit 1           the last change
  konsul kv history app/port --oldest-first
  konsul kv revert app/port --to 17              go back to revision 17";

/// Show the versions of one key
///
/// All versions that are not compacted, newest first. Nothing is printed if nothing is known of the key.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct History {
    /// The key
    key: String,
    /// From the oldest version to the newest
    #[arg(long)]
    oldest_first: bool,
    /// Most versions to print
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl History {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(u32::MAX) as usize;
        let page_size = self.limit.unwrap_or(PAGE_MAX_VERSIONS).min(PAGE_MAX_VERSIONS);
        let mut history = session.client.kv().history(self.key).page_size(page_size);
        if self.oldest_first {
            history = history.ascending();
        }
        let mut pages = history.pages();
        let mut whole = HistoryResponse::default();
        while whole.versions.len() < limit {
            let Some(page) = pages.try_next().await? else { break };
            whole.revision = page.revision;
            whole.compact_revision = page.compact_revision;
            whole.versions.extend(page.versions);
        }
        whole.versions.truncate(limit);
        session.output.message(&whole)
    }
}
