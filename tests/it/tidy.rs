//! What no compiler checks: which module may know which, names that say nothing, and paths that documents speak of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Per module of core: what it may import. (`relay` never sees an engine, a segment or a replica; they never see it.)
const ARROWS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("time", &[]),
    ("limits", &[]),
    ("mutate", &[]),
    ("version", &["id"]),
    ("wire", &["id", "limits", "commit"]),
    ("value", &["id", "limits", "wire"]),
    ("commit", &["id"]),
    ("edit", &["id", "value"]),
    ("log", &["id", "limits", "commit", "wire"]),
    ("admit", &["id", "limits", "commit", "log", "mutate", "wire"]),
    ("guard", &["id", "limits", "wire", "segment::write"]),
    ("segment", &["id", "limits", "commit", "edit", "value", "wire", "guard", "mutate"]),
    ("heap", &["id", "segment"]),
    (
        "replica",
        &["id", "limits", "commit", "edit", "value", "wire", "guard", "segment", "heap", "version", "log", "mutate"],
    ),
    ("relay", &["id", "limits", "time", "commit", "log", "admit", "guard", "mutate", "wire"]),
    ("edge", &["id", "limits", "commit", "edit", "value", "wire", "heap", "replica", "segment"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir()
            && !matches!(name.as_str(), "target" | "node_modules" | "dist" | "generated")
            && !name.starts_with('.')
        {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// The module of core that a file belongs to.
fn module(core: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(core).expect("a file of core");
    let first = inside.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn core_modules_import_only_what_they_may() {
    let core = root().join("core/src");
    let mut wrong = Vec::new();
    for file in files(&core, ".rs") {
        let from = module(&core, &file);
        if from == "lib" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{}: module `{from}` has no row in ARROWS", file.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        // Tests at a file's end may know more.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let to: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine =
                    to.is_empty() || to == from || allowed.iter().any(|name| name.split("::").next() == Some(&to));
                if !fine {
                    wrong.push(format!("{}: `{from}` imports `{to}`", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_has_an_empty_name() {
    let empty = BTreeSet::from(["utils", "util", "helpers", "helper", "common", "manager", "misc", "mod"]);
    let mut wrong = Vec::new();
    for ending in [".rs", ".ts"] {
        for file in files(&root(), ending) {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if empty.contains(name.as_str()) {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn documents_speak_of_files_that_exist() {
    let root = root();
    let mut wrong = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md", "tests/README.md"] {
        let text = fs::read_to_string(root.join(document)).expect("a document");
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split(' ').next().unwrap_or_default();
            let is_path = path.contains('/')
                && !path.starts_with("target/")
                && !path.contains("://")
                && [".rs", ".ts", ".md", ".mjs", "/"].iter().any(|ending| path.ends_with(ending));
            if is_path && !root.join(path).exists() {
                wrong.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules of CORE-PROTOCOL that are not kept yet, and why. A rule that is here and is found must leave this list.
const LATER: &[(&str, &str)] = &[("G6", "deletion is not built")];

/// The rule that a word names, as the protocol writes it: `R2a` is of R2. `c1` is none: traces call their commits so.
fn rule_of(word: &str) -> Option<String> {
    let letter = word.chars().next().filter(|letter| "RCLTDFG".contains(*letter))?;
    let rest = &word[1..];
    let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    let clause = &rest[digits.len()..];
    let is_rule = !digits.is_empty() && clause.len() <= 1 && clause.chars().all(|c| c.is_ascii_lowercase());
    is_rule.then(|| format!("{letter}{digits}"))
}

/// The rules that a text names.
fn rules_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(rule_of).collect()
}

/// The rules that a test holds by its name, which begins with them: `r2a_…`, `g1_to_g4_…`, `f1_to_f4_and_c9_…`.
fn rules_at_the_beginning(name: &str) -> BTreeSet<String> {
    let rule = |word: &str| rule_of(&(word.get(..1)?.to_ascii_uppercase() + &word[1..]));
    name.split('_').take_while(|word| matches!(*word, "to" | "and") || rule(word).is_some()).filter_map(rule).collect()
}

#[test]
fn a_rule_is_named_by_a_name_of_its_form_alone() {
    let names = |rules: BTreeSet<String>| rules.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names(rules_in("R2a, C10: c1 and c2, which C1 made; X3, R2ab, C, P4, C1's")), "C1 C10 R2");
    assert_eq!(names(rules_at_the_beginning("f1_to_f4_and_c9_copies_of_c2")), "C9 F1 F4");
    assert_eq!(names(rules_at_the_beginning("what_c1_made")), "");
}

/// What comments say in a source file, without its header, which speaks of what it is about, and without its tests.
fn comments(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with("//!"));
    lines.filter_map(|line| line.split_once("//")).map(|(_, comment)| comment).collect::<Vec<_>>().join("\n")
}

/// Names of tests, and what headers of tests and traces say: where a test says which rule it holds.
fn rules_that_tests_name(root: &Path) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for folder in ["tests/it", "core/tests"] {
        for file in files(&root.join(folder), ".rs").into_iter().filter(|file| !file.ends_with("tidy.rs")) {
            let text = fs::read_to_string(&file).expect("a source file");
            text.lines().filter(|line| line.starts_with("//!")).for_each(|line| named.extend(rules_in(line)));
            let names = text.split("#[test]").skip(1).filter_map(|test| test.split_once("fn ")?.1.split_once('('));
            names.for_each(|(name, _)| named.extend(rules_at_the_beginning(name)));
        }
    }
    for file in files(&root.join("tests/golden/traces"), ".txt") {
        let text = fs::read_to_string(&file).expect("a trace");
        text.lines().take_while(|line| line.starts_with('#')).for_each(|line| named.extend(rules_in(line)));
    }
    named
}

#[test]
fn every_rule_of_the_protocol_is_named_where_it_is_kept_and_where_it_is_tested() {
    let root = root();
    let sources = files(&root.join("core/src"), ".rs");
    // Switches that break rules keep none, nor do tests.
    let keep = sources.iter().filter(|file| !file.ends_with("mutate.rs") && !file.ends_with("tests.rs"));
    let kept: BTreeSet<String> = keep.flat_map(|file| rules_in(&comments(file))).collect();
    let tested = rules_that_tests_name(&root);
    let mut wrong = Vec::new();
    for (letter, last) in [('R', 12), ('C', 10), ('L', 6), ('T', 5), ('D', 7), ('F', 4), ('G', 6)] {
        for rule in (1..=last).map(|number| format!("{letter}{number}")) {
            let later = LATER.iter().any(|(name, _)| *name == rule);
            match (kept.contains(&rule), tested.contains(&rule)) {
                (true, true) if later => wrong.push(format!("{rule} is kept and tested: take it out of LATER")),
                (false, _) if !later => wrong.push(format!("{rule} is named in core/src nowhere but in headers")),
                (_, false) if !later => wrong.push(format!("{rule} is named by no test and no trace")),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Numbers of counterexamples of which CORE-PROTOCOL §12 says nothing.
const NO_TRACE: &[u32] = &[4, 6, 12, 21, 22, 41];

#[test]
fn every_counterexample_of_the_protocol_is_kept_as_a_trace() {
    let folder = root().join("tests/golden/traces");
    let head = |name: &str| {
        fs::read_to_string(folder.join(format!("{name}.txt"))).map(|text| text.lines().take(6).collect::<String>())
    };
    let mut wrong = Vec::new();
    for (letter, last) in [('w', 9), ('x', 43)] {
        for number in 1..=last {
            let name = format!("{letter}{number:02}");
            let is_excused = letter == 'x' && NO_TRACE.contains(&number);
            match (head(&name), is_excused) {
                (Ok(text), false) if text.contains(&format!("{}{number}", letter.to_ascii_uppercase())) => {}
                (Err(_), true) => {}
                (found, _) => wrong.push(format!("{name}: {found:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The promises of DESIGN §2 that schedules are run for. P7 is of budgets, P9 of locks: no switch is.
const PROMISES: [&str; 7] = ["P1", "P2", "P3", "P4", "P5", "P6", "P8"];

#[test]
fn every_promise_is_broken_by_a_switch_and_the_table_of_switches_is_whole() {
    let text = fs::read_to_string(root().join("tests/README.md")).expect("a document");
    let rows = text.lines().skip_while(|line| !line.starts_with("| switch | what is wrong | breaks | noticed as |"));
    let rows: Vec<Vec<&str>> = rows
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.iter().all(|row| row.len() == 5), "{rows:?}");
    let named: Vec<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let switches: Vec<String> = coheap_core::mutate::ALL.iter().map(|switch| format!("{switch:?}")).collect();
    assert_eq!(named, switches, "a row each, in the order of core/src/mutate.rs");
    let mut broken = BTreeSet::new();
    for row in &rows {
        for name in row[2].split(", ") {
            let is_rule = rules_in(name).len() == 1;
            assert!(PROMISES.contains(&name) || is_rule, "{}: {name} is no promise and no rule", row[0]);
            broken.insert(name);
        }
    }
    let kept: Vec<&&str> = PROMISES.iter().filter(|promise| !broken.contains(**promise)).collect();
    assert!(kept.is_empty(), "no switch breaks {kept:?}");
}

/// Public types of a folder of sources.
fn types(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files(folder, ".rs") {
        for line in fs::read_to_string(&file).expect("a source file").lines() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if let ["pub", "struct" | "enum" | "trait", name, ..] = words[..] {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

/// The simulated worlds drive the types that ship: one of their own by the same name would be a model of it.
#[test]
fn what_ships_has_no_namesake_in_the_simulated_world() {
    let root = root();
    let ships: BTreeSet<String> =
        types(&root.join("core/src")).union(&types(&root.join("sync-server/src"))).cloned().collect();
    assert!(["Replica", "Relay", "Segment"].iter().all(|name| ships.contains(*name)), "the types are found: {ships:?}");
    let twice: Vec<String> = types(&root.join("tests/sim")).intersection(&ships).cloned().collect();
    assert!(twice.is_empty(), "one name for a thing and for a play of it: {twice:?}");
    // Of the machines not even one that nobody else sees, nor another name for something.
    let machines =
        ["Replica", "Relay", "Segment", "Store", "Recovered", "Clocks", "AdmitRow", "Heap", "Pending", "Sequencer"];
    let mut plays = Vec::new();
    for file in files(&root.join("tests/sim"), ".rs") {
        let text = fs::read_to_string(&file).expect("a source file");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let named = words.windows(2).filter(|pair| matches!(pair[0], "struct" | "enum" | "trait" | "type" | "as"));
            plays.extend(
                named.filter(|pair| machines.contains(&pair[1])).map(|_| format!("{}: {line}", file.display())),
            );
        }
    }
    assert!(plays.is_empty(), "{}", plays.join("\n"));
}

/// What judges the machines has no thought of theirs: the oracle reads the log's headers, the checker nothing but its history.
#[test]
fn the_oracle_and_the_checker_know_no_segment_no_engine_and_no_machine() {
    let (oracle, checker) = (["coheap_core::id", "coheap_core::log", "coheap_core::wire::frame::roll"], []);
    for (file, allowed) in [("oracle", &oracle[..]), ("checker", &checker), ("history", &checker), ("marks", &checker)]
    {
        let text = fs::read_to_string(root().join(format!("tests/sim/schedule/{file}.rs"))).expect("a source file");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        assert!(code.len() > 20, "{file}.rs is there");
        for line in code {
            let used = line.trim_start().strip_prefix("use ").unwrap_or_default().trim_start_matches("pub ");
            let inside = ["", "std::", "super::history::", "super::marks::", "super::*", "super::{Failure, fails}"];
            let fine = inside.iter().any(|path| if path.is_empty() { used.is_empty() } else { used.starts_with(path) })
                || allowed.iter().any(|path| used.starts_with(path));
            let foreign = ["coheap_core::", "coheap_sync_server::", "crate::", "yrs::", "automerge::"];
            let by_path = used.is_empty() && foreign.iter().any(|path| line.contains(path));
            assert!(fine && !by_path, "{file}.rs: {line}");
        }
    }
}
