//! The relay among workers that die, hang, eat memory or lie: each costs itself, and a fold that is not stored. The relay goes
//! on serving, the log stays, and an honest worker folds afterwards.
//!
//! This program is its own worker: the relay starts it under names that say how it behaves. So it has no test harness.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod client;
#[path = "../it/process.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod process;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coheap_core::id::*;
use coheap_core::wire::frame::{Down, Up};
use coheap_sync_server::auth::Auth;
use coheap_sync_server::config::{Config, Worker};
use coheap_sync_server::{Store, run, worker};
use coheap_tests::disk_backend::SimDisk;
use tokio::net::TcpListener;

use crate::client::{Client, Writer, hello};

/// What a worker notes: each of its starts, and more memory than it may have.
const STARTS: &str = "starts";
const ATE_TOO_MUCH: &str = "ate-too-much";
/// Enough that a segment is folded.
const COMMITS: u64 = 300;
const MEMORY_BYTES: u64 = 512 << 20;

fn main() {
    let program = PathBuf::from(std::env::args().next().unwrap());
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return behave(&program);
    }
    // As a harness does: a test runner may ask what there is.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    // A filter that is not about this.
    if std::env::args().skip(1).any(|filter| !filter.starts_with('-') && !"worker".contains(&filter)) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (kind, within) in [("dies", 60), ("hangs", 1), ("hangs", 60), ("eats", 60), ("lies", 60), ("babbles", 60)] {
        let begun = Instant::now();
        runtime.block_on(a_bad_worker_costs_itself(kind, Duration::from_secs(within)));
        eprintln!("test a worker that {kind} costs itself ... ok in {:?}", begun.elapsed());
    }
    let _ = std::fs::remove_dir_all(links());
}

/// What this program does as a worker. Beside its name it notes that it was started, and that it had more than it may.
fn behave(program: &Path) {
    let note = |ending| OpenOptions::new().create(true).append(true).open(program.with_extension(ending)).unwrap();
    note(STARTS).write_all(b"x").unwrap();
    match program.file_name().unwrap().to_str().unwrap() {
        "dies" => {
            let mut byte = [0];
            let _ = std::io::stdin().read_exact(&mut byte);
            std::process::abort();
        }
        "hangs" => std::thread::sleep(Duration::from_secs(3600)),
        "eats" => {
            let mut eaten = Vec::new();
            while eaten.len() as u64 * (16 << 20) <= MEMORY_BYTES {
                // Written to, so that it is really there.
                eaten.push(vec![7_u8; 16 << 20]);
            }
            note(ATE_TOO_MUCH).write_all(b"x").unwrap();
            std::thread::sleep(Duration::from_secs(3600));
        }
        "babbles" => {
            let _ = std::io::stdout().write_all(&[0xff; 64]);
            let _ = std::io::stdout().flush();
            std::thread::sleep(Duration::from_secs(3600));
        }
        "lies" => lie(),
        _ => worker::serve().unwrap(),
    }
}

/// Makes whole snapshots, of all but the last delta; says honestly whether one is right.
fn lie() {
    let (mut requests, mut answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut length = [0; 4];
        if requests.read_exact(&mut length).is_err() {
            return;
        }
        let mut request = vec![0; u32::from_le_bytes(length) as usize];
        requests.read_exact(&mut request).unwrap();
        let answer = match request[0] {
            0 => worker::answer(&Bytes::from(worker::without_last_delta(&Bytes::from(request))), |_| ()),
            _ => worker::answer(&Bytes::from(request), |_| ()),
        };
        answers.write_all(&u32::try_from(answer.len()).unwrap().to_le_bytes()).unwrap();
        answers.write_all(&answer).unwrap();
        answers.flush().unwrap();
    }
}

/// Where this program has its other names.
fn links() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("workers-{}", std::process::id()))
}

/// Starts a relay in this process with a worker of this name.
async fn relay(disk: &SimDisk, kind: &str, within: Duration) -> (SocketAddr, impl Future<Output = ()>) {
    let links = links();
    std::fs::create_dir_all(&links).unwrap();
    let program = links.join(kind);
    if !program.exists() {
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let worker = Some(Worker { program, within, memory_bytes: MEMORY_BYTES });
    let config =
        Config { listen, data: links, auth: Auth::None, min_free_bytes: 0, worker, scrub: None, restored: false };
    let store = Arc::new(Store::open_on(Box::new(disk.clone()), 0).unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(run(listener, config, store, async { drop(stopped.await) }));
    let end = async move {
        drop(stop);
        served.await.unwrap().unwrap();
    };
    (listen, end)
}

/// How many deltas of the root lie in the log: 0 after a fold of all.
fn unfolded(disk: &SimDisk) -> u64 {
    let store = Store::open_on(Box::new(SimDisk::of(0, disk.medium())), 0).unwrap();
    store.recover("h").unwrap().segments[0].tail.deltas
}

async fn a_bad_worker_costs_itself(kind: &str, within: Duration) {
    let disk = SimDisk::new(1);
    let (address, end) = relay(&disk, kind, within).await;
    let (mut client, _) = Client::hello(&format!("ws://{address}/heap/h"), hello(1)).await;
    let mut writer = Writer::new(1);
    for _ in 0..COMMITS {
        let commit = writer.commit(SegmentId::ROOT);
        client.send(&[commit]).await;
    }
    client.acked(COMMITS).await;
    // Long enough for the fold to fail; the relay serves all the while.
    let begun = Instant::now();
    for nonce in 0.. {
        client.send(&[Up::Ping { nonce: Nonce(nonce) }]).await;
        client.find(|frame| (frame == Down::Pong { nonce: Nonce(nonce) }).then_some(())).await;
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let commit = writer.commit(SegmentId::ROOT);
    client.send(&[commit]).await;
    client.acked(COMMITS + 1).await;
    drop(client);
    end.await;
    assert_eq!(unfolded(&disk), COMMITS + 1, "a worker that {kind} has folded something");
    let noted = |ending| std::fs::read(links().join(kind).with_extension(ending)).unwrap_or_default().len();
    // Of one that hangs the relay waits for the end of its time, and then starts another.
    let starts = noted(STARTS);
    let waits = kind == "hangs" && within > Duration::from_secs(3);
    assert!(
        if waits { starts == 1 } else { starts > 1 },
        "of those that {kind}, {within:?} at a time, {starts} started"
    );
    assert_eq!(noted(ATE_TOO_MUCH), 0, "a worker had more memory than it may");
    let _ = std::fs::remove_file(links().join(kind).with_extension(STARTS));
    // Killed, it takes a moment to be gone.
    for tries in 0.. {
        if workers_left(kind) == 0 {
            break;
        }
        assert!(tries < 100, "a worker that {kind} is left behind");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let (address, end) = relay(&disk, "honest", Duration::from_secs(60)).await;
    let (mut client, _) = Client::hello(&format!("ws://{address}/heap/h"), hello(2)).await;
    let mut writer = Writer::new(2);
    let begun = Instant::now();
    let mut made = 0;
    while unfolded(&disk) > COMMITS / 2 {
        let commit = writer.commit(SegmentId::ROOT);
        client.send(&[commit]).await;
        made += 1;
        client.acked(made).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "an honest worker folds after one that {kind}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(client);
    end.await;
}

/// Children of this process that run under this name.
fn workers_left(kind: &str) -> usize {
    let own = std::process::id().to_string();
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        // pid (comm) state ppid
        let rest = stat.rsplit_once(") ")?.1;
        let (mut fields, comm) = (rest.split(' '), stat.split_once('(')?.1.split_once(')')?.0.to_owned());
        let (state, parent) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        (parent == own && comm == kind && state != "Z").then_some(())
    });
    children.count()
}
