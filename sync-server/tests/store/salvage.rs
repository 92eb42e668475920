//! Salvage: what is whole is kept, what is not is said, and what comes out is a store that verifies, with a new life of the
//! log at the end of what was kept.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use coheap_core::id::{EpochId, GenId, Offset, SegmentNumber};
use coheap_core::log::{LogEntry, StoredQuarantine};
use coheap_core::relay::{Append, ROLL_HOLD_MS};
use coheap_sync_server::{Appended, HeapAppend, Salvaged, Store, StoreError, salvage};
use coheap_tests::Draws;
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, Picture, picture};
use redb::ReadableTable;

use crate::world::{HEAPS, World, each_of, open, times, whole};

/// A data directory that is gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn with(medium: &[u8]) -> Directory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("salvage-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("relay.redb"), medium).unwrap();
        Directory(path)
    }

    /// Changes a row behind the store's back.
    #[allow(clippy::needless_pass_by_value, reason = "a key is a few numbers")]
    fn spoil<K: redb::Key>(&self, table: &str, key: K::SelfType<'static>, spoil: impl Fn(&mut Vec<u8>)) {
        let database = redb::Database::open(self.0.join("relay.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(redb::TableDefinition::<K, &'static [u8]>::new(table)).unwrap();
            let mut value = table.get(&key).unwrap().unwrap().value().to_vec();
            spoil(&mut value);
            table.insert(&key, value.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[allow(clippy::needless_pass_by_value, reason = "a key is a few numbers")]
    fn remove<K: redb::Key>(&self, table: &str, key: K::SelfType<'static>) {
        let database = redb::Database::open(self.0.join("relay.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(redb::TableDefinition::<K, &'static [u8]>::new(table)).unwrap();
            assert!(table.remove(&key).unwrap().is_some());
        }
        transaction.commit().unwrap();
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.0, 0)
    }

    fn salvage(&self) -> (Vec<Salvaged>, Option<PathBuf>) {
        salvage(&self.0, None, || 4711).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Spoil = Box<dyn Fn(&Directory)>;

fn flip(value: &mut [u8]) {
    let middle = value.len() / 2;
    value[middle] ^= 16;
}

/// Every heap verifies; what was kept of each is the beginning of what was there, and those that were whole are as they were.
fn check(directory: &Directory, expected: &[Picture], salvaged: &[Salvaged], what: &str) {
    let store = directory.open().unwrap();
    for (heap, expected) in HEAPS.iter().zip(expected) {
        store.verify_heap(heap, |_| true).unwrap_or_else(|error| panic!("{what}: {heap}: {error}"));
        let shown = picture(&store, heap).unwrap();
        let Some(salvaged) = salvaged.iter().find(|salvaged| salvaged.heap == *heap) else {
            assert!(shown == *expected, "{what}: {heap} was whole");
            continue;
        };
        let recovered = &shown.recovered;
        assert_eq!(salvaged.head, recovered.head, "{what}");
        assert!(shown.log.iter().all(|entry| expected.log.contains(entry)), "{what}: {heap}: entries of its own");
        let (begins, start) = *recovered.epochs.last().unwrap();
        assert_eq!((begins.random, start), (4711, recovered.head), "{what}: a life begins");
        assert!(recovered.epochs.iter().all(|(_, start)| *start <= recovered.head), "{what}");
        // §2: of a line that is not kept nobody tells that it was there.
        assert_eq!(recovered.forgotten, recovered.head, "{what}");
        assert!(recovered.admit.iter().all(|(_, line)| line.at() < recovered.head.next()), "{what}");
        // Each line ends with its author's last commit in the log; one without a commit there is as it was, or gone.
        for (replica, line) in &recovered.admit {
            let before = expected.recovered.admit.iter().find(|(id, _)| id == replica).map(|(_, line)| line);
            assert!(line.last() <= before.unwrap().last(), "{what}: {heap}: a line ahead of its log");
            assert_eq!(before.unwrap().rows().find(|row| row.seq == line.last()), line.rows().last(), "{what}");
        }
    }
}

#[test]
fn a_store_that_is_whole_is_left_as_it_is() {
    let world = World::new(3, 8);
    let directory = Directory::with(&world.disk.medium());
    assert_eq!(directory.salvage(), (Vec::new(), None));
    let expected = whole(&open(&world.disk).unwrap());
    assert!(whole(&directory.open().unwrap()) == expected);
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 1);
}

#[test]
fn a_record_in_the_middle_ends_the_log_there_and_a_life_begins() {
    let mut world = World::new(3, 12);
    let medium = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
    let directory = Directory::with(&medium);
    // The third heap's log has all entries; rounds append 1, 2, 3, 1, … of them, each one record.
    directory.spoil::<(u64, u64)>("log", (2, 7), |value| flip(value));
    let store = directory.open().unwrap();
    assert!(matches!(store.verify_heap(HEAPS[2], |_| true), Err(StoreError::Damaged(_))));
    drop(store);
    let (salvaged, aside) = directory.salvage();
    assert_eq!((salvaged.len(), salvaged[0].head), (1, Offset(7)), "{salvaged:?}");
    assert!(aside.unwrap().is_file());
    check(&directory, &expected, &salvaged, "record");
    let store = directory.open().unwrap();
    let shown = picture(&store, HEAPS[2]).unwrap();
    assert_eq!(shown.log[..], expected[2].log[..7]);
    assert_eq!(shown.recovered.lineage, expected[2].recovered.lineage, "versions from before the damage still hold");
    assert_eq!(shown.recovered.epochs.len(), 2);
    // And life goes on: in the whole heaps from where they were.
    let appends: Vec<_> = world.growers.iter_mut().take(2).map(|grower| grower.grow(2)).collect();
    assert_eq!(store.append(&appends).unwrap(), [Appended::Written, Appended::Written]);
}

#[test]
fn whichever_row_is_damaged_or_missing_the_rest_is_kept() {
    let world = World::new(3, 12);
    let medium = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
    let author = expected[1].recovered.admit[0].0.0;
    let spoils: Vec<(&str, Spoil)> = vec![
        ("meta", Box::new(|d| d.spoil::<u64>("meta", 1, |value| flip(value)))),
        ("no meta", Box::new(|d| d.remove::<u64>("meta", 1))),
        ("epoch", Box::new(|d| d.spoil::<(u64, u64)>("epochs", (1, 0), |value| flip(value)))),
        ("no epoch", Box::new(|d| d.remove::<(u64, u64)>("epochs", (1, 0)))),
        ("line", Box::new(move |d| d.spoil::<(u64, [u8; 16])>("admit", (1, author), |value| flip(value)))),
        ("no line", Box::new(move |d| d.remove::<(u64, [u8; 16])>("admit", (1, author)))),
        ("segment", Box::new(|d| d.spoil::<(u64, u64)>("segments", (1, 1), |value| flip(value)))),
        ("no segment", Box::new(|d| d.remove::<(u64, u64)>("segments", (1, 0)))),
        ("clocks", Box::new(|d| d.spoil::<(u64, u64)>("clocks", (1, 0), |value| flip(value)))),
        ("no clocks", Box::new(|d| d.remove::<(u64, u64)>("clocks", (1, 0)))),
        ("snapshot's head", Box::new(|d| d.spoil::<(u64, u64)>("snaps", (1, 0), |value| flip(value)))),
        ("snapshot", Box::new(|d| d.spoil::<(u64, u64)>("snap", (1, 0), |value| flip(value)))),
        ("no snapshot", Box::new(|d| d.remove::<(u64, u64)>("snap", (1, 0)))),
        ("name", Box::new(|d| d.spoil::<&'static str>("heaps", HEAPS[1], |value| flip(value)))),
        ("no name", Box::new(|d| d.remove::<&'static str>("heaps", HEAPS[1]))),
    ];
    for (what, spoil) in spoils {
        let directory = Directory::with(&medium);
        spoil(&directory);
        let found = match directory.open() {
            Err(StoreError::Damaged(_)) => true,
            Err(other) => panic!("{what}: {other}"),
            Ok(store) => store.verify_heap(HEAPS[1], |_| true).is_err(),
        };
        assert!(found, "{what}: nobody notices");
        let (salvaged, _) = directory.salvage();
        assert_eq!(salvaged.len(), 1, "{what}: {salvaged:?}");
        assert_eq!(salvaged[0].heap, HEAPS[1], "{what}");
        check(&directory, &expected, &salvaged, what);
        let shown = picture(&directory.open().unwrap(), HEAPS[1]).unwrap();
        assert_eq!(shown.log, expected[1].log, "{what}: its log was whole");
        if what != "meta" && what != "no meta" && what != "epoch" && what != "no epoch" {
            assert_eq!(shown.recovered.lineage, expected[1].recovered.lineage, "{what}");
        }
        assert_ne!(shown.recovered.epochs.last().map(|(epoch, _)| *epoch), None::<EpochId>);
    }
}

/// Whatever bit is flipped: salvage ends, with a store that verifies, or with an error that changes nothing.
#[test]
fn salvage_after_any_flipped_bit_keeps_only_what_was_there() {
    let world = World::new(9, 12);
    let closed = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, closed.clone())).unwrap());
    // As a killed relay leaves it: the library is to repair it first, and does not if anything is damaged.
    let killed = {
        let disk = SimDisk::of(1, closed.clone());
        let store = open(&disk).unwrap();
        let mut append = Grower::new("first", 1, 1).grow(1);
        append.appends.clear();
        store.append(&[append]).unwrap();
        disk.kill();
        disk.medium()
    };
    let (refused, mended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (trials, seed) = (times("COHEAP_SALVAGES", 300), times("COHEAP_SEED", 5) as u64);
    each_of(trials, |trial| {
        let mut draws = Draws(seed << 32 | trial as u64);
        let medium = if trial % 2 == 0 { &closed } else { &killed };
        let bit = loop {
            let bit = draws.below(medium.len() * 8);
            if medium[bit / 8 / 4096 * 4096..].iter().take(4096).any(|byte| *byte != 0) {
                break bit;
            }
        };
        let mut flipped = medium.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let directory = Directory::with(&flipped);
        match salvage(&directory.0, None, || 4711) {
            Ok((salvaged, aside)) => {
                mended.fetch_add(usize::from(aside.is_some()), Relaxed);
                check(&directory, &expected, &salvaged, &format!("bit {bit}"));
            }
            Err(StoreError::Damaged(_) | StoreError::Format(_) | StoreError::Failed(_)) => {
                refused.fetch_add(1, Relaxed);
                assert_eq!(
                    std::fs::read(directory.0.join("relay.redb")).unwrap(),
                    flipped,
                    "bit {bit}: it was changed"
                );
                assert!(directory.0.join("relay.redb").is_file());
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    });
    eprintln!("{trials} flips: {mended:?} mended, {refused:?} refused");
    assert!(mended.into_inner() > 0);
}

/// A damaged page stops the store of a killed relay, because the library repairs before anything else; looking at it changes
/// nothing, and salvage brings all other heaps back.
#[test]
fn a_killed_and_damaged_store_is_looked_at_unchanged_and_salvaged() {
    let mut world = World::new(9, 12);
    let expected = whole(&open(&SimDisk::of(1, world.disk.medium())).unwrap());
    let disk = SimDisk::of(1, world.disk.medium());
    let store = open(&disk).unwrap();
    for _ in 0..3 {
        store.append(&[world.growers[0].grow(1)]).unwrap();
    }
    let first = picture(&store, HEAPS[0]).unwrap();
    disk.kill();
    drop(store);
    let mut medium = disk.medium();
    let mut entry = Vec::new();
    expected[2].log[10].1.encode(&mut entry);
    let places = medium.windows(entry.len()).enumerate().filter(|(_, bytes)| *bytes == &entry[..]);
    for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
        medium[at] ^= 1;
    }
    let directory = Directory::with(&medium);
    assert!(matches!(directory.open(), Err(StoreError::Damaged(_))));
    std::fs::write(directory.0.join("relay.redb"), &medium).unwrap();
    let looked = Store::open_to_read(&directory.0).unwrap();
    assert!(matches!(looked.check_file(), Err(StoreError::Damaged(_))));
    for heap in HEAPS.iter().take(2) {
        looked.verify_heap(heap, |_| true).unwrap();
    }
    assert!(matches!(looked.verify_heap(HEAPS[2], |_| true), Err(StoreError::Damaged(_))));
    drop(looked);
    assert_eq!(std::fs::read(directory.0.join("relay.redb")).unwrap(), medium);
    let (salvaged, _) = directory.salvage();
    assert_eq!(salvaged.len(), 1);
    let store = directory.open().unwrap();
    assert_eq!(picture(&store, HEAPS[0]).unwrap(), first);
    assert_eq!(picture(&store, HEAPS[1]).unwrap(), expected[1]);
    let kept = picture(&store, HEAPS[2]).unwrap().log;
    assert!(!kept.is_empty() && expected[2].log.starts_with(&kept));
}

/// R12: no state has what was left out, the store is whole without it, and it stays out when the index is made again.
#[test]
fn r12_what_was_left_out_stays_out() {
    let (heap, disk) = (std::sync::Arc::<str>::from("h"), SimDisk::new(3));
    let store = Store::open_on(Box::new(disk.clone()), 0).unwrap();
    let mut grower = Grower::new("h", 5, 1);
    assert_eq!(store.append(&[grower.grow(12)]).unwrap(), [Appended::Written]);
    let (segment, head) = (SegmentNumber(0), grower.head());
    let offsets = |store: &Store| -> Vec<Offset> {
        store.read_tail("h", segment, Offset(head.0 + 1)).unwrap().1.into_iter().map(|(offset, _)| offset).collect()
    };
    let all = offsets(&store);
    let [first, bad, later, ..] = all[..] else { panic!("{all:?}") };
    let entry = StoredQuarantine {
        segment,
        generation: GenId::default(),
        offset: bad,
        client: None,
        later: StoredQuarantine::behind(bad, [later]),
    };
    let mut bytes = Vec::new();
    LogEntry::Quarantine(entry).encode(&mut bytes);
    let (entries, skipped) = (vec![bytes.into()], vec![(segment, bad), (segment, later)]);
    let append = Append { first: head, entries, skipped, ..Append::default() };
    assert_eq!(store.append(&[HeapAppend { heap, appends: vec![append] }]).unwrap(), [Appended::Written]);
    let left: Vec<Offset> = all.iter().copied().filter(|offset| ![bad, later].contains(offset)).collect();
    assert_eq!(offsets(&store), left);
    store.verify_heap("h", |_| true).unwrap();
    assert_eq!(store.recover("h").unwrap().segments[0].tail.deltas, left.len() as u64);
    drop(store);
    let directory = Directory::with(&disk.medium());
    directory.spoil::<(u64, u64, u64)>("segidx", (0, 0, first.0), |value| flip(value));
    assert_eq!(directory.salvage().0.len(), 1);
    let store = directory.open().unwrap();
    store.verify_heap("h", |_| true).unwrap();
    assert_eq!(offsets(&store), left);
}

/// R12, G1, D4: generations, adopted or made here, and parts that are left out, before and behind them.
#[test]
fn r12_what_was_left_out_and_generations_are_kept_together() {
    let segment = SegmentNumber(0);
    for adopts in [false, true] {
        let disk = SimDisk::new(11);
        let mut grower = Grower::new("both", 5, 1);
        let store = open(&disk).unwrap();
        let put = |append: HeapAppend| assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
        put(grower.grow(4));
        put(grower.leave_out(segment, &[Offset(1), Offset(2)]));
        put(grower.grow(1));
        put(if adopts {
            grower.adopt(segment, b"a fresh document")
        } else {
            grower.roll(segment, b"a fresh document")
        });
        put(grower.grow(4));
        put(grower.leave_out(segment, &[Offset(8), Offset(10)]));
        put(grower.grow(1));
        let before = picture(&store, "both").unwrap();
        let offsets = |store: &Store| -> Vec<Offset> {
            store.read_tail("both", segment, grower.head()).unwrap().1.into_iter().map(|(offset, _)| offset).collect()
        };
        assert_eq!(offsets(&store), [7, 9, 12].map(Offset));
        drop(store);
        let spoils: [(&str, Spoil); 3] = [
            ("index", Box::new(|d| d.spoil::<(u64, u64, u64)>("segidx", (0, 0, 9), |value| flip(value)))),
            ("snapshot", Box::new(|d| d.spoil::<(u64, u64)>("snap", (0, 0), |value| flip(value)))),
            (
                "snapshot and clocks",
                Box::new(|d| {
                    d.remove::<(u64, u64)>("snap", (0, 0));
                    d.remove::<(u64, u64)>("clocks", (0, 0));
                }),
            ),
        ];
        for (what, spoil) in spoils {
            let directory = Directory::with(&disk.medium());
            spoil(&directory);
            assert_eq!(directory.salvage().0.len(), 1, "{what}");
            let store = directory.open().unwrap();
            store.verify_heap("both", |_| true).unwrap();
            let after = picture(&store, "both").unwrap();
            assert!(after.states == before.states, "{what}, adopts {adopts}: {:?}", after.states);
            assert_eq!(offsets(&store), [7, 9, 12].map(Offset), "{what}");
            let generation = |picture: &Picture| picture.recovered.segments[0].generation;
            assert_eq!(generation(&after), generation(&before), "{what}");
        }
    }
}

/// D4, D6: what a lost log had acknowledged, and what its replicas hold, whether the log still has the entry that says so or not.
#[test]
fn d4_what_replicas_have_given_back_is_known_of_their_lines_after_salvage() {
    for (folded, shortened) in [(false, false), (true, false), (false, true), (true, true)] {
        let disk = SimDisk::new(13);
        let mut grower = Grower::new("given", 5, 1);
        let store = open(&disk).unwrap();
        let put = |append: HeapAppend| assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
        put(grower.grow(10));
        put(grower.give_back(3, 2, 4_000));
        let entry = Offset(grower.head().0 - 1);
        put(grower.grow(1));
        let given = grower.head();
        let mut before = picture(&store, "given").unwrap();
        if folded {
            store.fold("given", SegmentNumber(0), given, Offset(u64::MAX), b"a snapshot").unwrap();
            assert!(store.recover("given").unwrap().floor > entry);
        }
        put(grower.grow(2));
        if !shortened {
            before = picture(&store, "given").unwrap();
        }
        drop(store);
        let directory = Directory::with(&disk.medium());
        match shortened {
            true => directory.spoil::<(u64, u64)>("log", (0, given.0), |value| flip(value)),
            false => directory.spoil::<(u64, u64)>("epochs", (0, 0), |value| flip(value)),
        }
        assert_eq!(directory.salvage().0.len(), 1);
        let after = picture(&directory.open().unwrap(), "given").unwrap().recovered;
        assert_eq!(after.head, if shortened { given } else { grower.head() });
        assert_eq!(after.roll_hold_ms, 4_000, "X15");
        let told = before.recovered.admit.iter().filter(|(_, line)| line.lists_any() || !line.hollow().is_empty());
        let told: Vec<_> = told.collect();
        assert!(!told.is_empty());
        // Of what is folded away, and of a log that has lost its end, only what was in the rows is known.
        for (replica, line) in told.into_iter().filter(|_| !(folded && shortened)) {
            let kept = after.admit.iter().find(|(of, _)| of == replica).map(|(_, line)| line);
            assert_eq!(kept, Some(line), "folded {folded}, shortened {shortened}");
        }
        // The row that says until when no generation is made may be lost as well.
        let directory = Directory::with(&disk.medium());
        directory.spoil::<u64>("meta", 0, |value| flip(value));
        directory.salvage();
        let after = picture(&directory.open().unwrap(), "given").unwrap().recovered;
        assert_eq!(after.roll_hold_ms, 7 + ROLL_HOLD_MS);
    }
}

/// A line lists no more commits than its row may have, whoever gave them back: the rest of the heap is kept.
#[test]
fn d4_more_commits_than_a_line_may_list_do_not_stop_a_salvage() {
    let disk = SimDisk::new(19);
    let mut grower = Grower::new("given", 5, 1);
    let store = open(&disk).unwrap();
    for append in [grower.grow(10)].into_iter().chain((0..7).map(|_| grower.give_back(3, 30_000, 4_000))) {
        assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
    }
    let lines = picture(&store, "given").unwrap().recovered.admit;
    drop(store);
    let directory = Directory::with(&disk.medium());
    for (owner, _) in lines {
        directory.spoil::<(u64, [u8; 16])>("admit", (0, owner.0), |value| flip(value));
    }
    assert_eq!(directory.salvage().0.len(), 1);
    directory.open().unwrap().verify_heap("given", |_| true).unwrap();
}

/// R1, D1: where a segment has more than the kept log, or less, nobody resumes at a position: who holds the rest gives it back, and
/// everybody is sent what there is. One whose log tells all of a lost snapshot is not in doubt.
#[test]
fn r1_nobody_resumes_where_a_snapshot_is_ahead_of_the_log_or_lost() {
    for (what, folds, positions_hold) in [
        ("a record behind the snapshot", true, true),
        ("a record before the snapshot's position", true, false),
        ("the snapshot", true, false),
        ("the snapshot of a generation that the log begins", false, true),
    ] {
        let disk = SimDisk::new(17);
        let mut grower = Grower::new("more", 5, 1);
        let segment = SegmentNumber(0);
        let store = open(&disk).unwrap();
        let put = |append: HeapAppend| assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
        put(grower.grow(6));
        let kept = grower.head();
        put(grower.grow(4));
        store.fold("more", segment, kept, Offset(u64::MAX), b"a snapshot").unwrap();
        let folded = grower.head();
        match folds {
            // Somebody's stream needs the log from further back.
            true => drop(store.fold("more", segment, folded, kept, b"a later snapshot").unwrap()),
            false => put(grower.roll(segment, b"a fresh document")),
        }
        let end = grower.head();
        put(grower.grow(2));
        assert_eq!(store.recover("more").unwrap().floor, kept);
        drop(store);
        let directory = Directory::with(&disk.medium());
        match what {
            "a record behind the snapshot" => directory.spoil::<(u64, u64)>("log", (0, end.0), |value| flip(value)),
            "a record before the snapshot's position" => {
                directory.spoil::<(u64, u64)>("log", (0, kept.0), |value| flip(value));
            }
            _ => directory.spoil::<(u64, u64)>("snap", (0, 0), |value| flip(value)),
        }
        directory.salvage();
        let epochs = picture(&directory.open().unwrap(), "more").unwrap().recovered.epochs;
        assert_eq!(epochs.len(), 1 + usize::from(positions_hold), "{what}");
        assert_eq!(epochs.last().unwrap().0.random, 4711);
    }
}

/// A generation whose snapshot is lost is made again of its Roll, as long as the log has that.
#[test]
fn g1_a_generation_is_kept_with_its_document_or_made_again_of_its_roll() {
    for lost in [false, true] {
        let disk = SimDisk::new(9);
        let mut grower = Grower::new("rolled", 5, 1);
        let segment = coheap_core::id::SegmentNumber(0);
        let store = open(&disk).unwrap();
        for append in [grower.grow(10), grower.roll(segment, b"a fresh document"), grower.grow(3)] {
            assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
        }
        let before = picture(&store, "rolled").unwrap();
        drop(store);
        let directory = Directory::with(&disk.medium());
        match lost {
            true => directory.spoil::<(u64, u64)>("snap", (0, 0), |value| flip(value)),
            false => directory.spoil::<(u64, u64)>("clocks", (0, 0), |value| flip(value)),
        }
        let (salvaged, _) = directory.salvage();
        assert_eq!(salvaged.len(), 1);
        let after = picture(&directory.open().unwrap(), "rolled").unwrap();
        assert!(after.states == before.states, "lost {lost}: {:?}", after.states);
        assert_eq!(after.recovered.segments[0].generation, before.recovered.segments[0].generation);
    }
}
