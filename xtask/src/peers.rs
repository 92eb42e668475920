//! What the benches measure coheap beside: packages of npm by a lock of their own, and Redis from Debian. All of it lies below
//! `target/peers`; nothing that ships knows of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::steps::Outcome;
use crate::workspace::{Workspace, files_below};
use crate::{fingerprint, npm, run};

/// The server and the libraries that it has beside those of every Debian 12.
const REDIS: [&str; 8] = [
    "redis-tools",
    "redis-server",
    "libhiredis0.14",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "lua-cjson",
    "lua-bitop",
];

/// A peer that cannot be had is an error: no bench has an empty cell.
pub(crate) fn install(workspace: &Workspace) -> Result<Outcome> {
    let (from, home) = (workspace.root().join("tests/bench/peers"), workspace.own_target("peers"));
    let files = ["package.json", "package-lock.json", ".npmrc"];
    let lock = fingerprint::of(&files.map(|name| from.join(name)), &[])?;
    let (stamp, redis) = (home.join("stamp"), home.join("redis-server"));
    if fingerprint::is_current(&stamp, &lock, &[home.join("node_modules"), redis.clone()]) {
        return Ok(Outcome::Skipped("in step with the lock".to_owned()));
    }
    std::fs::create_dir_all(&home)?;
    for name in files {
        std::fs::copy(from.join(name), home.join(name)).with_context(|| format!("copying {name}"))?;
    }
    run::visibly(npm::npm(&home).arg("ci"))?;
    bring_redis(&home, &redis)?;
    ensure!(run::works(Command::new(&redis).arg("--version")), "{} does not start", redis.display());
    fingerprint::record(&stamp, &lock)?;
    Ok(Outcome::done())
}

/// Leaves a program of that name: the installed one, or one taken out of Debian's packages without installing them.
fn bring_redis(home: &Path, program: &Path) -> Result<()> {
    if run::works(Command::new("redis-server").arg("--version")) {
        return script(program, "exec redis-server \"$@\"");
    }
    let folder = home.join("redis");
    std::fs::create_dir_all(&folder)?;
    let mut download = Command::new("apt-get");
    run::visibly(download.arg("download").args(REDIS).current_dir(&folder))
        .context("Redis is a peer: install `redis-server`, or be on Debian 12")?;
    for package in files_below(&folder, ".deb")? {
        run::visibly(Command::new("dpkg").arg("-x").arg(&package).arg(folder.join("root")))?;
    }
    let mut libraries = files_below(&folder.join("root/usr/lib"), "")?;
    libraries.retain(|path| path.to_string_lossy().contains(".so"));
    let places: BTreeSet<_> =
        libraries.iter().filter_map(|path| path.parent()).map(|place| place.display().to_string()).collect();
    let places: Vec<_> = places.into_iter().collect();
    let server = folder.join("root/usr/bin/redis-server");
    script(program, &format!("LD_LIBRARY_PATH={} exec {} \"$@\"", places.join(":"), server.display()))
}

fn script(path: &Path, line: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{line}\n"))?;
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}
