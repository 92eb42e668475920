//! The two wasm modules: compiled, bound to JavaScript, and embedded in it. Programs start with the small one; the full one,
//! which has every engine, is fetched when a heap turns out to need it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

use crate::steps::{Outcome, Steps};
use crate::workspace::Workspace;
use crate::{fingerprint, glue, npm, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// What a module exports to JavaScript; anything else stops the build.
const CLASSES: [&str; 1] = ["Replica"];

/// One of the two modules.
#[derive(Clone, Copy)]
struct Module {
    /// Of its files in `js/src/generated/`.
    name: &'static str,
    /// Of cargo; each has its own folder, so that neither build undoes the other.
    profile: &'static str,
    /// Of `coheap-wasm`.
    features: &'static [&'static str],
}

const SMALL: Module = Module { name: "coheap", profile: "wasm", features: &[] };
const FULL: Module = Module { name: "full", profile: "wasm-full", features: &["--features", "automerge"] };

/// The files in `js/src/generated/`. The bytes are in a file of their own: engines parse one long string quickly, but not
/// as part of a larger file.
pub(crate) const GENERATED: [&str; 8] = [
    "coheap.js",
    "coheap.d.ts",
    "coheap-bytes.js",
    "coheap-bytes.d.ts",
    "full.js",
    "full.d.ts",
    "full-bytes.js",
    "full-bytes.d.ts",
];

pub(crate) fn plan(steps: &mut Steps) {
    steps.add("wasm target", |_| ensure_target());
    steps.add("wasm module", |workspace| compile(workspace, SMALL));
    steps.add("wasm bindings", |workspace| bind(workspace, SMALL));
    steps.add("full wasm module", |workspace| compile(workspace, FULL));
    steps.add("full wasm bindings", |workspace| bind(workspace, FULL));
}

/// The standard library for wasm, added by rustup when the toolchain has none yet.
pub(crate) fn ensure_target() -> Result<Outcome> {
    let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let installed = |text: String| std::fs::read_dir(text.trim()).is_ok_and(|mut files| files.next().is_some());
    let libraries = run::output(rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
    if installed(libraries) {
        return Ok(Outcome::Skipped("installed".to_owned()));
    }
    run::visibly(Command::new("rustup").args(["target", "add", TARGET]))
        .with_context(|| format!("this Rust has no standard library for {TARGET} and rustup could not add it"))?;
    Ok(Outcome::done())
}

fn compile(workspace: &Workspace, module: Module) -> Result<Outcome> {
    let build = ["build", "--locked", "--package", "coheap-wasm", "--lib", "--profile", module.profile];
    run::visibly(workspace.cargo(&build).args(["--target", TARGET]).args(module.features))?;
    Ok(Outcome::done())
}

fn bind(workspace: &Workspace, module: Module) -> Result<Outcome> {
    let raw = workspace.raw_wasm(module.profile);
    let embed = workspace.js().join("scripts/embed-wasm.mjs");
    let generated = workspace.js().join("src/generated");
    let stamp = generated.join(format!("stamp-{}", module.name));
    let inputs = fingerprint::of(&[raw.clone(), embed.clone()], &[&fingerprint::of_this_program()?])?;
    let files = GENERATED.iter().filter(|file| file.starts_with(module.name));
    if fingerprint::is_current(&stamp, &inputs, &files.map(|name| generated.join(name)).collect::<Vec<_>>()) {
        return Ok(Outcome::Skipped("the module is as it was".to_owned()));
    }
    npm::ensure_node()?;

    // Both are bound under one name, so that their glue differs in nothing but what they export.
    let bound = workspace.own_target("bindgen").join(module.name);
    let mut bindgen = Bindgen::new();
    bindgen.input_path(&raw).out_name("coheap").typescript(true);
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.web(true)?.generate(&bound).context("running wasm-bindgen on the module")?;

    std::fs::create_dir_all(&generated)?;
    let to = |ending: &str| generated.join(format!("{}{ending}", module.name));
    rewrite(&bound.join("coheap.js"), &to(".js"), |text| glue::factory(text, &CLASSES))?;
    rewrite(&bound.join("coheap.d.ts"), &to(".d.ts"), |text| glue::factory_types(text, &CLASSES))?;
    let embedding = [embed.as_path(), &bound.join("coheap_bg.wasm"), &generated, Path::new(module.name)];
    let sizes = run::output(workspace.node(&[]).args(embedding))?;
    fingerprint::record(&stamp, &inputs)?;
    report(module, &sizes)
}

fn rewrite(from: &Path, to: &Path, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let text = std::fs::read_to_string(from).with_context(|| format!("reading {}", from.display()))?;
    let text = change(&text).with_context(|| format!("rewriting {}", from.display()))?;
    std::fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

/// Prints the sizes the embedding script measured, as one line of JSON.
fn report(module: Module, json: &str) -> Result<Outcome> {
    let sizes: Value = serde_json::from_str(json).context("reading the sizes of the module")?;
    let size = |name: &str| sizes[name].as_u64().with_context(|| format!("no size `{name}`"));
    ensure!(size("raw")? > 0, "the module is empty");
    let name = module.name;
    println!(
        "wasm module `{name}`, bytes: {} raw, {} gzip -9, {} brotli",
        size("raw")?,
        size("gzip")?,
        size("brotli")?
    );
    println!("embedded: {} characters of base64 (deflated)", size("embedded")?);
    match sizes["maximumPages"].as_u64() {
        Some(pages) => println!("memory: at most {} MiB", pages / 16),
        None => bail!("the module's memory has no maximum"),
    }
    Ok(Outcome::Done(format!("{} kB raw, {} kB brotli", size("raw")? / 1000, size("brotli")? / 1000)))
}
