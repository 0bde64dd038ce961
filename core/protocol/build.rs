//! Compiles the protobuf files of `proto/` to descriptors. No protoc is needed.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 5] = [
    "inference/grpc_service.proto",
    "headrace/v1/headrace.proto",
    "grpc/health.proto",
    "grpc/reflection.proto",
    "grpc/reflection_v1alpha.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true);
    compiler.open_files(FILES)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    Ok(())
}
