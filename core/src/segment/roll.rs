//! A fresh document with equal visible values, for a new generation of a segment (CORE-PROTOCOL G1, G2): what was overwritten,
//! removed or detached stays behind. Made and proved in the relay's worker process, by two processes, as a fold is.
//!
//! Registers go over as they are, so every object keeps its id, every key its ended lives, and a creation that is redone meets
//! what it met before. Only the sums of a counter become one: none of those writers goes on in the new document. Objects that
//! nothing shows do not go over. Lists and texts are not rolled: an edit of one that is under way is anchored to slots or
//! places that a fresh document would not have (G2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::engine::{Engine, EngineError, Raw};
use super::merge::guarded;
use super::{Segment, blank, layout, seal_snapshot};
use crate::commit::EngineKind;
use crate::edit::{Handle, Patch, Shown};
use crate::guard::{self, Clocks};
use crate::id::{GenId, ObjectId, SegmentId};
use crate::limits;
use crate::value::{Kind, Value};

/// Why a segment is not rolled (G2): what is asked for it says so, and nothing is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrollable {
    /// It shows a list or a text.
    Sequences,
    /// Its engine keeps history.
    History,
}

/// One object's registers: sign, the rest of the name, the whole name.
type Registers = BTreeMap<ObjectId, Vec<(char, String, String)>>;

/// A new generation's document, sealed, from a stored snapshot and the deltas behind it. [`check_roll`] proves it.
pub fn roll_unchecked(
    kind: EngineKind,
    id: SegmentId,
    snapshot: &[u8],
    deltas: &[Bytes],
    generation: GenId,
) -> Result<Result<Bytes, Unrollable>, EngineError> {
    if kind != EngineKind::Yrs {
        return Ok(Err(Unrollable::History));
    }
    let old = Segment::decode(id, kind, kind.generation_zero(), 0, snapshot, deltas)?;
    let registers = match what_goes_over(id, old.engine.as_ref(), &layout::short(generation.writer())) {
        Ok(registers) => registers,
        Err(why) => return Ok(Err(why)),
    };
    let mut fresh = blank(kind, generation.writer())?;
    let mut rest = registers.into_iter();
    // In transactions of a bounded size: engines take long over long ones.
    loop {
        let some: Vec<_> = rest.by_ref().take(limits::EDITS_PER_TRANSACTION_MAX).collect();
        if some.is_empty() {
            break;
        }
        fresh.transact(&mut |tx| {
            for (name, raw) in &some {
                tx.put(name, raw.clone());
            }
        })?;
    }
    Ok(Ok(seal_snapshot(&fresh.encode()).into()))
}

/// Whether a document is the next generation of what is stored: replays that once more and reads both by all that they show.
/// The clock table of the new generation: its one writer is the relay's.
pub fn check_roll(
    kind: EngineKind,
    id: SegmentId,
    snapshot: &[u8],
    deltas: &[Bytes],
    generation: GenId,
    rolled: &[u8],
) -> Result<Clocks, EngineError> {
    let differs = |what: String| EngineError::Failed(format!("a new generation {what}"));
    let mut old = Segment::decode(id, kind, kind.generation_zero(), 0, snapshot, deltas)?;
    let mut new = Segment::decode(id, kind, kind.generation_zero(), 0, rolled, &[])?;
    let (shown, showing) = (old.showing(), new.showing());
    if shown != showing {
        return Err(differs("does not show what was rolled".into()));
    }
    // What is redone on it finds the lives, defaults and bases that it would have found.
    let (before, after) = (old.registers_of(&shown), new.registers_of(&showing));
    if before != after {
        return Err(differs("has other registers than what was rolled".into()));
    }
    let mut clocks = guard::whole(guarded(kind), &new.whole())
        .map_err(|error| differs(format!("is not what a replica takes: {error}")))?;
    if clocks.iter().any(|(client, _, _)| client != generation.writer()) {
        return Err(differs("has changes of another writer".into()));
    }
    clocks.bind(guard::RELAY);
    Ok(clocks)
}

/// All registers of a new generation.
fn what_goes_over(id: SegmentId, old: &dyn Engine, writer: &str) -> Result<BTreeMap<String, Raw>, Unrollable> {
    let (mut all, mut of, mut over) = (BTreeMap::new(), Registers::new(), BTreeMap::new());
    old.scan(&mut |name, raw| {
        match layout::parse_name(id, name) {
            Some((object, sign, rest)) => {
                of.entry(object).or_default().push((sign, rest.to_owned(), name.to_owned()));
                all.insert(name.to_owned(), raw);
            }
            // What this version does not read, a later one may.
            None => drop(over.insert(name.to_owned(), raw)),
        }
    });
    let nothing = Vec::new();
    let mut todo = VecDeque::from([id.first()]);
    // Objects that nothing holds, and that are there all the same.
    todo.extend(of.iter().filter(|(_, own)| own.iter().any(|(sign, ..)| *sign == layout::KIND)).map(|(id, _)| *id));
    let mut met = BTreeSet::new();
    while let Some(object) = todo.pop_front() {
        if !met.insert(object) {
            continue;
        }
        let own = of.get(&object).unwrap_or(&nothing);
        for (sign, rest, name) in own {
            let Some(raw) = all.get(name) else { continue };
            for (key, value) in values_in(*sign, rest, raw) {
                let Value::Container(kind, identity) = value else { continue };
                if matches!(kind, Kind::List | Kind::Text) {
                    return Err(Unrollable::Sequences);
                }
                if *sign != layout::KIND {
                    todo.push_back(layout::identify(object, key.as_bytes(), kind.code(), identity));
                }
            }
            if *sign != layout::SUM {
                over.insert(name.clone(), raw.clone());
            }
        }
        over.extend(sums(&layout::prefix(id, object), own, &all, writer));
    }
    Ok(over)
}

/// The values that a register holds, with the key of each.
fn values_in(sign: char, rest: &str, raw: &Raw) -> Vec<(String, Value)> {
    match sign {
        layout::VALUE | layout::DEFAULT | layout::KIND => {
            layout::value_of(raw.clone()).map(|value| (rest.to_owned(), value)).into_iter().collect()
        }
        layout::BASE => {
            let mut values = Vec::new();
            layout::each_base_entry(raw, &mut |key, bytes| {
                values.extend(Value::decode_tagged(bytes).ok().map(|value| (key.to_owned(), value)));
                true
            });
            values
        }
        _ => Vec::new(),
    }
}

/// A counter's sums as one, if that comes to the very same total; fractions may not.
fn sums(prefix: &str, own: &[(char, String, String)], all: &BTreeMap<String, Raw>, writer: &str) -> Vec<(String, Raw)> {
    let number = |name: &String| all.get(name).and_then(layout::number_of);
    let signed = |of: char| own.iter().filter(move |(sign, ..)| *sign == of);
    let entries: BTreeMap<&String, f64> =
        signed(layout::SUM).filter_map(|(_, of, name)| Some((of, number(name)?))).collect();
    let mut bases: Vec<_> =
        signed(layout::BASE).filter_map(|(_, suffix, name)| Some((suffix, number(name)?))).collect();
    bases.sort_by(|(a, _), (b, _)| b.cmp(a));
    let default = || signed(layout::DEFAULT).find(|(_, rest, _)| rest.is_empty()).and_then(|(_, _, name)| number(name));
    let base = bases.first().map(|(_, base)| *base).or_else(default).unwrap_or(0.0);
    let total = entries.values().fold(base, |total, sum| total + sum);
    let sum: f64 = entries.values().sum();
    if entries.len() > 1 && (base + sum).to_bits() == total.to_bits() {
        return vec![(layout::name(prefix, layout::SUM, writer), layout::raw_number(sum))];
    }
    signed(layout::SUM).filter_map(|(_, _, name)| Some((name.clone(), all.get(name)?.clone()))).collect()
}

/// What a mirror would show of a segment, by ids instead of handles.
#[derive(PartialEq, Debug, Default)]
struct Showing {
    objects: BTreeMap<(ObjectId, Kind), BTreeMap<String, Seen>>,
    first: Option<Kind>,
    marks: BTreeMap<String, String>,
}

/// What is seen under one key.
#[derive(PartialEq, Debug)]
enum Seen {
    Value(Value),
    Object(ObjectId, Kind),
    Total(u64),
    Member(Value),
    /// It is there although nothing holds it.
    Near,
    Element(Vec<Shown>),
    Characters(String),
}

impl Segment {
    fn showing(&mut self) -> Showing {
        let mut showing = Showing::default();
        let patches = self.show();
        let of = |handle: Handle| self.object(handle).unwrap_or((ObjectId::default(), Kind::Map));
        for patch in patches {
            let mut see = |object: Handle, key: String, seen: Seen| {
                showing.objects.entry(of(object)).or_default().insert(key, seen);
            };
            match patch {
                Patch::Root { kind } => showing.first = Some(kind),
                Patch::Clear { object } => drop(showing.objects.entry(of(object)).or_default()),
                Patch::Set { object, key, value: Shown::Scalar(value) } => see(object, key, Seen::Value(value)),
                Patch::Set { object, key, value: Shown::Object(kind, held) } => {
                    let (id, _) = of(held);
                    showing.objects.entry((id, kind)).or_default();
                    showing.objects.entry(of(object)).or_default().insert(key, Seen::Object(id, kind));
                }
                Patch::Total { object, value } => see(object, String::new(), Seen::Total(value.to_bits())),
                Patch::Include { object, member } => see(object, format!("{member:?}"), Seen::Member(member)),
                Patch::Mark { group, run } => drop(showing.marks.insert(group, run)),
                Patch::Near { object, .. } => see(object, "?".into(), Seen::Near),
                Patch::Insert { object, index, values } => see(object, index.to_string(), Seen::Element(values)),
                Patch::Splice { object, index, inserted, .. } => {
                    see(object, index.to_string(), Seen::Characters(inserted));
                }
                // What is absent is not seen.
                Patch::Delete { .. }
                | Patch::Exclude { .. }
                | Patch::Remove { .. }
                | Patch::Put { .. }
                | Patch::Move { .. } => {}
            }
        }
        showing
    }

    /// The registers of all objects that are shown, but the sums of counters; as text, in which NaN is NaN.
    fn registers_of(&self, showing: &Showing) -> BTreeMap<String, String> {
        let shown: BTreeSet<ObjectId> = showing.objects.keys().map(|(id, _)| *id).collect();
        let mut registers = BTreeMap::new();
        self.engine.scan(&mut |name, raw| {
            let parsed = layout::parse_name(self.id, name);
            if parsed.is_none_or(|(object, sign, _)| sign != layout::SUM && shown.contains(&object)) {
                registers.insert(name.to_owned(), format!("{raw:?}"));
            }
        });
        registers
    }
}

#[cfg(all(test, feature = "yrs"))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::edit::{Literal, Wish};
    use crate::id::Uid;
    use crate::segment::write::Draw;

    const ROOT: SegmentId = SegmentId::ROOT;
    const YRS: EngineKind = EngineKind::Yrs;

    struct Draws(u64);

    impl Draw for Draws {
        fn draw(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    fn generation() -> GenId {
        GenId::drawn(ROOT, [1, 2, 3])
    }

    fn set(object: u32, key: &str, value: Literal) -> Wish {
        Wish::Set { object: Handle(object), key: key.into(), value }
    }

    fn number(value: f64) -> Literal {
        Literal::Scalar(Value::Number(value))
    }

    /// A document of two writers: overwritten and removed keys, a counter that both add to, a set, an object that is detached.
    fn worked() -> Vec<Bytes> {
        let mut draws = Draws(0);
        let mut a = Segment::new(ROOT, YRS, 11).unwrap();
        let mut deltas = Vec::new();
        let map = Literal::Map(vec![("inner".into(), Literal::Map(vec![("deep".into(), number(1.0))]))]);
        for wish in [
            set(0, "map", map),
            set(0, "n", Literal::Counter(5.0)),
            set(0, "set", Literal::Set(vec![Value::Str("one".into()), Value::Bool(true)])),
            set(0, "gone", Literal::Map(vec![("k".into(), Literal::Map(Vec::new()))])),
            set(0, "over", number(1.0)),
            set(0, "over", number(2.0)),
            Wish::Delete { object: Handle(0), key: "gone".into() },
            Wish::Default { object: Handle(0), key: "default".into(), value: Literal::Counter(3.0) },
            Wish::Mark { group: "g".into(), run: "r".into() },
            Wish::Near { object: ObjectId([77; 16]), value: Literal::Map(vec![("near".into(), number(9.0))]) },
        ] {
            let uid = Uid(draws.draw());
            deltas.push(a.edit(vec![wish], uid, &mut draws).unwrap().delta);
        }
        let mut b = Segment::decode(ROOT, YRS, YRS.generation_zero(), 22, &[], &deltas).unwrap();
        let patches = b.show();
        let counter = patches.iter().find_map(|patch| match patch {
            Patch::Set { key, value: Shown::Object(Kind::Counter, handle), .. } if key == "n" => Some(*handle),
            _ => None,
        });
        for by in [2.0, 4.0] {
            let wish = Wish::Add { object: counter.unwrap(), by };
            deltas.push(b.edit(vec![wish], Uid(draws.draw()), &mut draws).unwrap().delta);
        }
        let mut c = Segment::decode(ROOT, YRS, YRS.generation_zero(), 33, &[], &deltas).unwrap();
        c.show();
        let wish = Wish::Add { object: counter.unwrap(), by: 10.0 };
        deltas.push(c.edit(vec![wish], Uid(draws.draw()), &mut draws).unwrap().delta);
        deltas
    }

    #[test]
    fn g1_a_fresh_document_shows_the_same_and_keeps_ids_without_what_is_gone() {
        let deltas = worked();
        let rolled = roll_unchecked(YRS, ROOT, &[], &deltas, generation()).unwrap().unwrap();
        let clocks = check_roll(YRS, ROOT, &[], &deltas, generation(), &rolled).unwrap();
        let clients: Vec<_> = clocks.iter().map(|(client, owner, _)| (client, owner)).collect();
        assert_eq!(clients, [(generation().writer(), guard::RELAY)], "one writer, the relay's");
        let mut old = Segment::decode(ROOT, YRS, YRS.generation_zero(), 1, &[], &deltas).unwrap();
        let mut new = Segment::decode(ROOT, YRS, generation(), 1, &rolled, &[]).unwrap();
        let (shown, showing) = (old.showing(), new.showing());
        assert_eq!(shown, showing);
        // The values are what was written, not merely the same twice.
        let first = &showing.objects[&(ROOT.first(), Kind::Map)];
        assert_eq!(first["over"], Seen::Value(Value::Number(2.0)));
        assert!(!first.contains_key("gone"));
        let Seen::Object(counter, _) = first["n"] else { panic!("{first:?}") };
        assert_eq!(showing.objects[&(counter, Kind::Counter)][""], Seen::Total(21_f64.to_bits()));
        assert_eq!(showing.marks.len(), 1);
        assert!(showing.objects.contains_key(&(ObjectId([77; 16]), Kind::Map)));
        let (mut before, mut after) = (0, 0);
        old.engine.scan(&mut |name, _| before += usize::from(name.contains('+')));
        new.engine.scan(&mut |name, _| after += usize::from(name.contains('+')));
        assert_eq!((before, after), (2, 1), "two writers have counted, one sum is left");
    }

    #[test]
    fn g1_a_deleted_keys_next_container_gets_no_id_that_was_in_use() {
        let deltas = worked();
        let rolled = roll_unchecked(YRS, ROOT, &[], &deltas, generation()).unwrap().unwrap();
        let id_of = |mut segment: Segment| {
            segment.show();
            let wish = set(0, "gone", Literal::Map(Vec::new()));
            segment.edit(vec![wish], Uid(999), &mut Draws(500)).unwrap();
            match &segment.showing().objects[&(ROOT.first(), Kind::Map)]["gone"] {
                Seen::Object(id, _) => *id,
                other => panic!("{other:?}"),
            }
        };
        let old = Segment::decode(ROOT, YRS, YRS.generation_zero(), 1, &[], &deltas).unwrap();
        let new = Segment::decode(ROOT, YRS, generation(), 1, &rolled, &[]).unwrap();
        let (before, after) = (id_of(old), id_of(new));
        assert_eq!(before, after);
        assert_ne!(after, ObjectId::derive(ROOT.first(), b"gone", Kind::Map.code(), 0), "its first life has ended");
    }

    #[test]
    fn g1_what_is_not_an_equal_document_is_found_out() {
        let deltas = worked();
        let of = |deltas: &[Bytes], generation| roll_unchecked(YRS, ROOT, &[], deltas, generation).unwrap().unwrap();
        let check = |rolled: &[u8]| check_roll(YRS, ROOT, &[], &deltas, generation(), rolled);
        assert!(check(&of(&deltas, generation())).is_ok());
        assert!(check(&of(&deltas[..deltas.len() - 1], generation())).is_err(), "one delta less");
        assert!(check(&of(&deltas, GenId::drawn(ROOT, [9, 9, 9]))).is_err(), "another writer");
        let folded = crate::segment::fold(YRS, &[], &deltas).unwrap();
        assert!(check(&folded).is_err(), "the old document, with its writers");
        assert!(check(&[]).is_err(), "nothing");
    }

    #[test]
    fn g2_lists_texts_and_history_are_not_rolled() {
        for value in [
            Literal::List(vec![number(1.0)]),
            Literal::Text("abc".into()),
            Literal::Map(vec![("inner".into(), Literal::List(Vec::new()))]),
        ] {
            let mut segment = Segment::new(ROOT, YRS, 11).unwrap();
            let delta = segment.edit(vec![set(0, "k", value)], Uid(1), &mut Draws(0)).unwrap().delta;
            let rolled = roll_unchecked(YRS, ROOT, &[], &[delta], generation()).unwrap();
            assert_eq!(rolled, Err(Unrollable::Sequences));
        }
        let mut text = Segment::new(SegmentId([5; 16]), YRS, 11).unwrap();
        let wish = Wish::Root { value: Literal::Text("abc".into()) };
        let delta = text.edit(vec![wish], Uid(1), &mut Draws(0)).unwrap().delta;
        let rolled = roll_unchecked(YRS, SegmentId([5; 16]), &[], &[delta], generation()).unwrap();
        assert_eq!(rolled, Err(Unrollable::Sequences));
        let rolled = roll_unchecked(EngineKind::Automerge, ROOT, &[], &[], generation()).unwrap();
        assert_eq!(rolled, Err(Unrollable::History));
    }

    #[test]
    fn g1_a_total_of_fractions_stays_to_the_last_bit() {
        let mut draws = Draws(0);
        let mut first = Segment::new(ROOT, YRS, 11).unwrap();
        let mut deltas = vec![first.edit(vec![set(0, "n", Literal::Counter(0.7))], Uid(1), &mut draws).unwrap().delta];
        for (writer, by) in [(22, 0.1), (33, 0.2), (44, 1e16), (55, -1e16)] {
            let mut other = Segment::decode(ROOT, YRS, YRS.generation_zero(), writer, &[], &deltas).unwrap();
            let patches = other.show();
            let counter = patches.iter().find_map(|patch| match patch {
                Patch::Set { value: Shown::Object(Kind::Counter, handle), .. } => Some(*handle),
                _ => None,
            });
            let wish = Wish::Add { object: counter.unwrap(), by };
            deltas.push(other.edit(vec![wish], Uid(writer), &mut draws).unwrap().delta);
        }
        let rolled = roll_unchecked(YRS, ROOT, &[], &deltas, generation()).unwrap().unwrap();
        check_roll(YRS, ROOT, &[], &deltas, generation(), &rolled).unwrap();
    }
}
