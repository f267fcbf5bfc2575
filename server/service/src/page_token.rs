//! Page tokens: where a listing goes on, the revision it is pinned to, and a hash of the request they belong to.
//! Opaque to callers and good on every member. A token that was tampered with, or comes with another
//! request, is refused; it is no secret and grants nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use konsul_state::Revision;
use konsul_state::view::Cursor;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::ServiceError;
use crate::limits;

/// Bytes of the checksum at the end of a token.
const CHECKSUM_BYTES: usize = 8;

/// Where a listing goes on.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PageToken {
    /// The revision the listing is pinned to.
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// A hash of the request without its paging.
    #[prost(fixed64, tag = "2")]
    request: u64,
    #[prost(oneof = "After", tags = "3, 4, 5")]
    after: Option<After>,
}

/// The last item of the page before.
#[derive(Clone, PartialEq, prost::Oneof)]
enum After {
    #[prost(string, tag = "3")]
    Key(String),
    #[prost(string, tag = "4")]
    Folder(String),
    #[prost(uint64, tag = "5")]
    Version(u64),
}

impl PageToken {
    /// The token of a listing of keys.
    pub(crate) fn of_keys(revision: Revision, request: u64, cursor: Cursor) -> Self {
        let after = match cursor {
            Cursor::Key(key) => After::Key(key),
            Cursor::Folder(folder) => After::Folder(folder),
        };
        Self { revision: revision.0, request, after: Some(after) }
    }

    /// The token of a listing of versions.
    pub(crate) fn of_versions(revision: Revision, request: u64, last: Revision) -> Self {
        Self { revision: revision.0, request, after: Some(After::Version(last.0)) }
    }

    /// The token of a listing of names.
    pub(crate) fn of_names(revision: Revision, request: u64, last: String) -> Self {
        Self { revision: revision.0, request, after: Some(After::Key(last)) }
    }

    /// The last name of the page before.
    pub(crate) fn into_name(self) -> Result<String, ServiceError> {
        match self.after {
            Some(After::Key(name)) => Ok(name),
            Some(After::Folder(_) | After::Version(_)) | None => Err(ServiceError::InvalidPageToken),
        }
    }

    /// The revision that the first page was of.
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// Where a listing of keys goes on.
    pub(crate) fn into_cursor(self) -> Result<Cursor, ServiceError> {
        match self.after {
            Some(After::Key(key)) => Ok(Cursor::Key(key)),
            Some(After::Folder(folder)) => Ok(Cursor::Folder(folder)),
            Some(After::Version(_)) | None => Err(ServiceError::InvalidPageToken),
        }
    }

    /// Where a listing of versions goes on.
    pub(crate) fn version(&self) -> Result<Revision, ServiceError> {
        match self.after {
            Some(After::Version(revision)) => Ok(Revision(revision)),
            Some(After::Key(_) | After::Folder(_)) | None => Err(ServiceError::InvalidPageToken),
        }
    }

    /// The token as callers carry it.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = self.encode_to_vec();
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that came with a request; `None` if none did.
    pub(crate) fn decode(text: &str, request: u64) -> Result<Option<Self>, ServiceError> {
        if text.is_empty() {
            return Ok(None);
        }
        let token = (text.len() <= limits::PAGE_TOKEN_BYTES).then(|| Self::read(text)).flatten();
        match token {
            Some(token) if token.request == request => Ok(Some(token)),
            _ => Err(ServiceError::InvalidPageToken),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (payload, checksum) = bytes.split_at(bytes.len().checked_sub(CHECKSUM_BYTES)?);
        (xxh3_64(payload).to_be_bytes() == checksum).then(|| Self::decode_payload(payload)).flatten()
    }

    fn decode_payload(payload: &[u8]) -> Option<Self> {
        Message::decode(payload).ok()
    }
}

/// The hash of a request whose paging was cleared, under the name of its method.
pub(crate) fn request_hash(method: &str, request: &impl Message) -> u64 {
    let mut bytes = method.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend(request.encode_to_vec());
    xxh3_64(&bytes)
}
