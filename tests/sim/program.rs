//! Random programs. A program is a list of [`Turn`]s full of bare numbers, which [`run`] takes modulo what is there: so every
//! list is a program, and a failing one can be shortened by leaving steps out.

use std::collections::BTreeMap;

use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{ObjectId, SegmentId};
use coheap_core::segment::write::Draw;
use coheap_core::value::{Kind, Ref, Value};

use crate::Draws;
use crate::mirror::{Mirror, Node};
use crate::world::World;

/// One step of a program.
#[derive(Clone, Debug)]
pub enum Turn {
    /// A replica makes a commit.
    Edit(u8, Vec<Act>),
    /// A replica sends this many commits.
    Send(u8, u8),
    /// A replica receives this many entries, `batch` in one application, `again` of the last ones once more.
    Receive {
        /// Who.
        peer: u8,
        /// How many.
        count: u8,
        /// At a time.
        batch: u8,
        /// Duplicates.
        again: u8,
    },
    /// A replica gets the log's newest state under its handles and redoes what it has not sent.
    Reload(u8, bool),
    /// A replica's process ends; the next one has only the log's state and the unsent edits.
    Restart(u8, bool),
    /// The live segment shows all it holds.
    Dump(u8),
}

impl Turn {
    /// A step of chance: edits mostly, and of those all kinds alike.
    pub fn draw(draws: &mut Draws) -> Turn {
        let peer = draws.draw() as u8;
        match draws.below(20) {
            0..=9 => Turn::Edit(peer, (0..1 + draws.below(4)).map(|_| Act::draw(draws)).collect()),
            10..=14 => Turn::Send(peer, draws.draw() as u8),
            15..=18 => {
                let [count, batch, again] = [draws.draw() as u8, draws.draw() as u8, draws.draw() as u8];
                Turn::Receive { peer, count, batch, again }
            }
            _ => match draws.below(5) {
                0 | 1 => Turn::Reload(peer, draws.below(2) == 0),
                2 | 3 => Turn::Restart(peer, draws.below(2) == 0),
                _ => Turn::Dump(peer),
            },
        }
    }
}

impl Act {
    fn draw(draws: &mut Draws) -> Act {
        let op = OPS[draws.below(OPS.len())];
        let [target, a, b] = [draws.draw() as u16, draws.draw() as u16, draws.draw() as u16];
        Act { op, target, a, b, value: Seed::draw(draws, 0) }
    }
}

impl Seed {
    fn draw(draws: &mut Draws, depth: usize) -> Seed {
        match draws.below(if depth < 3 { 14 } else { 8 }) {
            8 => Seed::Text(draws.draw() as u16),
            9 => Seed::Counter(draws.draw() as i8),
            10 => Seed::Set((0..draws.below(4)).map(|_| draws.draw() as u8).collect()),
            11 | 12 => {
                Seed::Map((0..draws.below(4)).map(|_| (draws.draw() as u8, Seed::draw(draws, depth + 1))).collect())
            }
            13 => Seed::List((0..draws.below(4)).map(|_| Seed::draw(draws, depth + 1)).collect()),
            _ => Seed::Scalar(draws.draw() as u16),
        }
    }
}

/// What a wish does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the wishes")]
pub enum Op {
    Set,
    Ensure,
    Delete,
    Insert,
    Push,
    Remove,
    Put,
    Move,
    Splice,
    Add,
    Include,
    Exclude,
    Default,
    Mark,
    Near,
}

/// All of them.
pub const OPS: &[Op] = &[
    Op::Set,
    Op::Ensure,
    Op::Delete,
    Op::Insert,
    Op::Push,
    Op::Remove,
    Op::Put,
    Op::Move,
    Op::Splice,
    Op::Add,
    Op::Include,
    Op::Exclude,
    Op::Default,
    Op::Mark,
    Op::Near,
];

/// A wish in bare numbers.
#[derive(Clone, Debug)]
pub struct Act {
    /// What it does.
    pub op: Op,
    /// To which of the objects it can be done to.
    pub target: u16,
    /// Where in it.
    pub a: u16,
    /// How much, or where to.
    pub b: u16,
    /// With what.
    pub value: Seed,
}

/// A value in bare numbers.
#[derive(Clone, Debug)]
pub enum Seed {
    /// One of the scalars.
    Scalar(u16),
    /// Entries.
    Map(Vec<(u8, Seed)>),
    /// Elements.
    List(Vec<Seed>),
    /// Characters.
    Text(u16),
    /// A base.
    Counter(i8),
    /// Members.
    Set(Vec<u8>),
}

const KEYS: &[&str] =
    &["a", "b", "c", "10", "2", "__proto__", "", "~1~a", "é.=!", "😀", "AAAAAAAAAAAAAAAAAAAAAA.a", "constructor"];
const RUNS: &[&str] = &["x", "yz", "hello", "", "😀", "é", "a😀b", "\u{fffd}", "漢字"];

fn key(n: usize) -> String {
    KEYS[n % KEYS.len()].to_owned()
}

fn run_of(n: usize) -> String {
    RUNS[n % RUNS.len()].to_owned()
}

fn member(n: usize) -> Value {
    match n % 9 {
        0 => Value::Number(0.0),
        1 => Value::Number(-0.0),
        2 => Value::Number(2.5),
        3 => Value::Number(f64::NAN),
        4 => Value::Bool(true),
        5 => Value::Bool(false),
        n => Value::Str(key(n)),
    }
}

fn scalar(n: u16) -> Value {
    let m = f64::from(n);
    match n % 16 {
        0 => Value::Null,
        1 => Value::Bool(m > 100.0),
        2 => Value::Number(-0.0),
        3 => Value::Number(f64::NAN),
        4 => Value::Number(f64::NEG_INFINITY),
        5 => Value::Number(m / 8.0 + 0.1),
        6 => Value::Number(m * 1e12),
        7 => Value::BigInt(i64::from(n) - 7),
        8 => Value::BigInt(i64::MIN + i64::from(n)),
        9 => Value::Date(m * 1000.0),
        10 => Value::Bytes(n.to_le_bytes().to_vec()),
        11 => Value::Ref(Ref { segment: SegmentId([n as u8; 16]), object: ObjectId([9; 16]) }),
        12 => Value::Str(run_of(n as usize)),
        _ => Value::Number(m),
    }
}

/// The literal of a seed; `initial`: one that may stand in a default.
pub fn literal(seed: &Seed, initial: bool) -> Literal {
    match seed {
        Seed::Scalar(n) => Literal::Scalar(scalar(*n)),
        Seed::Map(entries) => {
            let entries: BTreeMap<String, Literal> =
                entries.iter().map(|(n, value)| (key(*n as usize), literal(value, initial))).collect();
            Literal::Map(entries.into_iter().collect())
        }
        Seed::List(values) => Literal::List(values.iter().map(|value| literal(value, initial)).collect()),
        Seed::Text(n) => Literal::Text(if initial { String::new() } else { run_of(*n as usize) }),
        Seed::Counter(base) => Literal::Counter(f64::from(*base)),
        Seed::Set(members) => {
            let members: BTreeMap<String, Value> = members
                .iter()
                .map(|n| member(*n as usize))
                .filter_map(|m| coheap_core::segment::layout::member_code(&m).map(|code| (code, m)))
                .collect();
            Literal::Set(members.into_values().collect())
        }
    }
}

fn of_kind(mirror: &Mirror, kind: Kind, n: u16) -> Option<Handle> {
    let all: Vec<Handle> = mirror.reachable().into_iter().filter(|h| mirror.node(*h).kind() == kind).collect();
    if all.is_empty() { None } else { Some(all[n as usize % all.len()]) }
}

/// The wish that an act comes to in what a program sees now. What needs an object that is not there makes one first.
pub fn wish_of(mirror: &Mirror, act: &Act) -> (Op, Wish) {
    let (a, b) = (act.a as usize, act.b as usize);
    let make = |kind: Kind| {
        let value = match kind {
            Kind::Map => Literal::Map(Vec::new()),
            Kind::List => Literal::List(vec![Literal::Scalar(scalar(act.b)), Literal::Map(Vec::new())]),
            Kind::Text => Literal::Text("text".to_owned()),
            Kind::Counter => Literal::Counter(0.0),
            Kind::Set => Literal::Set(vec![member(b)]),
        };
        let object = of_kind(mirror, Kind::Map, act.target).unwrap_or_default();
        (Op::Set, Wish::Set { object, key: key(a), value })
    };
    let kind = match act.op {
        Op::Set | Op::Ensure | Op::Delete | Op::Default | Op::Mark | Op::Near => Kind::Map,
        Op::Insert | Op::Push | Op::Remove | Op::Put | Op::Move => Kind::List,
        Op::Splice => Kind::Text,
        Op::Add => Kind::Counter,
        Op::Include | Op::Exclude => Kind::Set,
    };
    let Some(object) = of_kind(mirror, kind, act.target) else { return make(kind) };
    let wish = match (act.op, mirror.node(object)) {
        (Op::Set, _) => Wish::Set { object, key: key(a), value: literal(&act.value, false) },
        (Op::Ensure, Node::Map(entries)) => {
            let free = (0..KEYS.len()).map(|n| key(a + n)).find(|key| !entries.contains_key(key));
            Wish::Set { object, key: free.unwrap_or_else(|| key(a)), value: literal(&act.value, false) }
        }
        (Op::Delete, Node::Map(entries)) => {
            let Some(key) = entries.keys().nth(a % entries.len().max(1)) else { return make(Kind::List) };
            Wish::Delete { object, key: key.clone() }
        }
        (Op::Default, Node::Map(entries)) => {
            let free = (0..KEYS.len()).map(|n| key(a + n)).find(|key| !entries.contains_key(key));
            let Some(key) = free else { return make(Kind::Counter) };
            Wish::Default { object, key, value: literal(&act.value, true) }
        }
        (Op::Insert, Node::List(values)) => {
            let values_in = (0..1 + b % 3).map(|_| literal(&act.value, false)).collect();
            Wish::Insert { object, index: (a % (values.len() + 1)) as u32, values: values_in }
        }
        (Op::Push, Node::List(values)) => {
            Wish::Insert { object, index: values.len() as u32, values: vec![literal(&act.value, false)] }
        }
        (Op::Remove, Node::List(values)) if !values.is_empty() => {
            let index = a % values.len();
            Wish::Remove { object, index: index as u32, count: (1 + b % 3).min(values.len() - index) as u32 }
        }
        (Op::Put, Node::List(values)) if !values.is_empty() => {
            Wish::Put { object, index: (a % values.len()) as u32, value: literal(&act.value, false) }
        }
        (Op::Move, Node::List(values)) if !values.is_empty() => {
            let (from, to) = ((a % values.len()) as u32, (b % values.len()) as u32);
            Wish::Move { object, from, to }
        }
        (Op::Remove | Op::Put | Op::Move, _) => {
            let values = (0..4).map(|n| Literal::Scalar(scalar(act.b.wrapping_add(n)))).collect();
            return (Op::Insert, Wish::Insert { object, index: 0, values });
        }
        (Op::Splice, Node::Text(units)) => {
            let index = boundary(units, a % (units.len() + 1));
            let end = boundary(units, (index + b % 4).min(units.len()));
            let inserted = run_of(act.target as usize / 3);
            Wish::Splice { object, index: index as u32, removed: (end - index) as u32, inserted }
        }
        (Op::Add, _) => Wish::Add { object, by: (f64::from(act.a) - 20.0) / if b % 4 == 0 { 10.0 } else { 1.0 } },
        (Op::Include, _) => Wish::Include { object, member: member(a) },
        (Op::Exclude, Node::Set(members)) => {
            let Some(member) = members.values().nth(a % members.len().max(1)) else {
                return (Op::Include, Wish::Include { object, member: member(a) });
            };
            Wish::Exclude { object, member: member.clone() }
        }
        // Whoever runs the program draws its id.
        (Op::Near, _) => match literal(&act.value, false) {
            Literal::Scalar(value) => {
                Wish::Near { object: ObjectId::default(), value: Literal::List(vec![Literal::Scalar(value)]) }
            }
            value => Wish::Near { object: ObjectId::default(), value },
        },
        _ => Wish::Mark { group: key(a), run: run_of(b) },
    };
    (act.op, wish)
}

/// The start of the character that a cut falls into (S10).
fn boundary(units: &[u16], index: usize) -> usize {
    if index > 0 && index < units.len() && (0xdc00..0xe000).contains(&units[index]) { index - 1 } else { index }
}

/// What programs were made of.
#[derive(Clone, Default, Debug)]
pub struct Statistics {
    /// Commits.
    pub commits: usize,
    /// Commits made while another replica had commits that this one had not seen.
    pub concurrent: usize,
    /// Wishes by kind.
    pub ops: BTreeMap<Op, usize>,
    /// Values in final documents, one number a program.
    pub values: Vec<usize>,
    /// Reloads and restarts with something to redo.
    pub redone: usize,
    /// Entries of all logs.
    pub entries: usize,
}

/// Runs a program in a world of `count` replicas. At the end all have met and agree; the world is given back.
pub fn run(world: &mut World, steps: &[Turn], statistics: &mut Statistics) {
    walk(world, steps, statistics);
    let value = world.meet();
    statistics.values.push(value.values());
    statistics.entries += world.log.len();
}

/// Runs a program as far as it goes.
pub fn walk(world: &mut World, steps: &[Turn], statistics: &mut Statistics) {
    let count = world.peers.len();
    for step in steps {
        match step {
            Turn::Edit(peer, acts) => {
                let peer = *peer as usize % count;
                let concurrent = (0..count).any(|other| other != peer && !world.peers[other].unsent.is_empty())
                    || world.log[world.seen[peer]..].iter().any(|entry| entry.author != peer);
                // `initial` is a commit of its own: whether its defaults are wanted is known after it.
                for acts in acts.chunk_by(|a, b| (a.op == Op::Default) == (b.op == Op::Default)) {
                    let mut wishes = Vec::new();
                    let mut seen = world.peers[peer].mirror.clone();
                    for act in acts {
                        let (op, mut wish) = wish_of(&seen, act);
                        if let Wish::Near { object, .. } = &mut wish {
                            *object = world.peers[peer].draws.object();
                        }
                        seen.wish(&wish);
                        *statistics.ops.entry(op).or_default() += 1;
                        wishes.push(wish);
                    }
                    world.peers[peer].edit(wishes);
                    statistics.commits += 1;
                    statistics.concurrent += usize::from(concurrent);
                }
            }
            Turn::Send(peer, n) => world.send(*peer as usize % count, 1 + *n as usize % 4),
            Turn::Receive { peer, count: n, batch, again } => {
                world.receive(
                    *peer as usize % count,
                    1 + *n as usize % 8,
                    1 + *batch as usize % 4,
                    *again as usize % 3,
                );
            }
            Turn::Reload(peer, folded) => {
                let peer = *peer as usize % count;
                statistics.redone += usize::from(!world.peers[peer].unsent.is_empty());
                world.reload(peer, *folded);
            }
            Turn::Restart(peer, folded) => {
                let peer = *peer as usize % count;
                statistics.redone += usize::from(!world.peers[peer].unsent.is_empty());
                world.restart(peer, *folded);
            }
            Turn::Dump(peer) => world.peers[*peer as usize % count].dump(),
        }
    }
}
