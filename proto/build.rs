//! Compiles the `.proto` files with protox, so that no machine needs `protoc`.

use prost::Message as _;

const FILES: [&str; 1] = ["lampad/v1/ingest.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["."])?;
    // Served by gRPC reflection, so that grpcurl and other clients need no copy of the files.
    std::fs::write(out.join("lampad.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .extern_path(".lampad.v1.DecimalColumn", "crate::column::DecimalColumn")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=lampad");
    Ok(())
}
