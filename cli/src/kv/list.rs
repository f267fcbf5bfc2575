//! `konsul kv list`.

use clap::Args;
use futures_util::{Stream, TryStreamExt};
use konsul_client::proto::ListResponse;
use konsul_client::{Error, kv};

use crate::failure::Failure;
use crate::session::Session;

/// Most entries that the API gives in one page.
const PAGE_MAX_ENTRIES: u32 = 10_000;

const EXAMPLES: &str = "\
Examples:
  konsul kv list                                 all keys of the namespace
  konsul kv list app/
  konsul kv list app/ --separator /              one level, like a folder
  konsul kv list app/ --long                     with revision, version, size and time
  konsul kv list app/ --count                    how many there are
  konsul kv list app/ --revision 17              as it was at revision 17
  konsul kv list app/ -o json | jq -r '.entries[] | [.key, (.value | @base64d)] | @tsv'";

/// List keys
///
/// Prints one key a line; JSON has the values too. All that is printed is of one revision.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// List the keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Leave the values out of the JSON
    #[arg(long)]
    keys: bool,
    /// Print only how many keys there are
    #[arg(long, conflicts_with_all = ["separator", "limit", "long", "keys", "reverse"])]
    count: bool,
    /// Also print each key's revision, version, size and time
    #[arg(short, long)]
    long: bool,
    /// Fold the keys that have this after the prefix into one line a folder
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    separator: String,
    /// List the keys as they were at this revision
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    revision: u64,
    /// From the greatest key to the smallest
    #[arg(long)]
    reverse: bool,
    /// Most keys and folders to print
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Read what this server has, even if it lags behind
    #[arg(long)]
    stale: bool,
}

impl List {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let list = self.request(&session);
        if self.count {
            let response = list.count_only().await?;
            return session.output.count(&response);
        }
        let mut pages = list.pages();
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut whole = ListResponse::default();
        while let Some(page) = next(&mut pages, &mut left, self.reverse).await? {
            if session.output.is_text() {
                session.output.listing(&page, self.long, self.reverse)?;
                continue;
            }
            whole.revision = page.revision;
            whole.count += page.count;
            whole.entries.extend(page.entries);
            whole.common_prefixes.extend(page.common_prefixes);
        }
        if session.output.is_text() { Ok(()) } else { session.output.message(&whole) }
    }

    fn request(&self, session: &Session) -> kv::List {
        let mut list = session.client.kv().list(&self.prefix).at_revision(self.revision);
        if self.keys || (session.output.is_text() && !self.long) {
            list = list.keys_only();
        }
        if !self.separator.is_empty() {
            list = list.separator(&self.separator);
        }
        if self.reverse {
            list = list.descending();
        }
        if self.stale {
            list = list.stale();
        }
        if let Some(limit) = self.limit {
            list = list.page_size(u32::try_from(limit).unwrap_or(u32::MAX).min(PAGE_MAX_ENTRIES));
        }
        list
    }
}

/// The next page, cut to what is left to print.
async fn next(
    pages: &mut (impl Stream<Item = Result<ListResponse, Error>> + Unpin),
    left: &mut u64,
    descending: bool,
) -> Result<Option<ListResponse>, Failure> {
    if *left == 0 {
        return Ok(None);
    }
    let Some(mut page) = pages.try_next().await? else { return Ok(None) };
    while (page.entries.len() + page.common_prefixes.len()) as u64 > *left {
        let entry = page.entries.last().map(|entry| entry.key.as_str());
        let folder = page.common_prefixes.last().map(String::as_str);
        let folder_is_last = match (entry, folder) {
            (Some(entry), Some(folder)) => (folder > entry) != descending,
            (entry, _) => entry.is_none(),
        };
        if folder_is_last { drop(page.common_prefixes.pop()) } else { drop(page.entries.pop()) }
    }
    page.count = (page.entries.len() + page.common_prefixes.len()) as u64;
    *left -= page.count;
    Ok(Some(page))
}
