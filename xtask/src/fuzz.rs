//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, built with the address sanitizer by the toolchain that is there.
//!
//! ```text
//!   tests/fuzz/corpus/T.bin ──unpack──► target/fuzz/corpus/T ──► target T for N seconds ──► target/fuzz/artifacts/T-…
//!                           ◄──pack────  minimised              (with --keep)
//! ```
//!
//! A corpus is one packed file a target: its thousands of inputs of a few bytes each would be most of the repository's files,
//! and nobody reads a change of one.

use std::ffi::OsStr;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run;
use crate::steps::{Outcome, Steps};
use crate::workspace::Workspace;

/// Every target, in the order of its run.
pub(crate) const TARGETS: &[&str] = &["frames", "guard_yrs", "guard_automerge", "replica", "packed", "relay", "store"];

/// The release that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";
/// How long the inputs of a corpus may take before the first new one is tried.
const REPLAY_MAX: Duration = Duration::from_secs(600);
/// New inputs that a run of half a minute tries at least; a slow target tries some hundreds.
const TRIED_MIN: u64 = 20;
/// What the unit that is running, and the engine's last words, may take when a target is told to end: more than `-timeout`.
const END_MAX: Duration = Duration::from_secs(60);
/// Bytes of one packed corpus: all of them stay below 5 MB.
const CORPUS_BYTES_MAX: usize = 700_000;
/// An artifact up to this size is printed.
const SHOWN_BYTES: usize = 512;
/// Of a log, when a target has failed.
const SHOWN_LINES: usize = 60;

/// How targets are fuzzed.
#[derive(Clone, Copy)]
pub(crate) struct Fuzzing {
    /// Of each target, once it has been through its corpus.
    pub(crate) seconds: u64,
    /// Of the engine's random numbers; by default another one each time.
    pub(crate) seed: Option<u32>,
    /// Whether the corpus is minimised and packed afterwards.
    pub(crate) keep: bool,
}

pub(crate) fn plan(steps: &mut Steps, target: Option<&str>, how: Fuzzing) {
    steps.add("cargo-fuzz", install);
    let only = target.map(str::to_owned);
    steps.add("build the targets", move |workspace| build(workspace, only.as_deref()));
    let names: Vec<&str> = TARGETS.iter().copied().filter(|name| target.is_none_or(|only| only == *name)).collect();
    steps.add("fuzz", move |workspace| all(workspace, &names, how));
}

/// Fuzzes the targets, as many at one time as there are cores; what each came to is printed when it ends.
fn all(workspace: &Workspace, names: &[&'static str], how: Fuzzing) -> Result<Outcome> {
    if how.keep {
        let seeds = folder(workspace).join("corpus");
        run::visibly(Command::new(program(workspace, "seeds")?).arg(seeds).current_dir(workspace.root()))?;
    }
    let next = AtomicUsize::new(0);
    let one_after_another = || -> Result<()> {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            println!("{name}: {}", fuzz(workspace, name, how)?);
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(names.len());
    thread::scope(|scope| {
        let running: Vec<_> = (0..cores).map(|_| scope.spawn(one_after_another)).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(Outcome::Done(format!("{} targets, {} s each", names.len(), how.seconds)))
}

fn install(workspace: &Workspace) -> Result<Outcome> {
    if run::works(&mut workspace.cargo(&["fuzz", "--version"])) {
        return Ok(Outcome::Skipped("it is there".to_owned()));
    }
    run::visibly(&mut workspace.cargo(&["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))?;
    Ok(Outcome::Done(CARGO_FUZZ.to_owned()))
}

fn build(workspace: &Workspace, only: Option<&str>) -> Result<Outcome> {
    let folder = folder(workspace);
    let mut command = workspace.cargo(&["fuzz", "build", "--fuzz-dir", "tests/fuzz", "--sanitizer", "address"]);
    // Debug assertions are for the profile to say, crate by crate; and with one unit of code for each crate, whatever the
    // profile says, a build takes twice the time on two cores.
    command.args(["--release", "--codegen-units", "16"]);
    command.arg("--target-dir").arg(&folder).args(only);
    // Sanitizers are not stable: the one toolchain that there is builds them all the same.
    run::visibly(command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(Outcome::done())
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.own_target("fuzz")
}

fn packed(workspace: &Workspace, target: &str) -> PathBuf {
    workspace.root().join("tests/fuzz/corpus").join(format!("{target}.bin"))
}

/// The target's program. cargo-fuzz builds for a named triple.
fn program(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    let version = run::output(Command::new("rustc").arg("-vV").current_dir(workspace.root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(folder(workspace).join(host).join("release").join(target))
}

fn fuzz(workspace: &Workspace, target: &str, how: Fuzzing) -> Result<String> {
    let (corpus, artifacts) = (folder(workspace).join("corpus").join(target), folder(workspace).join("artifacts"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    unpack(&packed(workspace, target), &corpus)?;
    let log = folder(workspace).join(format!("{target}.log"));
    let mut command = engine(workspace, target)?;
    command.arg(&corpus).args([
        &format!("-seed={}", how.seed.unwrap_or(0)),
        // Should nobody tell it to end.
        &format!("-max_total_time={}", (REPLAY_MAX + END_MAX).as_secs() + how.seconds),
        // Of one input. The slowest honest ones take some milliseconds; the machine may be busy.
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-max_len=8192",
        "-print_final_stats=1",
    ]);
    command.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    let child = command.stderr(fs::File::create(&log)?).spawn().with_context(|| format!("starting {target}"))?;
    let (status, cpu) = wait(child, &log, Duration::from_secs(how.seconds))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() || !said.contains("exiting as requested") || said.contains("ERROR: ") {
        show_failure(workspace, &said)?;
        bail!("{target} ended with {status}; all it said is in {}", workspace.shown(&log));
    }
    if how.keep {
        minimise(workspace, target, &corpus)?;
        pack(&corpus, &packed(workspace, target))?;
    }
    let stat = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim).to_owned();
    let (runs, peak) = (stat("stat::number_of_executed_units:"), stat("stat::peak_rss_mb:"));
    let known = replayed(&said).with_context(|| format!("{target} did not come to the end of its corpus"))?;
    let tried = runs.parse::<u64>()?.saturating_sub(known);
    ensure!(how.seconds < 30 || tried >= TRIED_MIN, "{target} tried {tried} new inputs in {} s", how.seconds);
    let cpu = cpu.map_or("?".to_owned(), |(corpus, all)| format!("{:.0} s of CPU behind {corpus:.0}", all - corpus));
    Ok(format!("{tried} new inputs behind {known} of its corpus, {cpu}, {peak} MB at the most"))
}

/// Lets a process fuzz for so long once it has been through its corpus, then tells it to end. With the seconds of CPU that the
/// corpus took, and those of all, where Linux tells.
fn wait(mut child: Child, log: &Path, time: Duration) -> Result<(ExitStatus, Option<(f64, f64)>)> {
    let (begun, mut ready, mut told, mut cpu) = (Instant::now(), None::<Instant>, false, None);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, cpu));
        }
        let now = cpu_seconds(child.id());
        cpu = now.map(|now| (cpu.filter(|_| ready.is_some()).map_or(now, |(corpus, _)| corpus), now)).or(cpu);
        if ready.is_none() && replayed(&String::from_utf8_lossy(&fs::read(log)?)).is_some() {
            ready = Some(Instant::now());
        }
        match ready {
            // The unit that is running comes to its end, or to the engine's timeout: a hang is not cut off.
            Some(ready) if ready.elapsed() >= time && !told => {
                run::works(Command::new("kill").args(["-s", "USR1", &child.id().to_string()]));
                told = true;
            }
            Some(ready) if ready.elapsed() >= time + END_MAX => child.kill()?,
            None if begun.elapsed() >= REPLAY_MAX => child.kill()?,
            _ => {}
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// How many inputs a target had run when it had been through its corpus: `#684 INITED cov: …`.
fn replayed(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("\tINITED"))?;
    line.strip_prefix('#')?.split('\t').next()?.parse().ok()
}

/// What the process has taken so far; its clock ticks a hundred times a second.
fn cpu_seconds(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything; user and system time are the 14th and 15th field.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    // One that has ended and was not waited for yet has none any more.
    (ticks > 0.0).then_some(ticks / 100.0)
}

fn engine(workspace: &Workspace, target: &str) -> Result<Command> {
    let program = program(workspace, target)?;
    ensure!(program.exists(), "{} is not there", workspace.shown(&program));
    let mut command = Command::new(program);
    command.current_dir(workspace.root()).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    // Leaks are looked for once, at the end, and cost more than they tell: the shared stages live as long as the process.
    command.env("ASAN_OPTIONS", "detect_odr_violation=0:detect_leaks=0");
    Ok(command)
}

/// The end of the log, and the input that failed.
fn show_failure(workspace: &Workspace, said: &str) -> Result<()> {
    let lines: Vec<&str> = said.lines().collect();
    let from = lines.iter().position(|line| line.contains("panicked at") || line.contains("ERROR:"));
    for line in lines.iter().skip(from.unwrap_or(lines.len().saturating_sub(SHOWN_LINES))).take(SHOWN_LINES) {
        println!("{line}");
    }
    let Some(path) =
        said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim())
    else {
        return Ok(());
    };
    let bytes = fs::read(path).with_context(|| format!("reading {path}"))?;
    println!("input of {} bytes: {}", bytes.len(), workspace.shown(Path::new(path)));
    if bytes.len() <= SHOWN_BYTES {
        println!("hex: {}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    Ok(())
}

/// Keeps the smallest inputs that reach all that the corpus reaches.
fn minimise(workspace: &Workspace, target: &str, corpus: &Path) -> Result<()> {
    let merged = folder(workspace).join("merged").join(target);
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)?;
    let log = fs::File::create(folder(workspace).join(format!("{target}-merge.log")))?;
    let mut command = engine(workspace, target)?;
    command.args(["-merge=1", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192"]).arg(&merged).arg(corpus);
    ensure!(command.stderr(log).status()?.success(), "{target} cannot merge its corpus");
    fs::remove_dir_all(corpus)?;
    fs::rename(&merged, corpus)?;
    Ok(())
}

/// Inputs, the shortest first, each behind its length in four bytes (little-endian).
fn pack(corpus: &Path, file: &Path) -> Result<()> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(corpus)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    let mut out = Vec::new();
    for input in inputs {
        if out.len() + 4 + input.len() > CORPUS_BYTES_MAX {
            break;
        }
        out.extend_from_slice(&u32::try_from(input.len())?.to_le_bytes());
        out.extend_from_slice(&input);
    }
    fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    fs::write(file, out).with_context(|| format!("writing {}", file.display()))
}

/// The inverse of [`pack`], beside what the fuzzer has found since.
fn unpack(file: &Path, corpus: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let name = file.file_stem().unwrap_or(OsStr::new("input")).to_string_lossy().into_owned();
    for (n, input) in inputs(&fs::read(file)?)?.into_iter().enumerate() {
        fs::write(corpus.join(format!("{name}-{n:05}")), input)?;
    }
    Ok(())
}

fn inputs(mut packed: &[u8]) -> Result<Vec<&[u8]>> {
    let mut inputs = Vec::new();
    while let Some((len, rest)) = packed.split_first_chunk::<4>() {
        let (input, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).context("a corpus is cut off")?;
        inputs.push(input);
        packed = rest;
    }
    ensure!(packed.is_empty(), "a corpus is cut off");
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_counted_as_tried() {
        let said = "#512\tpulse  cov: 45924\n#684\tINITED cov: 45977 ft: 92596\n#703\tREDUCE cov: 45977\n";
        assert_eq!(replayed(said), Some(684));
        assert_eq!(replayed("#512\tpulse  cov: 45924\n"), None);
    }

    #[test]
    fn a_packed_corpus_comes_apart_again() {
        let folder = std::env::temp_dir().join(format!("coheap-corpus-{}", std::process::id()));
        let (corpus, file) = (folder.join("corpus"), folder.join("packed/x.bin"));
        fs::create_dir_all(&corpus).unwrap();
        for (name, input) in [("b", &b"longer"[..]), ("a", b""), ("c", b"xy")] {
            fs::write(corpus.join(name), input).unwrap();
        }
        pack(&corpus, &file).unwrap();
        let packed = fs::read(&file).unwrap();
        assert_eq!(inputs(&packed).unwrap(), [&b""[..], b"xy", b"longer"]);
        assert!(inputs(&packed[..packed.len() - 1]).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
