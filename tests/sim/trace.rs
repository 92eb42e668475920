//! Traces: scripts for a [`Stage`], one step a line, that can be read, replayed and shrunk by hand. `#` begins a comment.
//!
//! ```text
//! replicas A B C                  first; nobody is connected
//! no ledger                       a world in which one replica id names several processes
//! segments s t                    A makes them, with a counter n in each; everybody has them; all at rest
//! history s t                     the same, on the engine that keeps history
//!
//! commit A c1 s.x=1 t.n+=2 s.-y   A's program commits; c1 names it. Values: numbers, true, false, null, words, counter(5)
//! commit-stale A c1 …             the same, on a claim that nobody holds: it will be refused
//! commit-in-vain A s              a commit that fails in the middle: the relay is asked for s, again if it is under way
//! create A u                      A makes a segment, and points to it from the root
//! derived u                       a segment whose id follows from its name: nobody has to make it
//! make A c1 history u.x=1         A makes it all the same, on the engine that keeps history, or on the other: `plain`
//! up A [1]       down A [1]       its messages reach the relay, the relay's reach it: all, or so many
//! sync [1]       read [1]         the disk follows, the store answers: all, or so many
//! connect A      join A           a connection opens; `join`: up to the answer of the Hello, and nothing behind that
//! cut A          link A open|closed   it breaks; it is open or closed
//! crash K        start            the relay dies, K of the appends under way survive; it begins
//! start restored MS               the same, over what is known to be a backup
//! disk-full      fold             no room for what is not synced; all that is durable is folded
//! read-one-by-one                 from here on the store gives one entry of the log at a time
//! load A s       evict A s
//! pack A s       pack A s mirrored   it is here as bytes; the program forgets what it shows of it, or keeps that
//! evict A s k1   load A s k1      what is evicted is kept as k1; whoever loads it goes on from that, if it is a beginning
//! restart A      kill A           the process is gone, without a store; `restart`: another one under its name
//! move A         clone A A2       on in another instance; a copy of the process beside it, where c1 is c1@A2
//! store A        reopen A         it stores what it is; the process ends, and another one opens that store
//! rights A yes|no                 from its next connection on
//! copy-disk      roll-back   wipe-disk      `start` comes next
//! drop-up A      drop-down A [all]   repeat-up A  what no link does
//! stranger s 2                    somebody commits so much to s that no engine takes in; the same one, when there was one
//! roll s                          the relay is asked for a new generation; `read` makes it
//! pass MS        settle           time passes; everything arrives
//! age                             40 days pass
//! wait A w flush|sync|version     or: wait A w reach V, where V is a wait that ended with a version
//!
//! show A s {"n":2,"x":1}          what A's program sees; `show A s away`: it is not here
//! pending A 2                     so many commits are not acknowledged
//! fate c1 open|saved|refused|doubt   what its author was told
//! ended w yes|no|lost|refused
//! onto-copies A 2                 so many answers to its loads went on from what was kept
//! log 4                           so many entries are durable
//! left-out 2                      so many parts of entries are left out (R12)
//! rolled 1                        so many generations were made, and are durable; `not-rolled Held`: one was not, and why
//! online A yes|no                 its Hello is answered
//! problems A 0                    so many things went wrong; more than none are forgiven by it
//! check                           everything arrives, then all invariants of a world at rest
//! ```

use coheap_core::commit::EngineKind;
use coheap_core::edit::Literal;
use coheap_core::replica::{WaitError, WaitKind};
use coheap_core::value::Value;

use crate::stage::{Change, Ended, Stage};

/// Plays a trace and panics where it is not as it says. The line that it was at is the last one printed.
#[allow(clippy::print_stdout, reason = "a test shows it when it fails")]
pub fn play(name: &str, script: &str) -> Stage {
    let mut stage: Option<Stage> = None;
    for (number, line) in (1..).zip(script.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        println!("{name}:{number}: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match (&mut stage, &words[..]) {
            (None, ["replicas", names @ ..]) => stage = Some(Stage::new(names)),
            (None, _) => panic!("{name}:{number}: a trace begins with its replicas"),
            (Some(stage), words) => {
                if let Err(error) = step(stage, words) {
                    panic!("{name}:{number}: {line}: {error}");
                }
            }
        }
    }
    stage.unwrap_or_else(|| panic!("{name} is empty"))
}

fn step(stage: &mut Stage, words: &[&str]) -> Result<(), String> {
    match words {
        ["no", "ledger"] => stage.cluster.ledger.off = true,
        ["segments", names @ ..] => stage.prepare(names, EngineKind::Yrs),
        ["history", names @ ..] => stage.prepare(names, EngineKind::Automerge),
        ["commit", name, label, changes @ ..] => {
            let changes: Result<Vec<_>, String> = changes.iter().map(|change| change_of(change)).collect();
            stage.commit(name, label, &changes?);
        }
        ["commit-stale", name, label, changes @ ..] => {
            let changes: Result<Vec<_>, String> = changes.iter().map(|change| change_of(change)).collect();
            stage.commit_stale(name, label, &changes?);
        }
        ["commit-in-vain", name, segment] => stage.commit_in_vain(name, segment),
        ["derived", segment] => stage.derived(segment),
        ["make", name, label, engine, changes @ ..] => {
            let engine = match *engine {
                "plain" => EngineKind::Yrs,
                "history" => EngineKind::Automerge,
                _ => return Err("a segment is plain, or keeps history".to_owned()),
            };
            let changes: Result<Vec<_>, String> = changes.iter().map(|change| change_of(change)).collect();
            stage.make(name, label, engine, &changes?);
        }
        ["create", name, segment] => stage.create(name, segment, EngineKind::Yrs),
        ["up", name, most @ ..] => stage.up(name, most_of(most)?),
        ["down", name, most @ ..] => stage.down(name, most_of(most)?),
        ["sync", most @ ..] => stage.sync(most_of(most)?),
        ["read", most @ ..] => stage.read(most_of(most)?),
        ["disk-full"] => stage.fill_disk(),
        ["fold"] => stage.fold(),
        ["read-one-by-one"] => stage.cluster.disk.one_by_one = true,
        ["connect", name] => stage.connect(name),
        ["join", name] => stage.join(name),
        ["cut", name] => stage.cut(name),
        ["crash", kept] => stage.crash(number(kept)?),
        ["start"] => stage.start(),
        ["start", "restored", ms] => stage.start_over_a_backup(number(ms)? as u64),
        ["load", name, segment] => stage.load(name, segment),
        ["evict", name, segment] => stage.evict(name, segment),
        ["pack", name, segment] => stage.pack(name, segment, false),
        ["pack", name, segment, "mirrored"] => stage.pack(name, segment, true),
        ["load", name, segment, copy] => stage.load_from(name, segment, copy),
        ["evict", name, segment, copy] => stage.evict_keeping(name, segment, copy),
        ["restart", name] => stage.restart(name),
        ["kill", name] => stage.kill(name),
        ["move", name] => stage.moves(name),
        ["clone", name, copy] => stage.clone_of(name, copy),
        ["rights", name, "yes"] => stage.rights(name, true),
        ["rights", name, "no"] => stage.rights(name, false),
        ["copy-disk"] => stage.copy_disk(),
        ["roll-back"] => stage.roll_back(),
        ["wipe-disk"] => stage.wipe(),
        ["drop-up", name] => stage.drop_up(name),
        ["drop-down", name] => stage.drop_down(name),
        ["drop-down", name, "all"] => stage.drop_all_down(name),
        ["stranger", segment, count] => stage.stranger(segment, number(count)?),
        ["roll", segment] => stage.roll(segment),
        ["store", name] => stage.store(name),
        ["reopen", name] => stage.reopen(name),
        ["repeat-up", name] => stage.repeat_up(name),
        ["pass", ms] => stage.pass(number(ms)? as u64),
        ["age"] => stage.age(),
        ["settle"] => stage.settle(),
        ["wait", name, label, kind @ ..] => {
            let kind = wait_kind(stage, kind)?;
            stage.wait(name, label, kind);
        }
        _ => return expect(stage, words),
    }
    Ok(())
}

/// The lines that say how it must be.
fn expect(stage: &mut Stage, words: &[&str]) -> Result<(), String> {
    match words {
        ["show", name, segment, "away"] => same(&stage.shows(name, segment), &None),
        ["show", name, segment, value @ ..] => same(&stage.shows(name, segment), &Some(value.concat())),
        ["pending", name, count] => same(&stage.pending(name), &number(count)?),
        ["fate", label, fate] => same(&stage.fate(label), fate),
        ["ended", label, how] => {
            let ended = match stage.ended(label) {
                Ended::Waiting => "no",
                Ended::Done(_) => "yes",
                Ended::Failed(WaitError::VersionLost) => "lost",
                Ended::Failed(_) => "refused",
            };
            same(&ended, how)
        }
        ["onto-copies", name, count] => same(&stage.onto_copies(name), &number(count)?),
        ["log", count] => same(&stage.cluster.disk.len(), &number(count)?),
        ["left-out", count] => same(&stage.cluster.left_out, &number(count)?),
        ["rolled", count] => same(&stage.cluster.rolled, &number(count)?),
        ["not-rolled", why] => same(&stage.cluster.not_rolled.keys().map(String::as_str).collect(), &vec![*why]),
        ["link", name, how] => {
            let is_open = stage.cluster.nodes[stage.at(name)].conn.is_some();
            same(&if is_open { "open" } else { "closed" }, how)
        }
        ["online", name, how] => {
            let is_online = stage.cluster.nodes[stage.at(name)].online;
            same(&if is_online { "yes" } else { "no" }, how)
        }
        ["problems", name, count] => {
            let at = stage.at(name);
            let problems = std::mem::take(&mut stage.cluster.nodes[at].problems);
            same(&problems.len(), &number(count)?).map_err(|error| format!("{error}: {problems:?}"))
        }
        ["check"] => {
            stage.settle();
            stage.cluster.check();
            Ok(())
        }
        _ => Err("no step has this form".to_owned()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(is: &T, must: &T) -> Result<(), String> {
    if is == must { Ok(()) } else { Err(format!("it is {is:?}")) }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn most_of(words: &[&str]) -> Result<usize, String> {
    match words {
        [] => Ok(usize::MAX),
        [most] => number(most),
        _ => Err("too many words".to_owned()),
    }
}

fn wait_kind(stage: &Stage, words: &[&str]) -> Result<WaitKind, String> {
    match words {
        ["flush"] => Ok(WaitKind::Flush),
        ["sync"] => Ok(WaitKind::Sync),
        ["version"] => Ok(WaitKind::Version),
        ["reach", label] => match stage.ended(label) {
            Ended::Done(version) => Ok(WaitKind::Reach(version)),
            other => Err(format!("{label} has no version: {other:?}")),
        },
        _ => Err("a wait is flush, sync, version or reach".to_owned()),
    }
}

fn change_of(text: &str) -> Result<(String, Change), String> {
    let (segment, rest) = text.split_once('.').ok_or_else(|| format!("{text} names no segment"))?;
    let change = if let Some(key) = rest.strip_prefix('-') {
        Change::Delete(key.to_owned())
    } else if let Some((path, by)) = rest.split_once("+=") {
        Change::Add(path.to_owned(), by.parse().map_err(|_| format!("{by} is no number"))?)
    } else if let Some((key, value)) = rest.split_once('=') {
        Change::Set(key.to_owned(), literal(value)?)
    } else {
        return Err(format!("{text} changes nothing"));
    };
    Ok((segment.to_owned(), change))
}

fn literal(text: &str) -> Result<Literal, String> {
    if let Some(base) = text.strip_prefix("counter(").and_then(|rest| rest.strip_suffix(')')) {
        return Ok(Literal::Counter(base.parse().map_err(|_| format!("{base} is no number"))?));
    }
    Ok(Literal::Scalar(match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        _ => text.parse().map_or_else(|_| Value::Str(text.to_owned()), Value::Number),
    }))
}
