//! What differs between two points in time, as `kv diff` and `kv revert` show it.

use anstyle::{AnsiColor, Style};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use konsul_client::Entry;
use konsul_client::kv::Difference;
use serde::Serialize;

use super::text::{Text, escape, preview};

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// Keys that changed, and the revision that changed them, if one did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    changes: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Content>,
}

/// An entry as the API's JSON has it: numbers of 64 bits as text, bytes in base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    value: String,
    mod_revision: String,
    #[serde(skip)]
    preview: String,
}

impl Changes {
    pub(crate) fn new(revision: Option<u64>, differences: Vec<Difference>) -> Self {
        let change = |difference: Difference| Change {
            key: difference.key,
            before: difference.before.map(Content::of),
            after: difference.after.map(Content::of),
        };
        let changes = differences.into_iter().map(change).collect();
        Self { revision: revision.map(|revision| revision.to_string()), changes }
    }
}

impl Content {
    fn of(entry: Entry) -> Self {
        Self {
            preview: preview(&entry.value),
            mod_revision: entry.mod_revision.to_string(),
            value: STANDARD.encode(entry.value),
        }
    }
}

impl Text for Changes {
    fn text(&self) -> String {
        let mut text = String::new();
        for Change { key, before, after } in &self.changes {
            let key = escape(key);
            for (sign, style, content) in [("-", RED, before), ("+", GREEN, after)] {
                if let Some(content) = content {
                    text.push_str(&format!("{style}{sign} {key}  {}{style:#}\n", content.preview));
                }
            }
        }
        match (&self.revision, self.changes.len()) {
            (Some(revision), 0) => text.push_str(&format!("nothing differs, as of revision {revision}\n")),
            (Some(revision), 1) => text.push_str(&format!("reverted 1 key at revision {revision}\n")),
            (Some(revision), keys) => {
                text.push_str(&format!("reverted {keys} keys at revision {revision}\n"))
            }
            (None, _) => {}
        }
        text
    }
}
