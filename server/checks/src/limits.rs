//! Every bound of a check by name. What an operator may set is in [`crate::Settings`]. Nothing is enforced here.

use std::time::Duration;

/// Most bytes of a URL.
pub const URL_BYTES: usize = 2048;
/// Most headers of a request.
pub const HEADERS: usize = 32;
/// Most bytes of the names and values of a request's headers together.
pub const HEADER_BYTES: usize = 4 << 10;
/// Most bytes of a request's body.
pub const BODY_BYTES: usize = 4 << 10;
/// Most ranges of statuses that pass.
pub const STATUS_RANGES: usize = 16;
/// Most bytes of what an answer must have in it.
pub const EXPECT_BYTES: usize = 256;
/// Most bytes of a datagram that is sent.
pub const PAYLOAD_BYTES: usize = 512;
/// Most bytes of a DNS name (RFC 1035 §2.3.4), and of one of its labels.
pub const NAME_BYTES: usize = 253;
/// See [`NAME_BYTES`].
pub const LABEL_BYTES: usize = 63;
/// Most bytes of the name of a gRPC service.
pub const SERVICE_BYTES: usize = 256;
/// Most bytes of the name of a script.
pub const SCRIPT_BYTES: usize = 128;
/// Most variables that a script is given, and most bytes of all of them together.
pub const VARIABLES: usize = 32;
/// See [`VARIABLES`].
pub const VARIABLE_BYTES: usize = 4 << 10;

/// Most bytes of a verdict's output, and of an answer's body that are looked at.
pub const OUTPUT_BYTES: usize = 4 << 10;
/// Most bytes of the head of an HTTP answer, or of a gRPC answer's headers.
pub const ANSWER_HEAD_BYTES: usize = 16 << 10;
/// Most bytes that are read of one connection, whatever they are: certificates and what a protocol says beside the answer too.
pub const RECEIVED_BYTES: usize = 256 << 10;
/// Most bytes that a script may print; all but the first 4 KiB are thrown away.
pub const PRINTED_BYTES: usize = 16 << 20;
/// Most redirects that are followed.
pub const REDIRECTS: usize = 5;
/// Most addresses of a name that are tried.
pub const ADDRESSES: usize = 8;
/// How long a datagram that needs no answer may be refused, unless the check's timeout is shorter.
pub const UDP_QUIET: Duration = Duration::from_secs(1);
/// Longest time that a probe may take, whatever it was given.
pub const TIMEOUT: Duration = Duration::from_secs(3600);
