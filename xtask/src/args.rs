//! The command line, parsed into a value that cannot be wrong.

use crate::fuzz::TARGETS;

/// Shown by `help` and after every mistake.
pub(crate) const USAGE: &str = "\
usage: cargo xtask COMMAND

  build                        wasm module, npm package (target/npm/coheap.tgz) and release relay
  demo [--workers N] [--no-faults]
                               build, then run the demo
  test                         build, then every test that CI runs
  bench [NAME [--only ROW] [--runs N]]
                               build, then one benchmark or all of them; ROW: one of its rows, N: runs of each (default 5)
  soak --seeds N [--from S] [--seconds T] [--world schedules|deep] [--with rolls,losses,...]
                               simulate N seeds, from seed S (default 0) on; --with: what every deep world has
  soak --seed N [--trace]      simulate one schedule; one that fails is shortened
  soak --world small           play all of the small worlds
  soak --guard N [--from S]    make N valid updates; the guard must let all of them pass
  fuzz [TARGET] [--seconds N] [--seed S] [--keep]
                               fuzz one target or all of them, N seconds each (default 30); the same seed tries the same
                               inputs in the same order (default: another one each time); --keep: minimise and pack
                               the corpus afterwards
  mutate [NAME..] [--seeds N]  break every rule that can be broken by name, or these, and see that the simulation notices
                               within N schedules (default 2000)
  help                         this text

COHEAP_SKIP_BUILD=1 leaves out the build and trusts what is there.";

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Build,
    Demo { flags: Vec<String> },
    Test,
    Bench { name: Option<String>, flags: Vec<String> },
    Soak { flags: Vec<String> },
    Fuzz { target: Option<String>, seconds: u64, seed: Option<u32>, keep: bool },
    Mutate { flags: Vec<String> },
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
        "mutate" => parse_mutate(&mut args)?,
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
    let name = match args.next() {
        Some(flag) if flag.starts_with('-') => return Err(format!("`bench` does not take `{flag}`")),
        name => name,
    };
    let mut flags = Vec::new();
    while let Some(flag) = args.next() {
        let value = match flag.as_str() {
            "--only" => args.next().ok_or("`--only` needs the name of a row")?,
            "--runs" => {
                let text = args.next().ok_or("`--runs` needs a number")?;
                let number = text.parse::<u32>().ok().filter(|number| *number > 0);
                number.ok_or_else(|| format!("`--runs` needs a number above 0, not `{text}`"))?;
                text
            }
            unknown => return Err(format!("`bench` does not take `{unknown}`")),
        };
        flags.extend([flag, value]);
    }
    Ok(Command::Bench { name, flags })
}

fn parse_soak(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let mut flags = Vec::new();
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--trace" => flags.push(flag),
            "--world" => match args.next().as_deref() {
                Some(world @ ("schedules" | "deep" | "small")) => flags.extend([flag, world.to_owned()]),
                _ => return Err("`--world` is `schedules`, `deep` or `small`".to_owned()),
            },
            "--with" => {
                let names = args.next().filter(|names| !names.starts_with('-'));
                flags.extend([flag, names.ok_or("`--with` needs names: rights, shares, copies, rolls, losses, harm")?]);
            }
            "--seeds" | "--seed" | "--guard" | "--from" | "--seconds" => {
                let text = args.next().ok_or_else(|| format!("`{flag}` needs a number"))?;
                let number = text.parse::<u64>().map_err(|_| format!("`{flag}` needs a number, not `{text}`"))?;
                if flag != "--from" && flag != "--seed" && number == 0 {
                    return Err(format!("`{flag} 0` would do nothing"));
                }
                flags.extend([flag, text]);
            }
            unknown => return Err(format!("`soak` does not take `{unknown}`")),
        }
    }
    let has = |name: &&str| flags.iter().any(|flag| flag == name);
    match ["--seeds", "--seed", "--guard", "small"].iter().filter(|name| has(name)).count() {
        1 => Ok(Command::Soak { flags }),
        _ => Err("`soak` needs `--seeds N`, `--seed N`, `--guard N` or `--world small`".to_owned()),
    }
}

fn parse_fuzz(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut target, mut seconds, mut seed, mut keep) = (None, 30, None, false);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--keep" => keep = true,
            "--seconds" => {
                let text = args.next().ok_or("`--seconds` needs a number")?;
                let number = text.parse::<u64>().ok().filter(|number| *number > 0);
                seconds = number.ok_or_else(|| format!("`--seconds` needs a number above 0, not `{text}`"))?;
            }
            "--seed" => {
                let text = args.next().ok_or("`--seed` needs a number")?;
                // To the engine of the fuzzer, 0 is no seed.
                let number = text.parse::<u32>().ok().filter(|number| *number > 0);
                seed = Some(
                    number.ok_or_else(|| format!("`--seed` needs a number from 1 to {}, not `{text}`", u32::MAX))?,
                );
            }
            name if target.is_none() && TARGETS.contains(&name) => target = Some(word),
            unknown => return Err(format!("`fuzz` does not take `{unknown}`; targets: {}", TARGETS.join(", "))),
        }
    }
    Ok(Command::Fuzz { target, seconds, seed, keep })
}

fn parse_mutate(args: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let mut flags = Vec::new();
    while let Some(flag) = args.next() {
        if flag == "--seeds" {
            let text = args.next().ok_or("`--seeds` needs a number")?;
            text.parse::<u64>().map_err(|_| format!("`--seeds` needs a number, not `{text}`"))?;
            flags.extend([flag, text]);
        } else if flag.starts_with('-') {
            return Err(format!("`mutate` does not take `{flag}`"));
        } else {
            flags.push(flag);
        }
    }
    Ok(Command::Mutate { flags })
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
        check("bench", Ok(Command::Bench { name: None, flags: Vec::new() }));
        check("bench load", Ok(Command::Bench { name: Some("load".to_owned()), flags: Vec::new() }));
        let flags = ["--only", "scan", "--runs", "3"].map(str::to_owned).to_vec();
        check("bench residence --only scan --runs 3", Ok(Command::Bench { name: Some("residence".to_owned()), flags }));
        let soak = |line: &str| {
            let flags = line.split_whitespace().skip(1).map(str::to_owned).collect();
            check(line, Ok(Command::Soak { flags }));
        };
        soak("soak --seeds 9");
        soak("soak --from 5 --seeds 9");
        soak("soak --seeds 9 --seconds 60");
        soak("soak --seeds 9 --world deep");
        soak("soak --seeds 9 --world deep --with rolls,losses");
        soak("soak --seed 9 --trace");
        soak("soak --guard 9");
        soak("soak --world small");
        check("fuzz", Ok(Command::Fuzz { target: None, seconds: 30, seed: None, keep: false }));
        let target = Some("frames".to_owned());
        check(
            "fuzz frames --seconds 5 --seed 7 --keep",
            Ok(Command::Fuzz { target, seconds: 5, seed: Some(7), keep: true }),
        );
        check("mutate", Ok(Command::Mutate { flags: Vec::new() }));
        let flags = ["NoSync", "--seeds", "9"].map(str::to_owned).to_vec();
        check("mutate NoSync --seeds 9", Ok(Command::Mutate { flags }));
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
        check("bench one --only", Err("`--only` needs the name of a row"));
        check("bench one --runs 0", Err("`--runs` needs a number above 0, not `0`"));
        check("soak", Err("`soak` needs `--seeds N`, `--seed N`, `--guard N` or `--world small`"));
        check("soak --seeds 2 --seed 3", Err("`soak` needs `--seeds N`, `--seed N`, `--guard N` or `--world small`"));
        check("soak --seeds 2 --world flat", Err("`--world` is `schedules`, `deep` or `small`"));
        check(
            "soak --seeds 2 --with --trace",
            Err("`--with` needs names: rights, shares, copies, rolls, losses, harm"),
        );
        check("soak --guard 1 --seeds 1", Err("`soak` needs `--seeds N`, `--seed N`, `--guard N` or `--world small`"));
        check("soak --guard 0", Err("`--guard 0` would do nothing"));
        let targets = TARGETS.join(", ");
        check("fuzz nothing", Err(&format!("`fuzz` does not take `nothing`; targets: {targets}")));
        check("fuzz --seconds 0", Err("`--seconds` needs a number above 0, not `0`"));
        check("soak --seeds", Err("`--seeds` needs a number"));
        check("soak --seeds many", Err("`--seeds` needs a number, not `many`"));
        check("soak --seeds 0", Err("`--seeds 0` would do nothing"));
        check("soak --sees 4", Err("`soak` does not take `--sees`"));
        check("mutate --sees 4", Err("`mutate` does not take `--sees`"));
        check("mutate --seeds x", Err("`--seeds` needs a number, not `x`"));
    }
}
