//! `coheap-relay store …`: a store that no relay has open is checked, shown, shrunk or mended. Answers go to stdout.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use coheap_core::id::Offset;
use coheap_sync_server::config::{StoreCommand, StoreTarget};
use coheap_sync_server::{Store, StoreError, salvage};

use crate::{FAILED, STORE, fail};

/// Does it; the exit code.
pub fn run(command: &StoreCommand) -> ExitCode {
    let dir = match command {
        StoreCommand::Compact { dir } => dir,
        StoreCommand::Verify(target) | StoreCommand::Dump(target) | StoreCommand::Salvage(target) => &target.dir,
    };
    // What is not there is not to be created.
    if !dir.join("relay.redb").is_file() {
        return fail(STORE, &format!("{}: there is no store", dir.display()));
    }
    if let StoreCommand::Salvage(target) = command {
        return mend(target);
    }
    let store = match command {
        StoreCommand::Compact { .. } => Store::open(dir, 0),
        _ => Store::open_to_read(dir),
    };
    let store = match store {
        Ok(store) => store,
        Err(error) => return unusable(dir, &error),
    };
    match command {
        StoreCommand::Verify(target) => verify(&store, target),
        StoreCommand::Dump(target) => dump(&store, target),
        StoreCommand::Compact { dir } => compact(&store, dir),
        StoreCommand::Salvage(_) => ExitCode::SUCCESS,
    }
}

fn unusable(dir: &Path, error: &StoreError) -> ExitCode {
    let hint = if let StoreError::Damaged(_) = error { " (store salvage keeps what is whole)" } else { "" };
    fail(STORE, &format!("{}: {error}{hint}", dir.display()))
}

/// Says a line; nobody may be reading any more.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The heaps that are meant.
fn heaps(store: &Store, target: &StoreTarget) -> Result<Vec<String>, StoreError> {
    if let Some(heap) = &target.heap {
        return Ok(vec![heap.clone()]);
    }
    let mut heaps: Vec<String> = Vec::new();
    while let Some(heap) = store.next_heap(heaps.last().map(String::as_str))? {
        heaps.push(heap);
    }
    Ok(heaps)
}

fn verify(store: &Store, target: &StoreTarget) -> ExitCode {
    let mut damaged = 0_u32;
    let mut found = |what: &str, error: &StoreError| {
        damaged += 1;
        say(&format!("{what}: {error}"));
    };
    if target.heap.is_none() {
        match store.check_file() {
            Ok(true) => say("file: whole"),
            Ok(false) => say("file: whole, once its library has repaired it"),
            Err(error) => found("file", &error),
        }
        if let Err(error) = store.verify_names() {
            found("names", &error);
        }
    }
    match heaps(store, target) {
        Ok(heaps) => {
            for heap in heaps {
                match store.verify_heap(&heap, |_| true) {
                    Ok(whole) => {
                        let mut line = format!(
                            "heap {heap:?}: whole, entries {} to {}, {} records, {} segments, {} bytes",
                            whole.floor.0, whole.head.0, whole.records, whole.segments, whole.bytes
                        );
                        if whole.forgotten > Offset(0) {
                            line += &format!(", idle lines dropped below {}", whole.forgotten.0);
                        }
                        say(&line);
                    }
                    Err(error) => found(&format!("heap {heap:?}"), &error),
                }
            }
        }
        Err(error) => found("heaps", &error),
    }
    if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn dump(store: &Store, target: &StoreTarget) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let dumped =
        heaps(store, target).and_then(|heaps| heaps.iter().try_for_each(|heap| store.dump(heap, &mut out).map(drop)));
    let _ = out.flush();
    match dumped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

fn compact(store: &Store, dir: &Path) -> ExitCode {
    let size = || std::fs::metadata(dir.join("relay.redb")).map_or(0, |file| file.len());
    let before = size();
    match store.compact() {
        Ok(_) => {
            say(&format!("{before} bytes before, {} after", size()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

fn mend(target: &StoreTarget) -> ExitCode {
    let random = || getrandom::u64().expect("the operating system gives random bits");
    match salvage(&target.dir, target.heap.as_deref(), random) {
        Ok((_, None)) => say("nothing is damaged"),
        Ok((heaps, Some(aside))) => {
            for heap in heaps {
                say(&format!("heap {:?}: {}; kept up to entry {}", heap.heap, heap.damage, heap.head.0));
                for lost in heap.lost {
                    say(&format!("heap {:?}: lost: {lost}", heap.heap));
                }
            }
            say(&format!("the store as it was: {}", aside.display()));
        }
        Err(error @ (StoreError::InUse | StoreError::Format(_))) => return unusable(&target.dir, &error),
        Err(error) => return fail(FAILED, &format!("{}: {error}", target.dir.display())),
    }
    ExitCode::SUCCESS
}
