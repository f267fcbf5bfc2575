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
    /// Keys that differ and are left alone by a revert, because they are bound to a lease.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_alone: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Change {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Content>,
    /// Whether a revert would leave it alone, because it is bound to a lease.
    #[serde(skip_serializing_if = "is_false")]
    leased: bool,
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
    /// What differs.
    pub(crate) fn found(differences: Vec<Difference>) -> Self {
        let changes = differences.into_iter().map(Change::of).collect();
        Self { revision: None, changes, left_alone: Vec::new() }
    }

    /// What was reverted at this revision, and what was left alone; without one, what would be.
    pub(crate) fn reverted(
        revision: Option<u64>,
        changes: Vec<Difference>,
        left_alone: Vec<Difference>,
    ) -> Self {
        Self {
            revision: revision.map(|revision| revision.to_string()),
            left_alone: left_alone.into_iter().map(|difference| difference.key).collect(),
            ..Self::found(changes)
        }
    }
}

impl Change {
    fn of(difference: Difference) -> Self {
        Self {
            leased: difference.is_leased(),
            key: difference.key,
            before: difference.before.map(Content::of),
            after: difference.after.map(Content::of),
        }
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
        for Change { key, before, after, leased } in &self.changes {
            let key = escape(key);
            let leased = if *leased { "  (bound to a lease)" } else { "" };
            for (sign, style, content) in [("-", RED, before), ("+", GREEN, after)] {
                if let Some(content) = content {
                    text.push_str(&format!("{style}{sign} {key}  {}{leased}{style:#}\n", content.preview));
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
        match &self.left_alone[..] {
            [] => {}
            [key] => text.push_str(&format!("left alone, bound to a lease: {}\n", escape(key))),
            [key, more @ ..] => text.push_str(&format!(
                "left alone, bound to a lease: {} and {} more\n",
                escape(key),
                more.len()
            )),
        }
        text
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}
