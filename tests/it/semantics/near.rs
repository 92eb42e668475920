//! S1 of objects that nothing holds: they were made near another, lie in its segment, and are reached by Refs alone. Whoever
//! loads the log afresh is asked too.

use coheap_core::commit::EngineKind;
use coheap_core::id::Uid;
use coheap_core::segment::EditError;
use coheap_core::segment::write::{Draw, WishError};
use coheap_core::value::Kind;
use coheap_tests::mirror::Node;
use coheap_tests::tree::pointer;

use super::*;

/// What a peer sees of an object that nothing holds, found by its id as a Ref is followed.
fn seen(peer: &Peer, id: ObjectId) -> Option<Tree> {
    let (handle, kind) = peer.segment.find(id)?;
    assert_eq!(peer.mirror.node(handle).kind(), kind);
    assert_eq!(peer.mirror.near.get(&id), Some(&handle), "the mirror knows it by its id");
    peer.mirror.nears().remove(&id)
}

fn handle(peer: &Peer, id: ObjectId) -> Handle {
    peer.segment.find(id).expect("an object").0
}

/// One of each kind.
fn kinds() -> [(Literal, Tree); 6] {
    let nested = o([("in", o([("x", n(1))])), ("l", Literal::List(vec![n(2), o([("y", n(3))])]))]);
    [
        (nested, map([("in", map([("x", num(1))])), ("l", list([num(2), map([("y", num(3))])]))])),
        (o([]), map([])),
        (Literal::List(vec![n(1), n(2)]), list([num(1), num(2)])),
        (Literal::Text("héllo".to_owned()), text("héllo")),
        (Literal::Counter(2.5), counter(2.5)),
        (Literal::Set(vec![Value::Str("m".to_owned())]), set(["m"])),
    ]
}

#[test]
fn s01_an_object_near_another_is_found_by_its_id_and_hidden_from_the_first_object() {
    check(2, |w| {
        w.peers[0].set("", "a", n(1));
        let made: Vec<(ObjectId, Tree)> =
            kinds().into_iter().map(|(literal, tree)| (w.peers[0].near(literal), tree)).collect();
        for (id, tree) in &made {
            assert_eq!(seen(&w.peers[0], *id).as_ref(), Some(tree), "before anybody else has heard of it");
        }
        assert_eq!(w.meet(), map([("a", num(1))]), "no key of the first object");
        for peer in &w.peers {
            for (id, tree) in &made {
                assert_eq!(seen(peer, *id).as_ref(), Some(tree));
            }
        }
    });
}

#[test]
fn s01_an_object_near_another_takes_edits_of_all() {
    check(2, |w| {
        let ids: Vec<ObjectId> = kinds().into_iter().map(|(literal, _)| w.peers[0].near(literal)).collect();
        w.meet();
        for (i, peer) in w.peers.iter_mut().enumerate() {
            let me = format!("{i}");
            let at = |peer: &Peer, n: usize| handle(peer, ids[n]);
            peer.wish(Wish::Set { object: at(peer, 1), key: me.clone(), value: o([("deep", n(i as f64))]) });
            let index = 1;
            peer.wish(Wish::Insert { object: at(peer, 2), index, values: vec![n(10.0 + i as f64)] });
            peer.wish(Wish::Splice { object: at(peer, 3), index: 5, removed: 0, inserted: "!".to_owned() });
            peer.wish(Wish::Add { object: at(peer, 4), by: 1.0 + i as f64 });
            peer.wish(Wish::Include { object: at(peer, 5), member: Value::Str(me) });
        }
        w.meet();
        let one = map([("0", map([("deep", num(0))])), ("1", map([("deep", num(1))]))]);
        for peer in &w.peers {
            assert_eq!(seen(peer, ids[1]), Some(one.clone()));
            assert_eq!(seen(peer, ids[2]).map(|list| list.elements().len()), Some(4));
            assert_eq!(seen(peer, ids[3]), Some(text("héllo!!")));
            assert_eq!(seen(peer, ids[4]), Some(counter(5.5)));
            assert_eq!(seen(peer, ids[5]), Some(set(["0", "1", "m"])));
        }
    });
}

#[test]
fn s01_an_object_near_another_comes_with_refs_to_it_in_one_commit() {
    check(2, |w| {
        let peer = &mut w.peers[0];
        let (first, second) = (peer.draws.object(), peer.draws.object());
        let segment = w.id;
        let to = |object| Literal::Scalar(Value::Ref(Ref { segment, object }));
        peer.edit(vec![
            Wish::Near { object: first, value: o([("next", to(second))]) },
            Wish::Near { object: second, value: o([("next", to(first))]) },
            Wish::Set { object: Handle(0), key: "head".to_owned(), value: to(first) },
        ]);
        let next = |object| pointer(Ref { segment, object });
        assert_eq!(w.meet(), map([("head", next(first))]));
        for peer in &w.peers {
            assert_eq!(seen(peer, first), Some(map([("next", next(second))])));
            assert_eq!(seen(peer, second), Some(map([("next", next(first))])), "a circle of Refs");
        }
        // The key that points to it goes; the object stays, for a Ref may be anywhere.
        w.peers[1].delete("", "head");
        w.meet();
        assert!(w.peers.iter().all(|peer| seen(peer, first).is_some()));
    });
}

#[test]
fn s01_an_object_near_another_comes_through_reloads_restarts_and_redos() {
    check(2, |w| {
        let kept = w.peers[0].near(o([("a", n(1))]));
        w.meet();
        // Unsent at the reload, so it is made anew in a document that does not have it.
        let items = Literal::List(vec![n(1), o([("x", n(2))])]);
        let redone = w.peers[0].near(items);
        let items = handle(&w.peers[0], redone);
        w.peers[0].wish(Wish::Move { object: items, from: 0, to: 1 });
        let kept_at = handle(&w.peers[1], kept);
        w.peers[1].wish(Wish::Set { object: kept_at, key: "b".to_owned(), value: n(2) });
        w.send(1, 1);
        w.reload(0, true);
        assert_eq!(handle(&w.peers[0], redone), items, "the same object to its program");
        let shown = Some(list([map([("x", num(2))]), num(1)]));
        assert_eq!(seen(&w.peers[0], redone), shown);
        assert_eq!(seen(&w.peers[0], kept), Some(map([("a", num(1)), ("b", num(2))])));
        w.restart(0, false);
        assert_eq!(seen(&w.peers[0], redone), shown);
        w.meet();
        assert_eq!(seen(&w.peers[1], redone), shown);
        w.restart(1, true);
        assert_eq!(seen(&w.peers[1], redone), shown);
    });
}

#[test]
fn s01_an_object_near_another_that_is_undone_is_gone() {
    check(1, |w| {
        w.peers[0].near(o([("kept", n(1))]));
        w.send(0, 1);
        let undone = w.peers[0].near(o([("x", n(1))]));
        w.peers[0].unsent.clear();
        w.reload(0, false);
        assert_eq!(w.peers[0].mirror.near.get(&undone), None, "undone at its author");
        assert_eq!(w.peers[0].mirror.nears().len(), 1);
        w.meet();
    });
}

#[test]
fn s01_an_object_near_another_needs_an_id_of_its_own_and_content() {
    check(1, |w| {
        let segment = &mut w.peers[0].segment;
        let mut draws = Draws(5);
        let taken = draws.object();
        let mut near = |object, value| {
            segment.edit(vec![Wish::Near { object, value }], Uid(3), &mut draws).map(|edited| edited.edits.len())
        };
        assert_eq!(near(taken, o([])), Ok(1));
        assert_eq!(near(taken, o([])), Err(EditError::Wish(WishError::Object)));
        assert_eq!(near(taken, Literal::List(Vec::new())), Err(EditError::Wish(WishError::Object)));
        assert_eq!(near(w.id.first(), o([])), Err(EditError::Wish(WishError::Object)));
        assert_eq!(near(ObjectId([3; 16]), n(1)), Err(EditError::Wish(WishError::Value)));
    });
}

#[test]
fn s01_an_object_near_another_lies_in_a_segment_whose_first_object_is_no_map() {
    check(2, |w| {
        let id = w.peers[0].draws.object();
        w.peers[0].edit(vec![
            Wish::Root { value: Literal::List(vec![n(1)]) },
            Wish::Near { object: id, value: o([("a", n(1))]) },
        ]);
        assert_eq!(w.meet(), list([num(1)]));
        assert!(w.peers.iter().all(|peer| seen(peer, id) == Some(map([("a", num(1))]))));
    });
}

/// A segment that was written without objects near others reads as ever, and one with them from bytes alone.
#[test]
fn s01_objects_near_others_are_all_shown_by_a_segment_from_bytes() {
    for engine in ENGINES {
        let mut draws = Draws(9);
        let mut peer = Peer::new(*engine, SegmentId::ROOT, 9);
        let ids: Vec<ObjectId> = (0..300).map(|i| peer.near(o([("i", n(i))]))).collect();
        let bytes = peer.stored();
        let mut segment = decode(*engine, &bytes, draws.draw() >> 11);
        let mirror = Mirror::of(&segment.show());
        assert_eq!(mirror.near.len(), ids.len());
        for (i, id) in (0..).zip(&ids) {
            let (handle, kind) = segment.find(*id).expect("found by its id");
            assert_eq!(kind, Kind::Map);
            assert_eq!(mirror.near.get(id), Some(&handle));
            assert!(matches!(mirror.node(handle), Node::Map(entries) if entries.len() == 1), "{i}");
        }
        assert_eq!(mirror.value(), map([]));
    }
}

fn decode(engine: EngineKind, bytes: &[u8], writer: u64) -> Segment {
    let none: &[Bytes] = &[];
    Segment::decode(SegmentId::ROOT, engine, engine.generation_zero(), writer, bytes, none).expect("it decodes")
}
