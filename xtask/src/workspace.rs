//! Where things are: the project's folders, cargo's targets, and the files the build leaves.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::run;

/// A binary or benchmark that cargo can build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) package: String,
    pub(crate) name: String,
    pub(crate) kind: TargetKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Bin,
    Bench,
}

/// The project on disk.
///
/// What cargo builds lies in cargo's target folder, which several checkouts may share; what npm builds lies in this
/// checkout's own `target/`, which they may not.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    cargo_target: PathBuf,
    targets: Vec<Target>,
}

impl Workspace {
    /// Asks cargo about the workspace this program is run from. `cargo run` says which; the place it was built in is
    /// not always that, where checkouts share a target folder.
    pub(crate) fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let manifest = Path::new(&package).join("Cargo.toml");
        let json = run::output(
            Command::new(run::cargo())
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(manifest),
        )?;
        Self::from_metadata(&json).context("reading what `cargo metadata` says")
    }

    fn from_metadata(json: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(json)?;
        let path = |key: &str| metadata[key].as_str().map(PathBuf::from).ok_or_else(|| anyhow!("no `{key}`"));
        let mut targets = Vec::new();
        for package in metadata["packages"].as_array().ok_or_else(|| anyhow!("no `packages`"))? {
            for target in package["targets"].as_array().into_iter().flatten() {
                let kind = match target["kind"][0].as_str() {
                    Some("bin") => TargetKind::Bin,
                    Some("bench") => TargetKind::Bench,
                    _ => continue,
                };
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                targets.push(Target { package: text(&package["name"]), name: text(&target["name"]), kind });
            }
        }
        Ok(Self { root: path("workspace_root")?, cargo_target: path("target_directory")?, targets })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn has_bin(&self, package: &str, name: &str) -> bool {
        self.targets.iter().any(|t| t.kind == TargetKind::Bin && t.package == package && t.name == name)
    }

    /// The TypeScript side.
    pub(crate) fn js(&self) -> PathBuf {
        self.root.join("js")
    }

    /// The wasm module that cargo built with a profile, as cargo leaves it.
    pub(crate) fn raw_wasm(&self, profile: &str) -> PathBuf {
        self.cargo_target.join("wasm32-unknown-unknown").join(profile).join("coheap_wasm.wasm")
    }

    /// The relay as cargo leaves it.
    pub(crate) fn relay(&self) -> PathBuf {
        self.cargo_target.join("release").join(format!("coheap-relay{}", std::env::consts::EXE_SUFFIX))
    }

    /// The npm package as a user would get it.
    pub(crate) fn tarball(&self) -> PathBuf {
        self.own_target("npm/coheap.tgz")
    }

    /// A folder or file under this checkout's own `target/`.
    pub(crate) fn own_target(&self, name: &str) -> PathBuf {
        self.root.join("target").join(name)
    }

    /// A path as the user would type it from the project's root.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// A command of the workspace's own cargo.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(run::cargo());
        command.current_dir(&self.root).args(args);
        command
    }

    /// A script run by Node.js, told where the relay is.
    pub(crate) fn node(&self, args: &[&str]) -> Command {
        let mut command = Command::new("node");
        command.current_dir(&self.root).args(args).env("COHEAP_RELAY_BIN", self.relay());
        command
    }
}

/// Every file below `folder` whose name ends in `suffix`, in one order. A folder that does not exist has none.
pub(crate) fn files_below(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "node_modules" {
                pending.push(path);
            } else if name.ends_with(suffix) && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_and_benches_are_found_in_the_metadata() {
        let json = r#"{"workspace_root":"/w","target_directory":"/t","packages":[{"name":"p","targets":[
            {"kind":["lib"],"name":"p"},{"kind":["bin"],"name":"soak"},{"kind":["bench"],"name":"merge"}]}]}"#;
        let workspace = Workspace::from_metadata(json).unwrap();
        assert!(workspace.has_bin("p", "soak"));
        assert!(!workspace.has_bin("p", "merge"));
        assert_eq!(workspace.targets().len(), 2);
        assert_eq!(workspace.relay().parent(), Some(Path::new("/t/release")));
        assert_eq!(workspace.tarball(), Path::new("/w/target/npm/coheap.tgz"));
    }
}
