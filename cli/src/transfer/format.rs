//! The lines of an export: what it is of, then a key each, then how many there were. The last line tells a whole file from one that was
//! cut off.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use konsul_client::Entry;
use serde::{Deserialize, Serialize};

/// Version of the lines.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    konsul_export: u32,
    pub(super) namespace: String,
    pub(super) prefix: String,
    /// The revision that it shows, as text, as in all JSON of protobuf.
    pub(super) revision: String,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) entries: u64,
}

/// A key, with what an import writes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) flags: u64,
    pub(super) content_type: String,
}

/// The same as a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    key: String,
    value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    flags: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    content_type: String,
}

impl Head {
    pub(super) fn new(namespace: String, prefix: String, revision: u64) -> Self {
        Self { konsul_export: VERSION, namespace, prefix, revision: revision.to_string() }
    }

    /// Reads a first line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let head: Self =
            serde_json::from_str(line).map_err(|_| "it does not begin as an export does".to_owned())?;
        match head.konsul_export {
            VERSION => Ok(head),
            newer => Err(format!("it is of version {newer}, and this konsul knows {VERSION}")),
        }
    }
}

impl Record {
    pub(super) fn of(entry: Entry) -> Self {
        let Entry { key, value, flags, content_type, .. } = entry;
        Self { key, value, flags, content_type }
    }

    /// The line, without its end.
    pub(super) fn line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Line {
            key: self.key.clone(),
            value: STANDARD.encode(&self.value),
            flags: if self.flags == 0 { String::new() } else { self.flags.to_string() },
            content_type: self.content_type.clone(),
        })
    }

    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let value = STANDARD.decode(&line.value).map_err(|_| "the value is not in base64".to_owned())?;
        let flags = match line.flags.as_str() {
            "" => 0,
            flags => flags.parse().map_err(|_| "the flags are not a number".to_owned())?,
        };
        Ok(Self { key: line.key, value: value.into(), flags, content_type: line.content_type })
    }

    /// About how much it is to send.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.content_type.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        for record in [
            Record { key: "k".into(), value: "v".into(), flags: 0, content_type: String::new() },
            Record {
                key: "a\"b\n".into(),
                value: vec![0, 255].into(),
                flags: u64::MAX,
                content_type: "x/y".into(),
            },
        ] {
            let line = record.line().unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Record::parse(&line), Ok(record));
        }
        for line in ["", "{}", r#"{"key":"k","value":"?"}"#, r#"{"key":"k","value":"","more":1}"#] {
            assert!(Record::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_head_has_a_version() {
        let head = Head::new("default".into(), "app/".into(), 7);
        let line = serde_json::to_string(&head).unwrap();
        assert_eq!(Head::parse(&line), Ok(head));
        assert!(Head::parse(&line.replace("\"konsulExport\":1", "\"konsulExport\":2")).is_err());
        assert!(Head::parse("{}").is_err());
    }
}
