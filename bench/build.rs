//! Compiles the subset of etcd's API that the bench speaks, in pure Rust (no protoc).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/etcd.proto", "proto/etcd_lock.proto"], ["proto"])?;
    // Values are `Bytes`, as in konsul-proto: neither peer's client copies more than the other's.
    tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(files)?;
    Ok(())
}
