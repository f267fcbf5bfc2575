//! The API's own JSON (proto3 JSON), by the descriptors that this binary carries. No message is named here but in the list
//! of those that are printed.

use std::path::Path;
use std::sync::LazyLock;

use konsul_client::proto::{self, TxnRequest};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::failure::Failure;

static DESCRIPTORS: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    DescriptorPool::decode(konsul_client::DESCRIPTOR_SET).map_err(|error| error.to_string())
});

/// A message whose descriptor can be found.
pub(crate) trait Named: Message {
    /// Its full name.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident),*) => {$(
        impl Named for proto::$message {
            const NAME: &'static str = concat!("konsul.v1.", stringify!($message));
        }
    )*};
}

named!(
    GetResponse,
    ListResponse,
    PutResponse,
    DeleteResponse,
    DeleteRangeResponse,
    TxnResponse,
    HistoryResponse,
    WatchEvent,
    StatusResponse,
    ListMembersResponse,
    CompactResponse,
    DefragmentResponse,
    RestoreResponse,
    GrantResponse,
    RefreshResponse,
    RevokeResponse,
    LeaseGetResponse,
    LeaseListResponse,
    LockGetResponse,
    LeaderResponse,
    RegisterResponse,
    DeregisterResponse,
    SetMaintenanceResponse,
    ConfigureServiceResponse,
    ListServicesResponse,
    ListInstancesResponse,
    ResolveResponse,
    DependenciesResponse,
    ListNodesResponse,
    GetNodeResponse,
    ListChecksResponse,
    UpdateCheckResponse,
    ListTransitionsResponse
);

/// A message as one line.
pub(crate) fn line<M: Named>(message: &M) -> Result<String, Failure> {
    serde_json::to_string(&dynamic(message)?).map_err(reflection)
}

/// A message as people read it.
pub(crate) fn pretty<M: Named>(message: &M) -> Result<String, Failure> {
    serde_json::to_string_pretty(&dynamic(message)?).map_err(reflection)
}

/// The transaction that a file's JSON describes.
pub(crate) fn txn_request(text: &[u8], path: &Path) -> Result<TxnRequest, Failure> {
    let refused = |error| Failure::TxnJson { path: path.into(), error };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize(descriptor("konsul.v1.TxnRequest")?, &mut deserializer)
        .map_err(refused)?;
    deserializer.end().map_err(refused)?;
    message.transcode_to().map_err(reflection)
}

fn dynamic<M: Named>(message: &M) -> Result<DynamicMessage, Failure> {
    DynamicMessage::decode(descriptor(M::NAME)?, message.encode_to_vec().as_slice()).map_err(reflection)
}

fn descriptor(name: &str) -> Result<MessageDescriptor, Failure> {
    let pool = DESCRIPTORS.as_ref().map_err(reflection)?;
    pool.get_message_by_name(name).ok_or_else(|| Failure::Reflection(format!("{name} is unknown")))
}

fn reflection(error: impl ToString) -> Failure {
    Failure::Reflection(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printed_message_has_a_descriptor() {
        for name in [
            proto::GetResponse::NAME,
            proto::ListResponse::NAME,
            proto::PutResponse::NAME,
            proto::DeleteResponse::NAME,
            proto::DeleteRangeResponse::NAME,
            proto::TxnResponse::NAME,
            proto::HistoryResponse::NAME,
            proto::WatchEvent::NAME,
            proto::StatusResponse::NAME,
            proto::CompactResponse::NAME,
            proto::DefragmentResponse::NAME,
            proto::RestoreResponse::NAME,
        ] {
            assert!(descriptor(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn json_is_that_of_the_api() {
        let entry = proto::Entry {
            key: "app/port".into(),
            value: "8080".into(),
            mod_revision: 9_007_199_254_740_993,
            ..Default::default()
        };
        let response = proto::GetResponse { revision: 3, entry: Some(entry) };
        let expected = r#"{"revision":"3","entry":{"key":"app/port","value":"ODA4MA==","modRevision":"9007199254740993"}}"#;
        assert_eq!(line(&response).unwrap(), expected);
    }
}
