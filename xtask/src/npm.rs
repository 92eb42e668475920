//! The npm package: its dependencies, its TypeScript, its tarball, and that tarball installed as a user would.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::steps::{Outcome, Steps};
use crate::wasm::GENERATED;
use crate::workspace::{Workspace, files_below};
use crate::{fingerprint, run};

/// The oldest Node.js that has all the package needs: `require` of an ES module without a flag.
const NODE_MIN: (u32, u32) = (20, 19);

/// Files of the project's root that go into the package beside what `js/` has.
const FROM_ROOT: [&str; 3] = ["LICENSE", "LICENSE-MIT", "LICENSE-APACHE"];

pub(crate) fn plan(steps: &mut Steps) {
    steps.add("npm dependencies", install_dependencies);
    steps.add("TypeScript", |workspace| compile(workspace, "tsconfig.json", "dist", "dist/generated"));
    steps.add("npm package", pack);
}

/// Fails in one line when Node.js is missing or too old.
pub(crate) fn ensure_node() -> Result<()> {
    let (major, minor) = NODE_MIN;
    let version = run::output(Command::new("node").arg("--version"))
        .with_context(|| format!("Node.js {major}.{minor} or newer is needed"))?;
    let mut numbers = version.trim().trim_start_matches('v').split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(found >= NODE_MIN, "Node.js {major}.{minor} or newer is needed; this one is {}", version.trim());
    Ok(())
}

fn install_dependencies(workspace: &Workspace) -> Result<Outcome> {
    ensure_node()?;
    let js = workspace.js();
    let stamp = js.join("node_modules/.coheap-lock");
    let lock = fingerprint::of(&[js.join("package.json"), js.join("package-lock.json")], &[])?;
    if fingerprint::is_current(&stamp, &lock, &[]) {
        return Ok(Outcome::Skipped("in step with the lock".to_owned()));
    }
    run::visibly(npm(&js).args(["ci", "--no-audit", "--no-fund"]))?;
    fingerprint::record(&stamp, &lock)?;
    Ok(Outcome::done())
}

/// Compiles one project of `js/` into the folder `out`, and puts the generated files where it looks for them.
///
/// The folder is emptied first, so that it never holds what the sources no longer do.
pub(crate) fn compile(workspace: &Workspace, project: &str, out: &str, generated: &str) -> Result<Outcome> {
    let js = workspace.js();
    let (out, generated) = (js.join(out), js.join(generated));
    let sources = js.join("src/generated");
    let mut inputs = files_below(&js.join("src"), "")?;
    inputs.extend(files_below(&js.join("test"), "")?);
    inputs.extend(["package.json", "package-lock.json", "tsconfig.json", project].map(|name| js.join(name)));
    let places: Vec<_> = inputs.iter().map(|path| workspace.shown(path)).collect();
    let words: Vec<_> = places.iter().map(String::as_str).chain([project]).collect();
    let inputs = fingerprint::of(&inputs, &words)?;
    let stamp = out.join(".stamp");
    if fingerprint::is_current(&stamp, &inputs, &GENERATED.map(|name| generated.join(name))) {
        return Ok(Outcome::Skipped("the sources are as they were".to_owned()));
    }
    remove(&out)?;
    run::visibly(&mut workspace.node(&["js/node_modules/typescript/bin/tsc", "--project", &format!("js/{project}")]))?;
    std::fs::create_dir_all(&generated)?;
    for name in GENERATED {
        std::fs::copy(sources.join(name), generated.join(name)).with_context(|| format!("copying {name}"))?;
    }
    fingerprint::record(&stamp, &inputs)?;
    Ok(Outcome::done())
}

/// Packs what `js/` and the licences say into `target/npm/coheap.tgz`.
///
/// The tarball is made from a copy, because npm packs only what lies beside `package.json`.
fn pack(workspace: &Workspace) -> Result<Outcome> {
    let (js, folder, tarball) = (workspace.js(), workspace.own_target("npm"), workspace.tarball());
    let mut contents = files_below(&js.join("dist"), "")?;
    contents.retain(|path| !path.ends_with(".stamp"));
    contents.extend(["package.json", "README.md"].map(|name| js.join(name)).into_iter().filter(|path| path.exists()));
    contents.extend(FROM_ROOT.map(|name| workspace.root().join(name)));
    let stamp = folder.join("stamp");
    let inputs = fingerprint::of(&contents, &[])?;
    if fingerprint::is_current(&stamp, &inputs, std::slice::from_ref(&tarball)) {
        return Ok(Outcome::Skipped("the contents are as they were".to_owned()));
    }
    let stage = folder.join("stage");
    remove(&folder)?;
    for from in &contents {
        let place = from.strip_prefix(&js).or_else(|_| from.strip_prefix(workspace.root()))?;
        copy(from, &stage.join(place))?;
    }
    let said =
        run::output(npm(&stage).args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(&folder))?;
    let name = said.lines().last().unwrap_or_default().trim();
    std::fs::rename(folder.join(name), &tarball).with_context(|| format!("`npm pack` left no {name}"))?;
    fingerprint::record(&stamp, &inputs)?;
    let size = std::fs::metadata(&tarball)?.len();
    println!("{}: {size} bytes, {} files", workspace.shown(&tarball), contents.len());
    Ok(Outcome::Done(format!("{} kB", size / 1000)))
}

/// Installs the tarball into `target/demo/node_modules`, as a user would, and lets the whole checkout find it there.
///
/// The link at the root is what makes `import 'coheap'` in `examples/` and `tests/e2e/` find the package as published
/// rather than the sources beside it.
pub(crate) fn install_package(workspace: &Workspace) -> Result<Outcome> {
    let (home, tarball) = (workspace.own_target("demo"), workspace.tarball());
    let installed = home.join("node_modules");
    let stamp = home.join("stamp");
    let inputs = fingerprint::of(std::slice::from_ref(&tarball), &[])?;
    let current = fingerprint::is_current(&stamp, &inputs, &[installed.join("coheap")]);
    if !current {
        remove(&home)?;
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("package.json"), "{\"private\":true,\"type\":\"module\"}\n")?;
        run::visibly(npm(&home).args(["install", "--prefer-offline", "--no-audit", "--no-fund"]).arg(&tarball))?;
        fingerprint::record(&stamp, &inputs)?;
    }
    link(&installed, &workspace.root().join("node_modules"))?;
    Ok(if current { Outcome::Skipped("installed".to_owned()) } else { Outcome::done() })
}

fn link(to: &Path, from: &Path) -> Result<()> {
    if std::fs::read_link(from).is_ok_and(|target| target == to) {
        return Ok(());
    }
    if from.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
        bail!("{} is in the way: it should be a link to {}", from.display(), to.display());
    }
    let _ = std::fs::remove_file(from);
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(to, from);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_dir(to, from);
    linked.with_context(|| format!("linking {}", from.display()))
}

pub(crate) fn npm(folder: &Path) -> Command {
    let mut command = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    command.current_dir(folder).env("npm_config_update_notifier", "false");
    command
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    std::fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// What a complete build of the package leaves.
pub(crate) fn products(workspace: &Workspace) -> Vec<PathBuf> {
    vec![workspace.js().join("node_modules"), workspace.js().join("dist/index.js"), workspace.tarball()]
}
