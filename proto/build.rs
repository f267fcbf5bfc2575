//! Compiles the protos in pure Rust (no protoc) into messages, stubs and the descriptor set.

use std::path::{Path, PathBuf};

/// Every file of the public API. A new service is one more line here.
const PROTOS: [&str; 8] = [
    "konsul/v1/common.proto",
    "konsul/v1/kv.proto",
    "konsul/v1/lease.proto",
    "konsul/v1/lock.proto",
    "konsul/v1/election.proto",
    "konsul/v1/admin.proto",
    "konsul/v1/catalog.proto",
    "konsul/v1/health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let includes = [root.clone(), root.join("vendor")];
    println!("cargo:rerun-if-changed=konsul");
    println!("cargo:rerun-if-changed=vendor");

    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(PROTOS.map(Path::new))?;
    // `file_descriptor_set()` drops extension options such as google.api.http, so what reflection and
    // the fronts read is the encoded form.
    std::fs::write(out.join("konsul.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
