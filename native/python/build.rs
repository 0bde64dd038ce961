//! Computes the digest of the Rust sources that this module is built from, so that nobody tests yesterday's engine.
//!
//! The digest is `sha256:<hex>` over these files, sorted by their path from the repository's root (`/` between parts, compared as bytes):
//! `Cargo.lock`, and under `core/` and `native/` every file named `Cargo.toml` or ending in `.rs` or `.proto`. Each file adds its path, a zero byte, its
//! length in bytes as 8 bytes little-endian, and its bytes. Folders named `target` and those starting with `.` are left out.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let mut files = vec!["Cargo.lock".to_owned()];
    for folder in ["core", "native"] {
        collect(&root, &root.join(folder), &mut files)?;
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
    println!("cargo:rerun-if-changed={}", root.join("Cargo.lock").display());
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let bytes = fs::read(root.join(&file))?;
        hasher.update(file.as_bytes());
        hasher.update([0]);
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo:rustc-env=HEADRACE_SOURCE_DIGEST=sha256:{hex}");
    Ok(())
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, files)?;
            }
        } else if name == "Cargo.toml" || name.ends_with(".rs") || name.ends_with(".proto") {
            let relative = path.strip_prefix(root)?;
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            files.push(parts.join("/"));
        }
    }
    Ok(())
}
