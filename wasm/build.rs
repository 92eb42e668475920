//! Caps the module's memory, so that a hostile or runaway document traps one replica and not the whole process.

/// 1 GiB: far above the default budget of a replica, far below what would hurt a machine.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo:rustc-cdylib-link-arg=--max-memory={MEMORY_BYTES_MAX}");
    }
}
