//! The command line, parsed into a value that cannot be wrong.

use crate::fuzz::TARGETS;

/// Shown by `help` and after every mistake.
pub(crate) const USAGE: &str = "\
usage: cargo xtask COMMAND

  build                        wasm module, npm package (target/npm/coheap.tgz) and release relay
  demo [--workers N] [--no-faults]
                               build, then run the demo
  test                         build, then every test that CI runs
  bench [NAME]                 build, then one benchmark or all of them
  soak --seeds N [--from S]    simulate N seeds, from seed S (default 0) on
  soak --guard N [--from S]    make N valid updates; the guard must let all of them pass
  fuzz [TARGET] [--seconds N] [--keep]
                               fuzz one target or all of them, N seconds each (default 30);
                               --keep: minimise and pack the corpus afterwards
  help                         this text

COHEAP_SKIP_BUILD=1 leaves out the build and trusts what is there.";

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Build,
    Demo { flags: Vec<String> },
    Test,
    Bench { name: Option<String> },
    Soak { seeds: u64, from: u64 },
    SoakGuard { updates: u64, from: u64 },
    Fuzz { target: Option<String>, seconds: u64, keep: bool },
    Help,
}

/// Reads the arguments after the program's name. The error is one line, meant for the user.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let name = args.next().ok_or("no command given")?;
    let command = match name.as_str() {
        "build" => Command::Build,
        "demo" => parse_demo(&mut args)?,
        "test" => Command::Test,
        "bench" => parse_bench(&mut args)?,
        "soak" => parse_soak(&mut args)?,
        "fuzz" => parse_fuzz(&mut args)?,
        "help" | "--help" | "-h" => Command::Help,
        unknown => return Err(format!("unknown command `{unknown}`")),
    };
    match args.next() {
        None => Ok(command),
        Some(extra) => Err(format!("`{name}` does not take `{extra}`")),
    }
}

fn parse_demo(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let mut flags = Vec::new();
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--no-faults" => flags.push(flag),
            "--workers" => {
                let text = args.next().ok_or("`--workers` needs a number")?;
                text.parse::<u8>().map_err(|_| format!("`--workers` needs a number, not `{text}`"))?;
                flags.extend([flag, text]);
            }
            unknown => return Err(format!("`demo` does not take `{unknown}`")),
        }
    }
    Ok(Command::Demo { flags })
}

fn parse_bench(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    match args.next() {
        Some(flag) if flag.starts_with('-') => Err(format!("`bench` does not take `{flag}`")),
        name => Ok(Command::Bench { name }),
    }
}

fn parse_soak(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut seeds, mut guard, mut from) = (None, None, None);
    while let Some(flag) = args.next() {
        let slot = match flag.as_str() {
            "--seeds" => &mut seeds,
            "--guard" => &mut guard,
            "--from" => &mut from,
            unknown => return Err(format!("`soak` does not take `{unknown}`")),
        };
        let text = args.next().ok_or_else(|| format!("`{flag}` needs a number"))?;
        *slot = Some(text.parse::<u64>().map_err(|_| format!("`{flag}` needs a number, not `{text}`"))?);
    }
    let from = from.unwrap_or(0);
    match (seeds, guard) {
        (None, None) => Err("`soak` needs `--seeds N` or `--guard N`".to_owned()),
        (Some(_), Some(_)) => Err("`soak` takes one of `--seeds` and `--guard`".to_owned()),
        (Some(0), None) => Err("`--seeds 0` would simulate nothing".to_owned()),
        (None, Some(0)) => Err("`--guard 0` would make nothing".to_owned()),
        (Some(seeds), None) => Ok(Command::Soak { seeds, from }),
        (None, Some(updates)) => Ok(Command::SoakGuard { updates, from }),
    }
}

fn parse_fuzz(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut target, mut seconds, mut keep) = (None, 30, false);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--keep" => keep = true,
            "--seconds" => {
                let text = args.next().ok_or("`--seconds` needs a number")?;
                let number = text.parse::<u64>().ok().filter(|number| *number > 0);
                seconds = number.ok_or_else(|| format!("`--seconds` needs a number above 0, not `{text}`"))?;
            }
            name if target.is_none() && TARGETS.contains(&name) => target = Some(word),
            unknown => return Err(format!("`fuzz` does not take `{unknown}`; targets: {}", TARGETS.join(", "))),
        }
    }
    Ok(Command::Fuzz { target, seconds, keep })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Command, &str>) {
        let parsed = parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(parsed, expected.map_err(str::to_owned), "{line}");
    }

    #[test]
    fn every_command_is_understood() {
        check("build", Ok(Command::Build));
        check("demo", Ok(Command::Demo { flags: Vec::new() }));
        let flags = vec!["--workers".to_owned(), "5".to_owned(), "--no-faults".to_owned()];
        check("demo --workers 5 --no-faults", Ok(Command::Demo { flags }));
        check("test", Ok(Command::Test));
        check("bench", Ok(Command::Bench { name: None }));
        check("bench load", Ok(Command::Bench { name: Some("load".to_owned()) }));
        check("soak --seeds 9", Ok(Command::Soak { seeds: 9, from: 0 }));
        check("soak --from 5 --seeds 9", Ok(Command::Soak { seeds: 9, from: 5 }));
        check("soak --guard 9", Ok(Command::SoakGuard { updates: 9, from: 0 }));
        check("fuzz", Ok(Command::Fuzz { target: None, seconds: 30, keep: false }));
        let target = Some("frames".to_owned());
        check("fuzz frames --seconds 5 --keep", Ok(Command::Fuzz { target, seconds: 5, keep: true }));
        check("--help", Ok(Command::Help));
    }

    #[test]
    fn every_mistake_is_named() {
        check("", Err("no command given"));
        check("biuld", Err("unknown command `biuld`"));
        check("build --fast", Err("`build` does not take `--fast`"));
        check("demo --fast", Err("`demo` does not take `--fast`"));
        check("demo --workers x", Err("`--workers` needs a number, not `x`"));
        check("bench --fast", Err("`bench` does not take `--fast`"));
        check("bench one two", Err("`bench` does not take `two`"));
        check("soak", Err("`soak` needs `--seeds N` or `--guard N`"));
        check("soak --guard 1 --seeds 1", Err("`soak` takes one of `--seeds` and `--guard`"));
        check("soak --guard 0", Err("`--guard 0` would make nothing"));
        let targets = TARGETS.join(", ");
        check("fuzz nothing", Err(&format!("`fuzz` does not take `nothing`; targets: {targets}")));
        check("fuzz --seconds 0", Err("`--seconds` needs a number above 0, not `0`"));
        check("soak --seeds", Err("`--seeds` needs a number"));
        check("soak --seeds many", Err("`--seeds` needs a number, not `many`"));
        check("soak --seeds 0", Err("`--seeds 0` would simulate nothing"));
        check("soak --seed 4", Err("`soak` does not take `--seed`"));
    }
}
