//! Makes the stubs from the contract's descriptors, without protoc.

use prost::Message;

const CONTRACT: &str = "../../../clients/python/src/penstock_proto/descriptors.binpb";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={CONTRACT}");
    let bytes = std::fs::read(CONTRACT).map_err(|error| format!("{CONTRACT}: {error}"))?;
    let contract = prost_types::FileDescriptorSet::decode(&*bytes)?;
    // The comments of the contract are not written in Rust: cargo test would take their examples for tests.
    tonic_prost_build::configure()
        .build_server(false)
        .disable_comments(["."])
        .compile_fds(contract)?;
    Ok(())
}
