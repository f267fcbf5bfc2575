//! What people read. Colours are in the text; they are taken out again where it does not go to a terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use bytes::Bytes;
use konsul_client::proto::operation_result::Result as Outcome;
use konsul_client::proto::{self, Entry, ListResponse, MemberRole, watch_event};
use prost_types::Timestamp;

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const DIM: Style = Style::new().dimmed();

/// Longest part of a value that is shown where it is not the value itself that was asked for.
const PREVIEW_MAX_CHARS: usize = 100;

/// A member that has not answered its leader for so many seconds is not counted on.
const SILENT_S: i64 = 2;

/// Something that is said in lines of text, the last one ended as well.
pub(crate) trait Text {
    /// The lines.
    fn text(&self) -> String;
}

impl Text for proto::GetResponse {
    fn text(&self) -> String {
        self.entry.as_ref().map(detail).unwrap_or_default()
    }
}

impl Text for proto::PutResponse {
    fn text(&self) -> String {
        let mut text = format!("revision {}\n", self.revision);
        text.extend(self.previous.iter().map(before));
        text
    }
}

impl Text for proto::DeleteResponse {
    fn text(&self) -> String {
        deleted(self.deleted, self.revision, self.previous.as_slice())
    }
}

impl Text for proto::DeleteRangeResponse {
    fn text(&self) -> String {
        deleted(self.deleted, self.revision, &self.previous)
    }
}

impl Text for ListResponse {
    fn text(&self) -> String {
        listing(self, false, false)
    }
}

impl Text for proto::HistoryResponse {
    fn text(&self) -> String {
        let rows: Vec<[String; 4]> = self.versions.iter().map(version_row).collect();
        let mut text = String::new();
        if !rows.is_empty() {
            text.push_str(&table(["REVISION", "TIME", "VERSION", "VALUE"], &rows));
        }
        text
    }
}

impl Text for proto::TxnResponse {
    fn text(&self) -> String {
        let branch = if self.succeeded { "then" } else { "otherwise" };
        let held = if self.succeeded { "held" } else { "did not hold" };
        let mut text = format!("the comparisons {held}: `{branch}` was done at revision {}\n", self.revision);
        for (number, result) in self.results.iter().enumerate() {
            let outcome = result.result.as_ref().map(outcome).unwrap_or_default();
            text.push_str(&format!("{}. {outcome}", number + 1));
        }
        text
    }
}

impl Text for proto::WatchEvent {
    fn text(&self) -> String {
        let entry = self.entry.clone().unwrap_or_default();
        match self.r#type() {
            watch_event::Type::Delete => {
                format!("{} {RED}delete{RED:#} {}\n", entry.mod_revision, escape(&entry.key))
            }
            watch_event::Type::Put | watch_event::Type::Unspecified => {
                let value = preview(&entry.value);
                format!("{} {GREEN}put{GREEN:#} {} {value}\n", entry.mod_revision, escape(&entry.key))
            }
        }
    }
}

impl Text for proto::CompactResponse {
    fn text(&self) -> String {
        format!("compacted up to revision {}\n", self.compact_revision)
    }
}

impl Text for proto::StatusResponse {
    fn text(&self) -> String {
        let leader = match self.leader_id {
            0 => "none known".into(),
            id if id == self.member_id => format!("{id} (this member)"),
            id => id.to_string(),
        };
        let uptime = self.uptime.as_ref().map_or(0, |uptime| uptime.seconds);
        let warnings = self.warnings.iter().map(|warning| format!("{RED}warning{RED:#}: {warning}\n"));
        warnings.collect::<String>()
            + &fields(&[
                ("version", self.version.clone()),
                ("revision", self.revision.to_string()),
                ("compacted up to", self.compact_revision.to_string()),
                ("entries", self.entries.to_string()),
                ("watch streams", self.watch_streams.to_string()),
                ("persistence", self.persistence.clone()),
                (
                    "store",
                    format!("{} used of at most {}", size(self.store_used_bytes), size(self.store_max_bytes)),
                ),
                ("store file", size(self.store_file_bytes)),
                ("log", size(self.log_bytes)),
                ("cluster", self.cluster_id.clone()),
                ("member", self.member_id.to_string()),
                ("leader", leader),
                ("term", self.term.to_string()),
                ("applied index", self.applied_index.to_string()),
                ("state hash", self.state_hash.clone()),
                ("started", time(self.start_time.as_ref())),
                ("uptime", span(uptime)),
            ])
    }
}

impl Text for proto::ListMembersResponse {
    fn text(&self) -> String {
        let rows: Vec<[String; 7]> = self.members.iter().map(member_row).collect();
        if rows.is_empty() {
            return "this server has no cluster yet\n".to_owned();
        }
        table(["NAME", "ROLE", "CLIENTS", "PEERS", "VERSION", "INDEX", "ANSWERED"], &rows)
    }
}

fn member_row(member: &proto::Member) -> [String; 7] {
    let role = match member.role() {
        MemberRole::Voter if member.leader => "leader",
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Standby => "standby",
        MemberRole::Replica => "replica",
        MemberRole::Unspecified => "unknown",
    };
    let known = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let answered = member.last_contact.as_ref().map(|ago| {
        let ms = ago.seconds * 1000 + i64::from(ago.nanos) / 1_000_000;
        if ms < 10_000 { format!("{ms} ms ago") } else { format!("{} ago", span(ms / 1000)) }
    });
    [
        member.name.clone(),
        role.to_owned(),
        known(&member.client_address),
        known(&member.peer_address),
        known(&member.version),
        member.matching_index.map_or_else(|| "-".to_owned(), |index| index.to_string()),
        answered.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// How a cluster is doing, in a few lines over the list of its members.
pub(crate) fn cluster(members: &proto::ListMembersResponse) -> String {
    let voters: Vec<_> = members.members.iter().filter(|member| member.role() == MemberRole::Voter).collect();
    let leader =
        members.members.iter().find(|member| member.leader).map_or("none known", |member| &member.name);
    let silent: Vec<_> = voters.iter().filter(|member| is_silent(members, member)).collect();
    let (majority, answering) = (voters.len() / 2 + 1, voters.len() - silent.len());
    let names = silent.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
    let may_lose = match (answering.checked_sub(majority), silent.is_empty()) {
        (Some(more), true) => format!("{more} of them"),
        (Some(more), false) => format!("{more} more of them; no answer from {names}"),
        (None, _) => format!("none: a majority is gone; no answer from {names}"),
    };
    let head = fields(&[
        ("cluster", members.cluster_id.clone()),
        ("leader", leader.to_owned()),
        ("voters", voters.len().to_string()),
        ("may lose", may_lose),
    ]);
    format!("{head}\n{}", members.text())
}

/// Whether a voter does not answer the leader, if the leader is who tells this.
fn is_silent(members: &proto::ListMembersResponse, member: &proto::Member) -> bool {
    let is_told_by_leader = members.members.iter().any(|m| m.leader && m.id == members.member_id);
    let is_heard = member.last_contact.as_ref().is_some_and(|ago| ago.seconds < SILENT_S);
    is_told_by_leader && !member.leader && !is_heard
}

/// A page of a listing: keys and folders in one order, one a line.
pub(crate) fn listing(page: &ListResponse, long: bool, descending: bool) -> String {
    let folders = page.common_prefixes.iter().map(|folder| (folder.as_str(), None));
    let entries = page.entries.iter().map(|entry| (entry.key.as_str(), Some(entry)));
    let mut lines: Vec<(&str, Option<&Entry>)> = folders.chain(entries).collect();
    lines.sort_by_key(|(key, _)| *key);
    if descending {
        lines.reverse();
    }
    if !long {
        return lines.iter().map(|(key, _)| format!("{}\n", escape(key))).collect();
    }
    let rows: Vec<[String; 5]> = lines.into_iter().map(|(key, entry)| long_row(key, entry)).collect();
    if rows.is_empty() { String::new() } else { table(["REVISION", "VERSION", "SIZE", "TIME", "KEY"], &rows) }
}

fn long_row(key: &str, entry: Option<&Entry>) -> [String; 5] {
    let key = escape(key);
    match entry {
        None => ["-".into(), "-".into(), "-".into(), "-".into(), key],
        Some(entry) => [
            entry.mod_revision.to_string(),
            entry.version.to_string(),
            entry.value.len().to_string(),
            time(entry.update_time.as_ref()),
            key,
        ],
    }
}

fn version_row(version: &proto::KeyVersion) -> [String; 4] {
    let (number, value) = match &version.entry {
        Some(entry) => (entry.version.to_string(), preview(&entry.value)),
        None => ("-".into(), format!("{RED}deleted{RED:#}")),
    };
    [version.revision.to_string(), time(version.time.as_ref()), number, value]
}

/// What one operation of a transaction did, in a line or more.
fn outcome(outcome: &Outcome) -> String {
    let entries =
        |entries: &[Entry]| entries.iter().map(|entry| format!("   {}", pair(entry))).collect::<String>();
    match outcome {
        Outcome::Put(put) => format!("put\n{}", put.previous.iter().map(before).collect::<String>()),
        Outcome::Delete(delete) => {
            format!(
                "deleted {}\n{}",
                keys(delete.deleted),
                delete.previous.iter().map(before).collect::<String>()
            )
        }
        Outcome::Get(get) => get.entry.as_ref().map_or("not there\n".into(), pair),
        Outcome::List(list) => {
            let more = if list.truncated { "   and more\n" } else { "" };
            format!("{}\n{}{more}", keys(list.entries.len() as u64), entries(&list.entries))
        }
        Outcome::Lock(lock) => format!("locked (token {})\n", lock.token),
        Outcome::Unlock(_) => "unlocked\n".into(),
    }
}

fn deleted(count: u64, revision: u64, previous: &[Entry]) -> String {
    let mut text = match count {
        0 => "nothing to delete\n".into(),
        count => format!("deleted {} at revision {revision}\n", keys(count)),
    };
    text.extend(previous.iter().map(before));
    text
}

pub(super) fn keys(count: u64) -> String {
    format!("{count} {}", if count == 1 { "key" } else { "keys" })
}

/// An entry that is no more.
fn before(entry: &Entry) -> String {
    format!("   was at revision {}: {}", entry.mod_revision, pair(entry))
}

fn pair(entry: &Entry) -> String {
    format!("{} {}\n", escape(&entry.key), preview(&entry.value))
}

fn detail(entry: &Entry) -> String {
    let content_type = if entry.content_type.is_empty() { "-".into() } else { escape(&entry.content_type) };
    fields(&[
        ("key", escape(&entry.key)),
        ("create revision", entry.create_revision.to_string()),
        ("mod revision", entry.mod_revision.to_string()),
        ("version", entry.version.to_string()),
        ("flags", entry.flags.to_string()),
        ("content type", content_type),
        ("updated", time(entry.update_time.as_ref())),
        ("size", format!("{} bytes", entry.value.len())),
        ("value", preview(&entry.value)),
    ])
}

/// Names and values, aligned.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{DIM}{name:<width$}{DIM:#}  {value}\n")).collect()
}

/// Columns, aligned but for the last.
pub(super) fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| seen(&row[column])).chain([head[column].len()]).max();
    let widths: Vec<usize> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: Vec<&str>| {
        let (last, aligned) = cells.split_last().unwrap_or((&"", &[]));
        let mut line = String::new();
        for (cell, width) in aligned.iter().zip(&widths) {
            let _ = write!(line, "{cell}{:1$}  ", "", width.saturating_sub(seen(cell)));
        }
        line + last
    };
    let mut text = format!("{DIM}{}{DIM:#}\n", line(head.to_vec()));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
        text.push('\n');
    }
    text
}

/// How many characters of a cell are seen: its colours are not.
fn seen(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).map(|part| part.chars().count()).sum()
}

/// The beginning of a value in one line; of bytes that are no text only how many they are.
pub(super) fn preview(value: &Bytes) -> String {
    match std::str::from_utf8(value) {
        Err(_) => format!("({} bytes)", value.len()),
        Ok(text) if text.chars().count() <= PREVIEW_MAX_CHARS => escape(text),
        Ok(text) => {
            let beginning: String = text.chars().take(PREVIEW_MAX_CHARS).collect();
            format!("{}… ({} bytes)", escape(&beginning), value.len())
        }
    }
}

/// Text without the characters that would break the line or steer the terminal.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
        escaped
    })
}

impl Text for proto::DefragmentResponse {
    fn text(&self) -> String {
        let Self { bytes_before, bytes_after } = self;
        format!("the store's file has {bytes_after} bytes on disk, and had {bytes_before}\n")
    }
}

impl Text for proto::RestoreResponse {
    fn text(&self) -> String {
        let Self { revision, backup_revision, entries, leases, locks } = self;
        format!(
            "restored revision {backup_revision} as revision {revision}: {entries} keys, {leases} leases, {locks} locks\n"
        )
    }
}

pub(super) fn time(time: Option<&Timestamp>) -> String {
    time.map_or("-".into(), |time| Timestamp { nanos: 0, ..*time }.to_string())
}

/// A number of seconds as people say it.
fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while size >= 1_024.0 && unit + 1 < UNITS.len() {
        size /= 1_024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_one_line() {
        assert_eq!(preview(&"a\nb\u{1b}[31m".into()), "a\\nb\\u{1b}[31m");
        assert_eq!(preview(&Bytes::from_static(&[0xff, 0xfe])), "(2 bytes)");
        let long = "é".repeat(101);
        assert_eq!(preview(&long.into()), format!("{}… (202 bytes)", "é".repeat(100)));
    }

    #[test]
    fn folders_and_keys_are_in_one_order() {
        let entry = |key: &str| Entry { key: key.into(), ..Entry::default() };
        let page = ListResponse {
            entries: vec![entry("a"), entry("c")],
            common_prefixes: vec!["b/".into(), "d/".into()],
            ..ListResponse::default()
        };
        assert_eq!(listing(&page, false, false), "a\nb/\nc\nd/\n");
        assert_eq!(listing(&page, false, true), "d/\nc\nb/\na\n");
    }

    #[test]
    fn what_a_cluster_may_lose_are_voters_that_answer() {
        let member = |id: u64, answered_s: Option<i64>| proto::Member {
            id,
            name: format!("m{id}"),
            role: MemberRole::Voter.into(),
            leader: id == 1,
            last_contact: answered_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..proto::Member::default()
        };
        let tells = |answered_s: [Option<i64>; 2], asked: u64, may_lose: &str| {
            let others = [member(2, answered_s[0]), member(3, answered_s[1])];
            let members = [member(1, None)].into_iter().chain(others).collect();
            let told =
                cluster(&proto::ListMembersResponse { member_id: asked, members, ..Default::default() });
            let line = told.lines().find(|line| line.contains("may lose")).unwrap();
            assert!(line.ends_with(&format!("  {may_lose}")), "{line}");
        };
        tells([Some(0), Some(1)], 1, "1 of them");
        tells([Some(0), Some(9)], 1, "0 more of them; no answer from m3");
        tells([None, Some(0)], 1, "0 more of them; no answer from m2");
        tells([Some(9), None], 1, "none: a majority is gone; no answer from m2, m3");
        // Only the leader knows.
        tells([None, None], 2, "1 of them");
    }

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!([size(1_023), size(1_536), size(5 << 40)], ["1023 B", "1.5 KiB", "5.0 TiB"]);
        assert_eq!([span(59), span(3_599), span(90_000)], ["59 s", "59 min", "1 d 1 h"]);
    }
}
