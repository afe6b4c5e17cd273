//! Compiles `proto/` into `OUT_DIR`. Pure Rust: a clean checkout needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message;

const PROTOS: [&str; 3] =
    ["lakesync/v1/data.proto", "lakesync/v1/sync.proto", "lakesync/admin/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Reflection serves it, and a test walks it: every method has an entry in the table of scopes.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false) // Callers bring the channel; this crate opens no socket.
        .bytes(".lakesync.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
