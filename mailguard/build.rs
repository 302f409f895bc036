//! Hands the kernel part to the compiler: the object that `cargo xtask build` made, or nothing.
//!
//! Without it the binary builds and says so when it is to start the kernel part; everything else works.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=MAILGUARD_EBPF");
    println!("cargo::rerun-if-changed=build.rs");
    let source = match env::var_os("MAILGUARD_EBPF") {
        Some(path) => PathBuf::from(path),
        None => built_object(),
    };
    let object = match fs::read(&source) {
        Ok(object) => {
            println!("cargo::rerun-if-changed={}", source.display());
            object
        }
        Err(error) => {
            println!(
                "cargo::warning=no eBPF object at {} ({error}): this build can't intercept; run cargo xtask build",
                source.display()
            );
            Vec::new()
        }
    };
    let target = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("mailguard.bpf.o");
    fs::write(&target, object).expect("cargo's OUT_DIR can be written to");
}

/// Where `cargo xtask build` puts the object. The folder is made and watched, so that an object that appears
/// later is noticed; a watched path that doesn't exist would have cargo build mailguard anew each time.
fn built_object() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&manifest).join("../target/bpf");
    fs::create_dir_all(&folder).expect("the target folder can be written to");
    println!("cargo::rerun-if-changed={}", folder.display());
    folder.join("mailguard.bpf.o")
}
