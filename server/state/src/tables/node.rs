//! `node`: where instances run. Row key: namespace, NUL, name. Row: the link of the last change, the record.
//!
//! Invariant: `health` is the worst of its rows in `check`, or MAINTENANCE while `maintenance` says why.

use super::kv::END;
use super::{Db, ObjectTable, TableSpec, Tables};
use crate::batch::{Change, NodeChange};
use crate::command::NodeRecord;
use crate::error::StateError;
use crate::ids::{Label, Namespace, NodeId};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 12, name: "node" };

pub(crate) struct Node;

impl ObjectTable for Node {
    const SPEC: TableSpec = TABLE;
    type Key = NodeId;
    type Record = NodeRecord;

    fn db(tables: &Tables) -> Db {
        tables.node
    }

    fn encode_key(id: &NodeId, into: &mut Vec<u8>) {
        into.extend_from_slice(id.namespace.as_str().as_bytes());
        into.push(END);
        into.extend_from_slice(id.name.as_str().as_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<NodeId, StateError> {
        parse_row_key(row_key)
    }

    fn change(id: NodeId, before: Option<NodeRecord>, after: Option<NodeRecord>) -> Change {
        Change::Node(NodeChange { id, before, after })
    }
}

/// The node that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<NodeId, StateError> {
    let (namespace, name) = parse_namespaced(row_key).ok_or_else(malformed)?;
    Ok(NodeId { namespace, name: Label::parse(name).map_err(|_| malformed())? })
}

/// The namespace that a row key begins with, and the rest of it.
pub(super) fn parse_namespaced(row_key: &[u8]) -> Option<(Namespace, &str)> {
    let (namespace, rest) = std::str::from_utf8(row_key).ok()?.split_once('\0')?;
    Some((Namespace::parse(namespace).ok().filter(|_| !namespace.is_empty())?, rest))
}

fn malformed() -> StateError {
    StateError::corrupt(TABLE.name, "a row key is malformed")
}
