//! `service`: what holds for all instances of a service. Row key: namespace, NUL, name. Row: the link of the last change, the
//! record.
//!
//! Invariant: a service is here exactly if it has rows in `instance`, or settings other than the defaults.

use super::kv::END;
use super::{Db, ObjectTable, TableSpec, Tables, node};
use crate::batch::{Change, ServiceChange};
use crate::command::ServiceRecord;
use crate::error::StateError;
use crate::ids::{Label, ServiceId};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 13, name: "service" };

pub(crate) struct Service;

impl ObjectTable for Service {
    const SPEC: TableSpec = TABLE;
    type Key = ServiceId;
    type Record = ServiceRecord;

    fn db(tables: &Tables) -> Db {
        tables.service
    }

    fn encode_key(id: &ServiceId, into: &mut Vec<u8>) {
        into.extend_from_slice(id.namespace.as_str().as_bytes());
        into.push(END);
        into.extend_from_slice(id.name.as_str().as_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<ServiceId, StateError> {
        parse_row_key(row_key)
    }

    fn change(id: ServiceId, before: Option<ServiceRecord>, after: Option<ServiceRecord>) -> Change {
        Change::Service(ServiceChange { id, before, after })
    }
}

/// The service that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<ServiceId, StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let (namespace, name) = node::parse_namespaced(row_key).ok_or_else(malformed)?;
    Ok(ServiceId { namespace, name: Label::parse(name).map_err(|_| malformed())? })
}
