//! The command line, parsed into a value that cannot be wrong.

/// Shown by `help` and after every mistake.
pub(crate) const USAGE: &str = "\
usage: cargo xtask COMMAND

  build                        wasm module, npm package (target/npm/coheap.tgz) and release relay
  demo [--workers N] [--no-faults]
                               build, then run the demo
  test                         build, then every test that CI runs
  bench [NAME]                 build, then one benchmark or all of them
  soak --seeds N [--from S]    simulate N seeds, from seed S (default 0) on
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
    let (mut seeds, mut from) = (None, None);
    while let Some(flag) = args.next() {
        let slot = match flag.as_str() {
            "--seeds" => &mut seeds,
            "--from" => &mut from,
            unknown => return Err(format!("`soak` does not take `{unknown}`")),
        };
        let text = args.next().ok_or_else(|| format!("`{flag}` needs a number"))?;
        *slot = Some(text.parse::<u64>().map_err(|_| format!("`{flag}` needs a number, not `{text}`"))?);
    }
    match seeds {
        None => Err("`soak` needs `--seeds N`".to_owned()),
        Some(0) => Err("`--seeds 0` would simulate nothing".to_owned()),
        Some(seeds) => Ok(Command::Soak { seeds, from: from.unwrap_or(0) }),
    }
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
        check("soak", Err("`soak` needs `--seeds N`"));
        check("soak --seeds", Err("`--seeds` needs a number"));
        check("soak --seeds many", Err("`--seeds` needs a number, not `many`"));
        check("soak --seeds 0", Err("`--seeds 0` would simulate nothing"));
        check("soak --seed 4", Err("`soak` does not take `--seed`"));
    }
}
