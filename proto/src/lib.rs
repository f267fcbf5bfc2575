//! Konsul's public API, generated from `proto/konsul/v1`: messages, client and server stubs, and the
//! descriptor set that reflection and the fronts read. Nothing but the codec is written by hand.
#![allow(missing_docs, clippy::doc_lazy_continuation, clippy::large_enum_variant)]

pub mod codec;

pub use google::rpc;
pub use konsul::v1;

// The modules mirror the packages, because generated code refers from one to another by that path.
mod konsul {
    /// `konsul.v1`: the API.
    pub mod v1 {
        tonic::include_proto!("konsul.v1");
    }
}
mod google {
    /// `google.rpc`: statuses.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// The encoded `FileDescriptorSet` of the API and all it imports, with comments and HTTP rules.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/konsul.bin"));
