//! `coheap-relay store …`, on the store that a relay has left.

use coheap_core::id::*;
use coheap_core::wire::frame::Up;

use crate::client::{Client, Writer, back, hello_to};
use crate::process::{Directory, Relay, program};

/// Runs a tool: exit code, stdout, stderr.
pub fn tool(arguments: &[&str], directory: &Directory) -> (Option<i32>, String, String) {
    let output = program().arg("store").args(arguments).arg(&directory.0).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Puts rubbish in the place of the record of the log that begins at this entry. Heaps are numbered from 0, as they were made.
pub fn damage(directory: &Directory, heap: u64, entry: u64) {
    let database = redb::Database::create(directory.0.join("relay.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut log = transaction.open_table(redb::TableDefinition::<(u64, u64), &[u8]>::new("log")).unwrap();
    assert!(log.insert((heap, entry), &b"rubbish"[..]).unwrap().is_some(), "a record begins there");
    drop(log);
    transaction.commit().unwrap();
}

/// Two heaps with some commits each, and the life of the log that they were made in.
async fn filled(directory: &Directory) -> EpochId {
    let relay = Relay::start(directory);
    let mut epoch = EpochId::default();
    for (id, heap) in [(1, "good"), (2, "bad")] {
        let (mut client, welcome) = Client::join(&relay, heap, id).await;
        epoch = welcome.epochs.last().map_or(epoch, |(epoch, _)| *epoch);
        let mut writer = Writer::new(id);
        for n in 1..=40 {
            let commit = writer.commit_of(SegmentId::ROOT, 500);
            client.send(&[commit]).await;
            client.acked(n).await;
        }
    }
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    epoch
}

#[tokio::test]
async fn a_store_is_verified_dumped_and_compacted() {
    let directory = Directory::new();
    filled(&directory).await;
    let (code, out, err) = tool(&["verify"], &directory);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("file: whole\n"), "{out}");
    assert!(out.contains("heap \"good\": whole, entries 0 to 40, "), "{out}");

    let (code, out, _) = tool(&["dump", "--heap", "bad"], &directory);
    assert_eq!((code, out.lines().count()), (Some(0), 40));
    let first = out.lines().next().unwrap();
    assert!(first.starts_with(r#"{"heap":"bad","offset":0,"kind":"commit","author":""#), "{first}");
    assert!(first.contains(r#","seq":1,"uid":"0000000200000001","name":"replica 2","subject":"","#), "{first}");
    assert!(first.contains(r#""parts":[{"segment":0,"kind":"delta","bytes":"#), "{first}");
    assert_eq!(tool(&["dump"], &directory).1.lines().count(), 80);

    let (code, out, _) = tool(&["verify", "--heap", "nobody"], &directory);
    assert_eq!((code, out.contains("there is no such heap")), (Some(1), true), "{out}");

    let (code, out, _) = tool(&["compact"], &directory);
    assert_eq!(code, Some(0));
    let numbers: Vec<u64> = out.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[1] <= numbers[0], "{out}");
    assert_eq!(tool(&["verify"], &directory).0, Some(0));
    let (code, out, _) = tool(&["salvage"], &directory);
    assert_eq!((code, out.as_str()), (Some(0), "nothing is damaged\n"));
}

#[tokio::test]
async fn tools_leave_a_store_alone_that_a_relay_has_open_and_make_none() {
    let directory = Directory::new();
    for what in ["verify", "dump", "compact", "salvage"] {
        let (code, _, err) = tool(&[what], &directory);
        assert_eq!(code, Some(3), "{what}: {err}");
        assert!(err.contains("there is no store"), "{err}");
    }
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0);
    let relay = Relay::start(&directory);
    for what in ["verify", "dump", "compact", "salvage"] {
        let (code, _, err) = tool(&[what], &directory);
        assert_eq!(code, Some(3), "{what}: {err}");
        assert!(err.contains("in use by another relay"), "{err}");
    }
    relay.kill();
}

/// From damage to a heap that is served again: noticed, closed with 4016, salvaged; a replica that had more is not taken for
/// one that has less.
#[tokio::test]
async fn a_damaged_heap_is_salvaged_and_served_again() {
    let directory = Directory::new();
    let epoch = filled(&directory).await;
    damage(&directory, 1, 25);
    let (code, out, _) = tool(&["dump", "--heap", "bad"], &directory);
    assert_eq!((code, out.lines().count()), (Some(1), 25), "all before it");
    let (code, out, _) = tool(&["verify"], &directory);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("heap \"bad\": damaged: "), "{out}");
    assert!(out.contains("heap \"good\": whole"), "{out}");
    let relay = Relay::start(&directory);
    let mut client = Client::connect(&relay.heap("bad")).await;
    client.send(&[Up::Hello(hello_to("bad", 3))]).await;
    assert_eq!(client.closed().await.0, 4016);
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));

    let (code, out, err) = tool(&["salvage"], &directory);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("kept up to entry 25\n") && out.contains("lost: entries 25 to 40\n"), "{out}");
    assert!(directory.0.join("relay.redb.damaged-1").is_file());
    assert_eq!(tool(&["verify"], &directory).0, Some(0));

    let relay = Relay::start(&directory);
    let (_, welcome) = Client::hello(&relay.heap("bad"), hello_to("bad", 4)).await;
    assert_eq!(welcome.position, Offset(25));
    let (_, welcome) = Client::join(&relay, "good", 5).await;
    assert_eq!(welcome.position, Offset(40));
    // R1: it has 40 entries of an epoch that now ends at 25, so it is asked to give back what it has (salvage.rs does).
    let ahead = coheap_core::wire::frame::up::Hello { heap: "bad".into(), ..back(2, epoch, 40) };
    let (_, welcome) = Client::hello(&relay.heap("bad"), ahead).await;
    assert!(welcome.restore, "it is ahead of the log");
    assert_eq!(welcome.position, Offset(25));
    // One that has what was kept, and no more, goes on from there.
    let behind = coheap_core::wire::frame::up::Hello { heap: "bad".into(), ..back(6, epoch, 25) };
    let (_, welcome) = Client::hello(&relay.heap("bad"), behind).await;
    assert_eq!((welcome.restore, welcome.position), (false, Offset(25)));
}
