//! The data directory of a real relay is lost, or put back as it was earlier, under three replicas that hold the data.

use std::path::Path;
use std::time::Duration;

use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::SegmentId;
use coheap_core::replica::WaitKind;
use tokio::time::timeout;

use crate::peer::{COUNTER, Peer};
use crate::process::{Directory, Relay, program};

/// A relay at a port of its own choice at first, and the same one afterwards.
fn start(directory: &Path, address: &str, flags: &[&str]) -> Relay {
    let mut command = program();
    command.arg("--listen").arg(address).arg("--data").arg(directory).args(flags);
    Relay::spawn(command)
}

fn address(relay: &Relay) -> String {
    relay.url.strip_prefix("ws://").unwrap().to_owned()
}

/// Three replicas that have each counted ten times, and hold it all; the relay's directory as it was after the first ten.
async fn filled(directory: &Directory, earlier: &Directory) -> (Relay, Vec<Peer>) {
    let relay = start(&directory.0, "127.0.0.1:0", &[]);
    let url = relay.heap("h");
    let mut first = Peer::open(1, &url).await;
    first.write(vec![Wish::Set { object: Handle(0), key: COUNTER.into(), value: Literal::Counter(0.0) }]).await;
    for n in 0..10 {
        first.count(&format!("key 1.{n}")).await;
    }
    first.wait(WaitKind::Flush).await;
    // A copy of a stopped relay's store, as a backup is.
    let at = address(&relay);
    first.lose().await;
    relay.kill();
    std::fs::copy(directory.0.join("relay.redb"), earlier.0.join("relay.redb")).unwrap();
    let relay = start(&directory.0, &at, &[]);
    first.connect(&url).await;
    let mut peers = vec![first, Peer::open(2, &url).await, Peer::open(3, &url).await];
    for (at, peer) in peers.iter_mut().enumerate().skip(1) {
        for n in 0..10 {
            peer.count(&format!("key {}.{n}", at + 1)).await;
        }
        peer.wait(WaitKind::Flush).await;
    }
    for peer in &mut peers {
        peer.wait(WaitKind::Sync).await;
    }
    (relay, peers)
}

/// Everybody loses the relay, and it is killed. Its address, for the next one.
async fn kill(relay: Relay, peers: &mut [Peer]) -> String {
    let at = address(&relay);
    for peer in peers {
        peer.lose().await;
    }
    relay.kill();
    at
}

/// Everything is back: at those who were there, and at one who comes anew.
async fn check(url: &str, peers: &mut [Peer], count: usize) {
    for peer in peers.iter_mut() {
        peer.wait(WaitKind::Flush).await;
    }
    for peer in peers.iter_mut() {
        peer.wait(WaitKind::Sync).await;
    }
    let mut fresh = Peer::open(9, url).await;
    let values = fresh.values(SegmentId::ROOT);
    for at in 1..=3 {
        for n in 0..10 {
            assert!(values.contains(&format!("key {at}.{n}")), "key {at}.{n} in {values}");
        }
    }
    for peer in peers.iter_mut() {
        assert_eq!(peer.values(SegmentId::ROOT), values);
    }
    let shown = fresh.replica.document(SegmentId::ROOT).unwrap().show();
    let total = shown.iter().find_map(|patch| match patch {
        coheap_core::edit::Patch::Total { value, .. } => Some(*value),
        _ => None,
    });
    assert_eq!(total, Some(count as f64), "{shown:?}");
}

#[tokio::test]
async fn what_a_deleted_data_directory_held_is_put_back_by_three_replicas() {
    let (directory, earlier) = (Directory::new(), Directory::new());
    let (relay, mut peers) = filled(&directory, &earlier).await;
    let url = relay.heap("h");
    let at = kill(relay, &mut peers).await;
    std::fs::remove_dir_all(&directory.0).unwrap();
    // One of them writes while there is no relay.
    peers[1].count("late").await;
    let relay = start(&directory.0, &at, &[]);
    for peer in &mut peers {
        peer.connect(&url).await;
    }
    check(&url, &mut peers, 31).await;
    relay.kill();
}

#[tokio::test]
async fn what_an_earlier_copy_of_the_store_lacks_is_put_back_by_three_replicas() {
    let (directory, earlier) = (Directory::new(), Directory::new());
    let (relay, mut peers) = filled(&directory, &earlier).await;
    let url = relay.heap("h");
    let at = kill(relay, &mut peers).await;
    std::fs::copy(earlier.0.join("relay.redb"), directory.0.join("relay.redb")).unwrap();
    peers[2].count("late").await;
    let relay = start(&directory.0, &at, &[]);
    for peer in peers.iter_mut().rev() {
        peer.connect(&url).await;
    }
    check(&url, &mut peers, 31).await;
    // What was restored outlives the relay.
    let at = kill(relay, &mut peers).await;
    let relay = start(&directory.0, &at, &[]);
    for peer in &mut peers {
        peer.connect(&url).await;
    }
    check(&url, &mut peers, 31).await;
    relay.kill();
}

/// D7: it takes what the backup lacks, and no commits yet.
#[tokio::test]
async fn a_relay_told_that_it_was_restored_takes_restores_first() {
    let (directory, earlier) = (Directory::new(), Directory::new());
    let (relay, mut peers) = filled(&directory, &earlier).await;
    let url = relay.heap("h");
    let at = kill(relay, &mut peers).await;
    let relay = start(&earlier.0, &at, &["--restored"]);
    for peer in &mut peers {
        peer.connect(&url).await;
        peer.wait(WaitKind::Sync).await;
    }
    check(&url, &mut peers, 30).await;
    peers[0].count("not yet").await;
    let written = timeout(Duration::from_secs(3), peers[0].wait(WaitKind::Flush)).await;
    assert!(written.is_err(), "a commit is admitted at once");
    relay.kill();
}
