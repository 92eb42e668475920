//! One test per rule, on bytes made by hand from the layout in `yrs.rs`. Each rule has a twin that keeps it: bytes that
//! differ in that one point and pass. `core/tests/guard.rs` tries the guard against yrs itself.

use super::*;
use crate::id::ReplicaId;

const A: ReplicaId = ReplicaId([1; 16]);
const B: ReplicaId = ReplicaId([2; 16]);

/// Client 5 from clock 0: register "k" of root `r` = true. No deletes.
const REGISTER: &[u8] = &[1, 1, 5, 0, 0x28, 1, 1, b'r', 1, b'k', 1, 120, 0];
/// Client 5 from clock 0: a list `q` of null, false, true.
const LIST: &[u8] = &[1, 1, 5, 0, 0x08, 1, 1, b'q', 3, 126, 121, 120, 0];
/// Client 6 from clock 0: "ab" in text `t`.
const TEXT: &[u8] = &[1, 1, 6, 0, 0x04, 1, 1, b't', 2, b'a', b'b', 0];
const EMPTY: &[u8] = &[0, 0];

fn check(bytes: &[u8]) -> Result<Summary, GuardError> {
    structure(Engine::Yrs, bytes)
}

fn refused(bytes: &[u8]) -> GuardError {
    check(bytes).expect_err("refused")
}

/// Client 5 from clock 0, one struct of these bytes.
fn one(item: &[u8]) -> Vec<u8> {
    [&[1, 1, 5, 0], item, &[0]].concat()
}

/// A list `q` of one value.
fn value(bytes: &[u8]) -> Vec<u8> {
    one(&[&[0x08, 1, 1, b'q', 1], bytes].concat())
}

/// A table that has seen these deltas of these owners.
fn table(deltas: &[(ReplicaId, &[u8])]) -> Clocks {
    let mut clocks = Clocks::default();
    for (owner, delta) in deltas {
        assert_eq!(admit(&mut clocks, *owner, delta), Ok(Continuity::New));
    }
    clocks
}

fn admit(clocks: &mut Clocks, owner: ReplicaId, delta: &[u8]) -> Result<Continuity, GuardError> {
    let summary = check(delta)?;
    let continuity = clocks.check(owner, &summary)?;
    clocks.record(owner, &summary);
    Ok(continuity)
}

fn own(client: u64, start: u32, end: u32) -> Option<OwnRange> {
    Some(OwnRange { client, start, end })
}

#[test]
fn plain_deltas_pass_and_are_summed_up() {
    assert_eq!(check(EMPTY), Ok(Summary::default()));
    assert_eq!(check(REGISTER).map(|summary| summary.own), Ok(own(5, 0, 1)));
    assert_eq!(check(LIST).map(|summary| summary.own), Ok(own(5, 0, 3)));
    // Client 5 from clock 3: "x" right of 6:0 and left of 6:1; deletes 6:1 and 7:4..6.
    let between = [1, 1, 5, 3, 0xc4, 6, 0, 6, 1, 1, b'x', 2, 6, 1, 1, 1, 7, 1, 4, 2];
    let summary = check(&between).expect("passes");
    assert_eq!((summary.own, summary.named), (own(5, 3, 4), vec![(6, 2), (7, 6)]));
}

#[test]
fn text_takes_a_clock_per_utf16_unit() {
    // "é漢😀": one, one and two units in 2 + 3 + 4 bytes.
    let text = one(&[&[0x04, 1, 1, b't', 9], "é漢😀".as_bytes()].concat());
    assert_eq!(check(&text).map(|summary| summary.own), Ok(own(5, 0, 4)));
}

#[test]
fn every_value_that_yrs_writes_passes() {
    let values: &[&[u8]] = &[
        &[127],
        &[126],
        &[121],
        &[125, 0xc1, 1],
        &[124, 0, 0, 0, 0],
        &[123, 0, 0, 0, 0, 0, 0, 0, 0],
        &[122, 0, 0, 0, 0, 0, 0, 0, 0],
        &[119, 1, b'a'],
        &[116, 2, 0xff, 0xff],
        &[117, 2, 126, 117, 0],
        &[118, 1, 1, b'k', 118, 0],
    ];
    for bytes in values {
        assert!(check(&value(bytes)).is_ok(), "{bytes:?}");
    }
    assert_eq!(refused(&value(&[115])), GuardError::BadContent);
}

#[test]
fn every_prefix_of_a_delta_is_refused() {
    for delta in [REGISTER, LIST, TEXT, EMPTY] {
        for cut in 0..delta.len() {
            assert!(check(&delta[..cut]).is_err(), "{:?}", &delta[..cut]);
        }
    }
    assert_eq!(refused(&[]), GuardError::Truncated);
}

#[test]
fn bytes_behind_the_delete_set_are_refused() {
    assert_eq!(refused(&[REGISTER, &[0]].concat()), GuardError::Trailing);
}

#[test]
fn counts_must_fit_into_the_bytes_that_remain() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(refused(&[&huge[..], &[0]].concat()), GuardError::TooMany, "sections");
    assert_eq!(refused(&[&[1], &huge[..], &[5, 0, 0]].concat()), GuardError::TooMany, "structs");
    assert_eq!(refused(&one(&[&[0x08, 1, 1, b'q'], &huge[..]].concat())), GuardError::TooMany, "values");
    assert_eq!(refused(&value(&[&[117], &huge[..]].concat())), GuardError::TooMany, "an array");
    assert_eq!(refused(&value(&[&[118], &huge[..]].concat())), GuardError::TooMany, "a map");
    assert_eq!(refused(&value(&[&[119], &huge[..]].concat())), GuardError::Truncated, "a string");
    assert_eq!(refused(&value(&[&[116], &huge[..]].concat())), GuardError::Truncated, "bytes");
    assert_eq!(refused(&[&[0], &huge[..]].concat()), GuardError::TooMany, "clients of deletes");
    assert_eq!(refused(&[&[0, 1, 5], &huge[..]].concat()), GuardError::TooMany, "ranges");
}

#[test]
fn numbers_that_yrs_would_read_otherwise_are_refused() {
    // Clock 2^32, which wraps to 0 in yrs.
    assert_eq!(refused(&[1, 1, 5, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 1, 1, b'q', 1, 0]), GuardError::BadNumber);
    // Client 5 in two bytes.
    assert_eq!(refused(&[1, 1, 0x85, 0, 0, 1, 1, 1, b'q', 1, 0]), GuardError::BadNumber);
}

#[test]
fn strings_must_be_utf8() {
    assert_eq!(refused(&one(&[0x04, 1, 1, b't', 1, 0xff])), GuardError::BadString, "text");
    assert_eq!(refused(&value(&[119, 1, 0xff])), GuardError::BadString, "a value");
    assert_eq!(refused(&value(&[118, 1, 1, 0xff, 126])), GuardError::BadString, "a key in a value");
    assert_eq!(refused(&one(&[0x28, 1, 1, b'r', 1, 0xff, 1, 126])), GuardError::BadString, "a key");
    assert_eq!(refused(&one(&[0x08, 1, 2, b'q', 0xff, 1, 126])), GuardError::BadString, "a root");
}

#[test]
fn content_that_no_replica_writes_is_refused() {
    // GC, JSON, binary, embed, format, type, document, skip, and numbers of no meaning.
    for kind in [0, 2, 3, 5, 6, 7, 9, 10, 11, 15] {
        assert_eq!(refused(&one(&[kind, 1, 1, b'q', 1, 126])), GuardError::BadContent, "{kind}");
    }
    assert_eq!(refused(&one(&[0x18, 1, 1, b'q', 1, 126])), GuardError::BadContent, "an unused bit");
}

#[test]
fn nothing_may_have_length_zero() {
    assert_eq!(refused(&[1, 0, 5, 0, 0, 0, 0, 0, 0]), GuardError::Empty, "a section");
    assert_eq!(refused(&one(&[0x01, 1, 1, b'q', 0])), GuardError::Empty, "deleted");
    assert_eq!(refused(&one(&[0x04, 1, 1, b't', 0])), GuardError::Empty, "text");
    assert_eq!(refused(&one(&[0x08, 1, 1, b'q', 0])), GuardError::Empty, "values");
    assert_eq!(refused(&[0, 1, 5, 1, 0, 0]), GuardError::Empty, "a range");
}

#[test]
fn values_nest_only_so_deep() {
    let nested = |depth: usize| value(&[[117, 1].repeat(depth), vec![126]].concat());
    assert!(check(&nested(VALUE_DEPTH_MAX)).is_ok());
    assert_eq!(refused(&nested(VALUE_DEPTH_MAX + 1)), GuardError::TooDeep);
    assert_eq!(refused(&nested(1_000_000)), GuardError::TooDeep, "and no stack overflows");
}

#[test]
fn roots_bear_the_names_of_the_layout() {
    let list = |name: &[u8]| one(&[&[0x08, 1], put(name.len()).as_slice(), name, &[1, 126]].concat());
    assert!(check(&list(b"q")).is_ok());
    assert!(check(&list(&[b'q'; ROOT_NAME_MAX])).is_ok());
    assert_eq!(refused(&list(&[b'q'; ROOT_NAME_MAX + 1])), GuardError::BadRoot);
    assert_eq!(refused(&list(b"")), GuardError::BadRoot);
    assert_eq!(refused(&list(b"list")), GuardError::BadRoot);
    assert_eq!(refused(&list(b"rr")), GuardError::BadRoot);
}

fn put(number: usize) -> Vec<u8> {
    if number < 0x80 { vec![number as u8] } else { vec![number as u8 | 0x80, (number >> 7) as u8] }
}

#[test]
fn content_belongs_to_its_root() {
    assert_eq!(refused(&one(&[0x08, 1, 1, b't', 1, 126])), GuardError::TornItem, "a value in a text");
    assert_eq!(refused(&one(&[0x04, 1, 1, b'q', 1, b'a'])), GuardError::TornItem, "text in a list");
    assert_eq!(refused(&one(&[0x08, 1, 1, b'r', 1, 126])), GuardError::TornItem, "a register without key");
    assert_eq!(refused(&one(&[0x28, 1, 1, b'q', 1, b'k', 1, 126])), GuardError::TornItem, "a list element with key");
    assert_eq!(refused(&one(&[0x24, 1, 1, b'r', 1, b'k', 1, b'a'])), GuardError::BadContent, "text in a register");
    assert!(check(&one(&[0x01, 1, 1, b't', 1])).is_ok(), "what is deleted may have been anything");
}

#[test]
fn items_inside_items_are_refused() {
    // Parent info 0: the item 6:0.
    assert_eq!(refused(&one(&[0x08, 0, 6, 0, 1, 126])), GuardError::Nested);
    assert_eq!(refused(&one(&[0x08, 2, 1, b'q', 1, 126])), GuardError::BadNumber);
}

#[test]
fn client_ids_lie_below_2_to_53() {
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let over = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let section = |client: &[u8]| [&[1, 1], client, &[0, 1, 1, 1, b'q', 1, 0]].concat();
    let beside = |client: &[u8]| one(&[&[0x88], client, &[0, 1, 126]].concat());
    let deletes = |client: &[u8]| [&[0, 1], client, &[1, 0, 1]].concat();
    for bytes in [section(&most), beside(&most), deletes(&most)] {
        assert!(check(&bytes).is_ok(), "{bytes:?}");
    }
    for bytes in [section(&over), beside(&over), deletes(&over)] {
        assert_eq!(refused(&bytes), GuardError::BadClient, "{bytes:?}");
    }
}

#[test]
fn clocks_stay_below_2_to_30() {
    let most = [0xff, 0xff, 0xff, 0xff, 0x03];
    let deleted = |start: &[u8], len: u8| [&[1, 1, 5], start, &[1, 1, 1, b'q', len, 0]].concat();
    assert!(check(&deleted(&most, 1)).is_ok());
    assert_eq!(refused(&deleted(&most, 2)), GuardError::ClockOverflow);
    assert_eq!(refused(&deleted(&[0xff, 0xff, 0xff, 0xff, 0x0f], 1)), GuardError::ClockOverflow, "u32 wraps");
    assert_eq!(refused(&[&[0, 1, 5, 1], &most[..], &[2]].concat()), GuardError::ClockOverflow, "a range");
    assert_eq!(refused(&one(&[0x88, 6, 0x80, 0x80, 0x80, 0x80, 0x04, 1, 126])), GuardError::ClockOverflow, "an origin");
}

#[test]
fn delete_ranges_ascend_and_clients_occur_once() {
    assert!(check(&[0, 1, 5, 2, 0, 2, 2, 1]).is_ok());
    assert_eq!(refused(&[0, 1, 5, 2, 0, 2, 1, 1]), GuardError::BadRange);
    assert_eq!(refused(&[0, 1, 5, 2, 4, 1, 0, 1]), GuardError::BadRange);
    assert_eq!(refused(&[0, 3, 5, 1, 0, 1, 6, 1, 0, 1, 5, 1, 1, 1]), GuardError::RepeatedClient);
}

#[test]
fn a_delta_has_structs_of_one_client() {
    let two = [&[2], &REGISTER[1..REGISTER.len() - 1], &TEXT[1..]].concat();
    assert_eq!(refused(&two), GuardError::SeveralClients);
}

#[test]
fn an_item_lies_beside_earlier_items_only() {
    // Two values of client 5 from clock 0: the second beside itself, the first beside the second.
    let own = |left: u8| [1, 2, 5, 0, 0x08, 1, 1, b'q', 1, 126, 0x88, 5, left, 1, 126, 0];
    assert!(check(&own(0)).is_ok());
    assert_eq!(refused(&own(1)), GuardError::UnknownClock);
    assert_eq!(refused(&one(&[0x48, 5, 3, 1, 126])), GuardError::UnknownClock, "right origin");
}

#[test]
fn a_register_never_has_a_right_neighbour() {
    assert_eq!(refused(&one(&[0x68, 6, 0, 1, 126])), GuardError::TornItem);
    assert_eq!(refused(&one(&[0xe8, 6, 0, 6, 1, 1, 126])), GuardError::TornItem);
}

#[test]
fn a_delta_deletes_nothing_of_its_own_that_it_does_not_reach() {
    let deletes = |len: u8| [&LIST[..LIST.len() - 1], &[1, 5, 1, 0, len]].concat();
    assert!(check(&deletes(3)).is_ok());
    assert_eq!(refused(&deletes(4)), GuardError::UnknownClock);
}

#[test]
fn a_client_id_belongs_to_its_first_owner() {
    let mut clocks = table(&[(A, REGISTER)]);
    // Client 5 goes on at clock 1: deletes the value under the key, by overwriting it.
    let next = [1, 1, 5, 1, 0xa8, 5, 0, 1, 126, 0];
    assert_eq!(admit(&mut clocks, B, &next), Err(GuardError::ForeignClient));
    assert_eq!(admit(&mut clocks, B, REGISTER), Err(GuardError::ForeignClient), "not even a copy");
    assert_eq!(admit(&mut clocks, A, &next), Ok(Continuity::New));
    assert_eq!(clocks.iter().collect::<Vec<_>>(), [(5, A, 2)]);
}

#[test]
fn clocks_continue_without_a_gap_or_an_overlap() {
    let list_from = |clock: u8| [1, 1, 5, clock, 0x08, 1, 1, b'q', 2, 126, 126, 0];
    let mut clocks = Clocks::default();
    assert_eq!(admit(&mut clocks, A, &list_from(1)), Err(GuardError::ClockGap), "the first is 0");
    assert_eq!(admit(&mut clocks, A, &list_from(0)), Ok(Continuity::New));
    assert_eq!(admit(&mut clocks, A, &list_from(3)), Err(GuardError::ClockGap));
    assert_eq!(admit(&mut clocks, A, &list_from(1)), Err(GuardError::ClockGap), "half known");
    assert_eq!(admit(&mut clocks, A, &list_from(2)), Ok(Continuity::New));
}

#[test]
fn a_copy_passes_and_changes_nothing() {
    let mut clocks = table(&[(A, LIST), (B, TEXT)]);
    let before = clocks.clone();
    assert_eq!(admit(&mut clocks, A, LIST), Ok(Continuity::Copy));
    assert_eq!(clocks, before);
}

#[test]
fn nothing_may_be_named_that_nobody_has_written() {
    let mut clocks = table(&[(A, TEXT)]);
    let beside = |clock: u8| one(&[0x84, 6, clock, 1, b'x']);
    let deletes = |clock: u8| [0, 1, 6, 1, clock, 1];
    assert_eq!(admit(&mut clocks.clone(), B, &beside(1)), Ok(Continuity::New));
    assert_eq!(admit(&mut clocks, B, &beside(2)), Err(GuardError::UnknownClock));
    assert_eq!(admit(&mut clocks.clone(), B, &deletes(1)), Ok(Continuity::New));
    assert_eq!(admit(&mut clocks, B, &deletes(2)), Err(GuardError::UnknownClock));
    assert_eq!(admit(&mut clocks, B, &[0, 1, 7, 1, 0, 1]), Err(GuardError::UnknownClock), "an unknown client");
    assert_eq!(admit(&mut clocks, B, &[0, 1, 5, 1, 0, 1]), Err(GuardError::UnknownClock), "an own one");
}

#[test]
fn an_item_lies_in_the_space_of_its_neighbours() {
    // 5:0..3 are list elements, 6:0..2 text, 7:0 a register.
    let register = [1, 1, 7, 0, 0x28, 1, 1, b'r', 1, b'k', 1, 120, 0];
    let clocks = table(&[(A, LIST), (A, TEXT), (A, &register)]);
    let try_one = |item: &[u8]| admit(&mut clocks.clone(), B, &[&[1, 1, 8, 0], item, &[0]].concat());
    assert_eq!(try_one(&[0x88, 5, 0, 1, 126]), Ok(Continuity::New));
    assert_eq!(try_one(&[0x88, 6, 0, 1, 126]), Err(GuardError::TornItem), "a value in a text");
    assert_eq!(try_one(&[0x84, 5, 0, 1, b'x']), Err(GuardError::TornItem), "text in a list");
    assert_eq!(try_one(&[0xa8, 5, 0, 1, 126]), Err(GuardError::TornItem), "a key in a list");
    assert_eq!(try_one(&[0x88, 7, 0, 1, 126]), Err(GuardError::TornItem), "a list element in the registers");
    assert_eq!(try_one(&[0xc8, 5, 0, 7, 0, 1, 126]), Err(GuardError::TornItem), "between an element and a register");
}

#[test]
fn a_deleted_item_is_what_its_neighbours_are() {
    let register = [1, 1, 7, 0, 0x28, 1, 1, b'r', 1, b'k', 1, 120, 0];
    let clocks = table(&[(A, LIST), (A, TEXT), (A, &register)]);
    let try_items = |count: u8, items: &[u8]| admit(&mut clocks.clone(), B, &[&[1, count, 8, 0], items, &[0]].concat());
    assert_eq!(try_items(1, &[0x81, 5, 0, 1]), Ok(Continuity::New));
    assert_eq!(try_items(1, &[0xc1, 5, 0, 6, 0, 1]), Err(GuardError::TornItem), "between a list and a text");
    assert_eq!(try_items(1, &[0x81, 7, 0, 1]), Err(GuardError::TornItem), "in the registers without a key");
    // Deleted beside an element, then a value beside the deleted, or text.
    assert_eq!(try_items(2, &[0x81, 5, 0, 1, 0x88, 8, 0, 1, 126]), Ok(Continuity::New));
    assert_eq!(try_items(2, &[0x81, 5, 0, 1, 0x84, 8, 0, 1, b'x']), Err(GuardError::TornItem));
    // And once the table has it, it stays an element.
    let mut clocks = clocks.clone();
    assert_eq!(admit(&mut clocks, B, &[1, 1, 8, 0, 0x81, 5, 0, 1, 0]), Ok(Continuity::New));
    assert_eq!(admit(&mut clocks, B, &[1, 1, 8, 1, 0x84, 8, 0, 1, b'x', 0]), Err(GuardError::TornItem));
    assert_eq!(admit(&mut clocks, B, &[1, 1, 8, 1, 0x88, 8, 0, 1, 126, 0]), Ok(Continuity::New));
}

#[test]
fn a_table_comes_back_as_it_was_stored() {
    let register = [1, 1, 5, 3, 0x28, 1, 1, b'r', 1, b'k', 1, 120, 0];
    let clocks = table(&[(A, LIST), (B, TEXT), (A, &register)]);
    let mut stored = Vec::new();
    clocks.encode(&mut stored);
    // Two clients; 5 of A at 4: sequences from 0, registers 3 further on; 6 of B at 2: texts from 0.
    let golden = [&[2, 5], &[1; 16][..], &[4, 2, 0b01, 0b1100], &[6], &[2; 16], &[2, 1, 0b10]].concat();
    assert_eq!(stored, golden);
    assert_eq!(Clocks::decode(&stored), Ok(clocks));
    for cut in 0..stored.len() {
        assert!(Clocks::decode(&stored[..cut]).is_err());
    }
    assert_eq!(Clocks::decode(&[&stored[..], &[0]].concat()), Err(GuardError::BadTable), "an empty list");
    assert_eq!(Clocks::decode(&[&stored[..], &[1, 7, 0]].concat()), Err(GuardError::Trailing));
    assert_eq!(Clocks::decode(&[0]), Ok(Clocks::default()));
}

/// R12: from a quarantined part on nothing of its client id counts, nobody goes on as it, and nobody builds on it.
#[test]
fn a_barred_client_is_nobodys_from_there_on() {
    let second = [1, 1, 5, 3, 0x28, 1, 1, b'r', 1, b'k', 1, 120, 0];
    let mut clocks = table(&[(A, LIST), (A, &second), (B, TEXT)]);
    clocks.bar(5, 3);
    clocks.skip(crate::id::Offset(9));
    clocks.skip(crate::id::Offset(300));
    assert_eq!((clocks.next(5), clocks.next(6)), (3, 2));
    // Whoever says that it is this id, a copy too.
    assert_eq!(admit(&mut clocks, A, &second), Err(GuardError::Quarantined));
    assert_eq!(admit(&mut clocks, BARRED, &second), Err(GuardError::Quarantined));
    assert_eq!(admit(&mut clocks, A, LIST), Err(GuardError::Quarantined));
    // A value beside what is left, and beside what is left out.
    assert_eq!(admit(&mut clocks, B, &[1, 1, 8, 0, 0x88, 5, 2, 1, 126, 0]), Ok(Continuity::New));
    assert_eq!(admit(&mut clocks, B, &[1, 1, 9, 0, 0x88, 5, 3, 1, 126, 0]), Err(GuardError::Quarantined));
    let mut stored = Vec::new();
    clocks.encode(&mut stored);
    assert_eq!(Clocks::decode(&stored), Ok(clocks.clone()));
    // Of its first part nothing is left.
    clocks.bar(5, 0);
    clocks.forget_below(crate::id::Offset(10));
    assert_eq!((clocks.next(5), clocks.skipped().collect::<Vec<_>>()), (0, vec![crate::id::Offset(300)]));
    stored.clear();
    clocks.encode(&mut stored);
    assert_eq!(Clocks::decode(&stored), Ok(clocks));
    let (twice, falls) = ([0, 2, 7, 0], [0, 2, 1]);
    assert_eq!(Clocks::decode(&twice), Err(GuardError::BadTable));
    assert!(Clocks::decode(&falls).is_err());
}

#[test]
fn a_table_that_cannot_be_ours_is_refused() {
    let entry = |client: u8, tail: &[u8]| [&[client], &[1; 16][..], tail].concat();
    let table = |entries: &[Vec<u8>]| Clocks::decode(&[vec![entries.len() as u8], entries.concat()].concat());
    let good: &[u8] = &[4, 1, 0];
    assert!(table(&[entry(5, good), entry(6, good)]).is_ok());
    for (why, bad) in [
        ("clients descend", vec![entry(6, good), entry(5, good)]),
        ("a client twice", vec![entry(5, good), entry(5, good)]),
        ("no clock yet", vec![entry(5, &[0, 1, 0])]),
        ("no run", vec![entry(5, &[4, 0]), entry(6, &[4, 2, 0, 0b101])]),
        ("the first run begins late", vec![entry(5, &[4, 1, 0b100])]),
        ("a run of nothing", vec![entry(5, &[4, 2, 0, 1])]),
        ("a run behind the end", vec![entry(5, &[4, 2, 0, 0b10001])]),
        ("equal runs", vec![entry(5, &[4, 2, 0, 0b100])]),
        ("no such space", vec![entry(5, &[4, 1, 3])]),
    ] {
        assert_eq!(table(&bad), Err(GuardError::BadTable), "{why}");
    }
    assert_eq!(Clocks::decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(GuardError::TooMany));
}

#[test]
fn a_state_may_have_many_clients_each_from_its_beginning() {
    let check = |bytes: &[u8]| whole(Engine::Yrs, bytes);
    let list = &LIST[1..LIST.len() - 1];
    let text = &TEXT[1..TEXT.len() - 1];
    let table = check(&[&[2], text, list, &[1, 6, 1, 1, 1]].concat()).expect("passes");
    assert_eq!(table.iter().collect::<Vec<_>>(), [(5, UNBOUND, 3), (6, UNBOUND, 2)]);
    assert_eq!(check(EMPTY), Ok(Clocks::default()));
    assert_eq!(check(&[&[2], list, list, &[0]].concat()), Err(GuardError::RepeatedClient));
    assert_eq!(check(&[1, 1, 5, 1, 0x08, 1, 1, b'q', 1, 126, 0]), Err(GuardError::ClockGap));
    assert_eq!(check(&[&[1], list, &[1, 5, 1, 2, 2]].concat()), Err(GuardError::UnknownClock), "deletes");
    assert_eq!(check(&[&[1], list, &[1, 6, 1, 0, 1]].concat()), Err(GuardError::UnknownClock), "deletes of nobody");
    assert_eq!(check(&one(&[0x88, 6, 0, 1, 126])), Err(GuardError::UnknownClock), "beside nobody");
    assert_eq!(check(&[&[2], text, &[1, 5, 0, 0x88, 6, 0, 1, 126][..], &[0]].concat()), Err(GuardError::TornItem));
    assert_eq!(check(&[&[2], text, &[1, 5, 0, 0x84, 6, 2, 1, b'x'][..], &[0]].concat()), Err(GuardError::UnknownClock));
}

#[test]
fn the_structs_of_a_state_do_not_wait_for_one_another() {
    let check = |five: &[u8], six: &[u8]| whole(Engine::Yrs, &[&[2], five, six, &[0]].concat());
    let base = [0x08, 1, 1, b'q', 1, 126];
    let beside = |client: u8, clock: u8| [0x88, client, clock, 1, 126];
    // 5: base, then beside 6:0.  6: beside 5:0, then beside 5:1.  A zigzag, in which each waits for the other twice.
    let five = [&[2, 5, 0], &base[..], &beside(6, 0)].concat();
    let six = [&[2, 6, 0], &beside(5, 0)[..], &beside(5, 1)].concat();
    assert!(check(&five, &six).is_ok());
    assert!(check(&six, &five).is_ok());
    // 6 begins beside 5:1, which waits for 6:0.
    let six = [&[1, 6, 0], &beside(5, 1)[..]].concat();
    assert_eq!(check(&five, &six), Err(GuardError::Cycle));
    assert_eq!(whole(Engine::Yrs, &one(&beside(5, 0))), Err(GuardError::Cycle), "beside itself");
}

#[test]
#[cfg(not(feature = "guard-automerge"))]
fn who_has_no_guard_for_an_engine_takes_nothing_of_it() {
    assert_eq!(whole(Engine::Automerge, EMPTY), Err(GuardError::UnsupportedEngine));
    assert_eq!(structure(Engine::Automerge, EMPTY), Err(GuardError::UnsupportedEngine));
}

#[test]
fn bytes_of_any_kind_get_an_answer() {
    let mut random = 1_u64;
    for _ in 0..200_000 {
        let bytes: Vec<u8> = (0..random % 40)
            .map(|_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                // Small numbers are counts, clients and clocks: they lead further in.
                let byte = (random >> 56) as u8;
                if random >> 40 & 3 == 0 { byte } else { byte & 0x0f }
            })
            .collect();
        random = random.wrapping_add(1);
        _ = check(&bytes).map(|summary| Clocks::default().check(A, &summary));
        _ = whole(Engine::Yrs, &bytes);
        _ = Clocks::decode(&bytes);
    }
}
