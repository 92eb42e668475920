//! Golden documents: what old versions stored must be read for ever, with the same values and the same object ids.
//!
//! `golden/segment/NAME.bin` is a document (see `golden/segment/README.md`), `NAME.txt` what it says. Files are only ever
//! added to. `COHEAP_GOLDEN=write` writes those of [`programs`] that are not there yet; a change of layout adds programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{ObjectId, SegmentId};
use coheap_core::segment::Segment;
use coheap_core::value::{Ref, Value};
use coheap_tests::mirror::{Mirror, Node};
use coheap_tests::peer::Peer;
use coheap_tests::world::World;

/// A golden document is made by a world of this many replicas, whose seed is the number.
type Program = (&'static str, usize, SegmentId, fn(&mut World));

const OTHER: SegmentId = SegmentId(*b"golden segment 1");

const PROGRAMS: &[Program] = &[
    ("yrs-layout1-values", 1, SegmentId::ROOT, values),
    ("yrs-layout1-objects", 2, SegmentId::ROOT, objects),
    ("yrs-layout1-met", 3, OTHER, met),
    ("yrs-layout1-list", 2, OTHER, first_list),
    ("yrs-layout1-near", 2, OTHER, near),
];

/// The same programs on the engine that keeps history.
const AUTOMERGE: &[Program] = &[
    ("automerge-layout1-values", 1, SegmentId::ROOT, values),
    ("automerge-layout1-objects", 2, SegmentId::ROOT, objects),
    ("automerge-layout1-met", 3, OTHER, met),
    ("automerge-layout1-list", 2, OTHER, first_list),
];

/// Every program with its engine and its seed.
fn programs() -> impl Iterator<Item = (EngineKind, u64, &'static Program)> {
    let of = |engine, programs: &'static [Program]| (1..).zip(programs).map(move |(seed, it)| (engine, seed, it));
    of(EngineKind::Yrs, PROGRAMS).chain(of(EngineKind::Automerge, AUTOMERGE))
}

fn n(number: f64) -> Literal {
    Literal::Scalar(Value::Number(number))
}

fn s(text: &str) -> Literal {
    Literal::Scalar(Value::Str(text.to_owned()))
}

fn o(entries: &[(&str, Literal)]) -> Literal {
    Literal::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn values(w: &mut World) {
    let scalars = [
        Value::Null,
        Value::Bool(true),
        Value::Bool(false),
        Value::Number(0.0),
        Value::Number(-0.0),
        Value::Number(5.0),
        Value::Number(-1.5),
        Value::Number(f64::NAN),
        Value::Number(f64::INFINITY),
        Value::Number(9_007_199_254_740_993.0),
        Value::Number(4_294_967_296.0),
        Value::BigInt(5),
        Value::BigInt(i64::MIN),
        Value::Date(1_700_000_000_000.5),
        Value::Bytes(vec![0, 1, 255]),
        Value::Ref(Ref { segment: OTHER, object: OTHER.first() }),
        Value::Ref(Ref { segment: OTHER, object: ObjectId([7; 16]) }),
        Value::Str("é漢😀\0".to_owned()),
        Value::Str(String::new()),
    ];
    let peer = &mut w.peers[0];
    for (i, value) in scalars.iter().enumerate() {
        peer.set("", &format!("k{i}"), Literal::Scalar(value.clone()));
    }
    let literals: Vec<Literal> = scalars.into_iter().map(Literal::Scalar).collect();
    peer.set(
        "",
        "base",
        Literal::Map(literals.iter().enumerate().map(|(i, v)| (format!("b{i}"), v.clone())).collect()),
    );
    peer.set("", "list", Literal::List(literals));
    peer.set("", "__proto__", n(1.0));
    peer.set("", "", n(2.0));
    w.meet();
}

fn objects(w: &mut World) {
    let peer = &mut w.peers[0];
    for (key, value) in [
        ("config", o(&[("depth", n(3.0)), ("tags", Literal::List(vec![s("a"), o(&[("deep", n(1.0))])]))])),
        ("visits", Literal::Counter(10.0)),
        ("names", Literal::Set(vec![Value::Str("x".into()), Value::Number(1.0), Value::Bool(true)])),
        ("notes", Literal::Text(String::new())),
    ] {
        peer.default("", key, value);
    }
    peer.set("", "map", o(&[("a", n(1.0)), ("in", o(&[("x", s("y"))])), ("gone", n(0.0))]));
    peer.set("", "list", Literal::List(vec![n(0.0), o(&[("id", n(1.0))]), n(2.0), n(3.0)]));
    peer.set("", "text", Literal::Text("héllo 😀".into()));
    peer.set("", "counter", Literal::Counter(2.5));
    peer.set("", "set", Literal::Set(vec![Value::Str("m".into()), Value::Number(-0.0), Value::Bool(false)]));
    w.meet();
    let peer = &mut w.peers[1];
    peer.delete("map", "gone");
    peer.shift("list", 1, 3);
    peer.put("list", 0, Literal::List(vec![s("replaced")]));
    peer.remove("list", 1, 1);
    peer.splice("text", 1, 1, "e");
    peer.splice("notes", 0, 0, "note");
    peer.add("counter", 0.25);
    peer.add("visits", 4.0);
    peer.exclude("set", "m");
    peer.include("set", "n");
    peer.exclude("names", "x");
    peer.shift("config/tags", 0, 1);
    peer.delete("", "map");
    peer.set("", "map", o(&[("again", Literal::Map(Vec::new()))]));
    peer.set("", "map", o(&[("over", n(1.0))]));
    peer.wish(Wish::Mark { group: "default".into(), run: "run 1".into() });
    w.peers[0].add("counter", 1.0);
    w.meet();
}

fn met(w: &mut World) {
    for i in 0..3 {
        let peer = &mut w.peers[i];
        peer.ensure("", "users", o(&[(&format!("u{i}"), n(i as f64)), ("both", o(&[(&format!("d{i}"), n(1.0))]))]));
        peer.ensure("", "hits", Literal::Counter(7.0));
        peer.add("hits", 1.0 + i as f64);
        peer.ensure("", "log", Literal::List(vec![s(&format!("from {i}"))]));
        peer.ensure("", "tags", Literal::Set(vec![Value::Number(i as f64)]));
    }
    w.meet();
    w.peers[0].shift("log", 0, 2);
    w.peers[1].shift("log", 0, 1);
    w.peers[2].put("log", 0, s("replaced"));
    w.meet();
}

fn first_list(w: &mut World) {
    w.peers[0].wish(Wish::Root { value: Literal::List(vec![n(1.0), o(&[("x", n(2.0))])]) });
    w.meet();
    w.peers[1].push("", vec![Literal::Counter(3.0)]);
    w.peers[1].shift("", 0, 2);
    w.meet();
}

fn near(w: &mut World) {
    let peer = &mut w.peers[0];
    peer.set("", "a", n(1.0));
    let config = peer.near(o(&[("x", n(1.0)), ("in", o(&[("y", s("z"))]))]));
    let items = peer.near(Literal::List(vec![n(1.0), n(2.0)]));
    peer.near(Literal::Text("héllo 😀".into()));
    peer.near(Literal::Counter(2.0));
    peer.near(Literal::Set(vec![Value::Str("m".into())]));
    peer.near(o(&[]));
    w.meet();
    let peer = &mut w.peers[1];
    let at = |peer: &Peer, id| peer.segment.find(id).expect("an object").0;
    let (config, items) = (at(peer, config), at(peer, items));
    peer.wish(Wish::Set { object: config, key: "later".into(), value: o(&[]) });
    peer.wish(Wish::Move { object: items, from: 0, to: 1 });
    w.meet();
}

/// `id:16 engine:u8 length:u32 snapshot (length:u32 delta)*`, lengths little-endian.
fn pack(w: &World) -> Vec<u8> {
    let (snapshot, deltas) = w.state(true);
    let mut out = w.id.0.to_vec();
    out.push(w.engine.code());
    for bytes in std::iter::once(&Bytes::from(snapshot)).chain(&deltas) {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

fn unpack(bytes: &[u8]) -> Segment {
    let (id, rest) = bytes.split_first_chunk::<16>().expect("an id");
    let (engine, mut rest) = rest.split_first().expect("an engine");
    let engine = EngineKind::from_code(*engine).expect("an engine");
    let mut pieces = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (piece, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        pieces.push(Bytes::copy_from_slice(piece));
        rest = tail;
    }
    let (snapshot, deltas) = pieces.split_first().expect("a snapshot");
    Segment::decode(SegmentId(*id), engine, engine.generation_zero(), 1, snapshot, deltas).expect("it decodes")
}

/// What a document says: its values, then the ids of its objects.
fn said(segment: &mut Segment) -> String {
    let mirror = Mirror::of(&segment.show());
    let mut out = format!("{:#?}\nmarks {:?}\n", mirror.value(), mirror.marks);
    for (id, near) in mirror.nears() {
        writeln!(out, "near {id} {near:#?}").expect("a string takes all");
    }
    let mut objects: Vec<Handle> = mirror.reachable();
    objects.sort_by_key(|handle| segment.object(*handle).map(|(id, _)| id));
    for handle in objects {
        let (id, kind) = segment.object(handle).expect("an object");
        let held = match mirror.node(handle) {
            Node::Map(entries) => entries.len(),
            Node::List(values) => values.len(),
            Node::Text(units) => units.len(),
            Node::Counter(_) => 1,
            Node::Set(members) => members.len(),
        };
        writeln!(out, "{id} {kind:?} of {held}").expect("a string takes all");
    }
    out
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/segment")
}

#[test]
fn golden_documents_say_what_they_said_when_they_were_stored() {
    if std::env::var("COHEAP_GOLDEN").is_ok_and(|mode| mode == "write") {
        write_missing();
    }
    let mut found = 0;
    for entry in std::fs::read_dir(folder()).expect("golden documents") {
        let path = entry.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        found += 1;
        let bytes = std::fs::read(&path).expect("a golden document");
        let expected = std::fs::read_to_string(path.with_extension("txt")).expect("what it says");
        let mut segment = unpack(&bytes);
        assert!(said(&mut segment) == expected, "{} says something else now:\n{}", path.display(), said(&mut segment));
        // And goes on to say it after it is stored anew.
        let (id, engine) = (segment.id(), segment.engine());
        let again = segment.encode();
        let mut again = Segment::decode(id, engine, engine.generation_zero(), 2, &again, &[]).expect("it decodes");
        assert!(said(&mut again) == expected, "{} stored anew", path.display());
    }
    assert!(found >= programs().count(), "{found} golden documents");
}

#[test]
fn the_programs_of_golden_documents_still_come_to_the_same_values() {
    for (engine, seed, (name, peers, id, program)) in programs() {
        let mut w = World::new(engine, *id, *peers, seed);
        program(&mut w);
        let expected = std::fs::read_to_string(folder().join(name).with_extension("txt")).expect("what it says");
        let now = format!("{:#?}\n", w.peers[0].value());
        assert!(expected.starts_with(&now), "{name}: {now}");
    }
}

fn write_missing() {
    for (engine, seed, (name, peers, id, program)) in programs() {
        let path = folder().join(name).with_extension("bin");
        if path.exists() {
            continue;
        }
        let mut w = World::new(engine, *id, *peers, seed);
        program(&mut w);
        let bytes = pack(&w);
        std::fs::write(path.with_extension("txt"), said(&mut unpack(&bytes))).expect("written");
        std::fs::write(path, bytes).expect("written");
    }
}
