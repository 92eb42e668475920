//! Tells whether a step's inputs are those of the last time, so that a build with nothing to do takes seconds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The contents of files and words, as one short text. Not for security: it only has to notice a change.
pub(crate) fn of(files: &[PathBuf], words: &[&str]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    for file in files {
        file.file_name().hash(&mut hasher);
        std::fs::read(file).with_context(|| format!("reading {}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// The build of this program: what it generates may change with it.
pub(crate) fn of_this_program() -> Result<String> {
    let meta = std::env::current_exe().and_then(std::fs::metadata).context("looking at this program's own file")?;
    let mut hasher = DefaultHasher::new();
    (meta.len(), meta.modified()?).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// True when `stamp` says that a step was completed with these inputs and all it makes is still there.
pub(crate) fn is_current(stamp: &Path, fingerprint: &str, made: &[PathBuf]) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|last| last == fingerprint) && made.iter().all(|path| path.exists())
}

/// Marks a step as completed with these inputs. Written last, so that an interrupted step is done again.
pub(crate) fn record(stamp: &Path, fingerprint: &str) -> Result<()> {
    std::fs::write(stamp, fingerprint).with_context(|| format!("writing {}", stamp.display()))
}
