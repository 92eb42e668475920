//! How the program starts and ends: first line, exit codes, signals.

use std::os::unix::fs::PermissionsExt;

use coheap_core::id::SegmentId;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Down, Up};
use redb::{ReadableDatabase, ReadableTableMetadata, TableHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, Writer, hello, hello_to};
use crate::process::{Directory, Relay, program, run_with};

fn data(directory: &Directory) -> String {
    directory.0.display().to_string()
}

#[tokio::test]
async fn it_says_where_it_listens_answers_health_and_ends_with_0_on_sigterm() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let address = relay.url.strip_prefix("ws://").unwrap();
    let mut http = tokio::net::TcpStream::connect(address).await.unwrap();
    http.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (mut client, _) = Client::join(&relay, "h", 1).await;
    let commit = Writer::new(1).commit(SegmentId::ROOT);
    client.send(&[commit]).await;
    client.acked(1).await;
    relay.terminate();
    assert_eq!(client.closed().await, (1012, "the relay is stopping".to_owned()));
    assert_eq!(relay.wait(), Some(0));
}

/// Ends at once with this code, and says on one line what is wrong, with this word in it.
fn check(arguments: &[&str], expected: i32, word: &str) {
    check_with(&[], arguments, expected, word);
}

fn check_with(environment: &[(&str, &str)], arguments: &[&str], expected: i32, word: &str) {
    let (code, errors) = run_with(environment, arguments);
    assert_eq!(code, Some(expected), "{environment:?} {arguments:?}: {errors}");
    assert!(errors.contains(word), "{environment:?} {arguments:?}: {errors}");
    assert!(errors.starts_with("coheap-relay: "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{environment:?} {arguments:?}: {errors}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let directory = Directory::new();
    let data = data(&directory);
    let file = |name: &str, text: &str| {
        let path = directory.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    check(&["--wrong"], 2, "--wrong");
    check(&["wrong"], 2, "wrong");
    check(&["--listen"], 2, "--listen");
    check(&["--listen", "nowhere"], 2, "nowhere");
    check(&["--auth", "perhaps"], 2, "token");
    check(&["--min-free-mb", "-3"], 2, "-3");
    check(&["--data", &data, "--data", &data], 2, "--data");
    check(&[], 2, "--data");
    check(&["--data", &data, "--listen", "0.0.0.0:0"], 2, "--token-file");
    check(&["--data", &data, "--auth", "token"], 2, "--token-file");
    check(&["--data", &data, "--token-file", "/nowhere/tokens"], 2, "/nowhere/tokens");
    check(&["--data", &data, "--token-file", &file("tokens", "lonely\n")], 2, "line 1");
    check(&["--data", &data, "--config", "/nowhere/config"], 2, "/nowhere/config");
    check(&["--data", &data, "--config", &file("unknown", "listen = \"127.0.0.1:0\"\nspeed = 9\n")], 2, "speed");
    check(&["--data", &data, "--config", &file("value", "listen = nowhere\n")], 2, "line 1");
    check(&["--data", &data, "--config", &file("words", "listen\n")], 2, "name = value");
    check_with(&[("COHEAP_LISTEN", "nowhere")], &["--data", &data], 2, "nowhere");
    check_with(&[("COHEAP_AUTH", "perhaps")], &["--data", &data], 2, "perhaps");
    check_with(&[("COHEAP_MIN_FREE_MB", "much")], &["--data", &data], 2, "much");
    // Nothing was begun.
    assert!(!directory.0.join("relay.redb").exists());
}

#[test]
fn every_flag_has_an_environment_variable_and_help_says_which() {
    let help = program().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--") && !matches!(*word, "--help" | "--version"))
        .collect();
    assert!(flags.len() >= 6, "{help}");
    for flag in flags {
        let name = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
        assert!(help.contains(&format!("[env: COHEAP_{name}=")), "{flag}: {help}");
    }
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let directory = Directory::new();
    let file = |name: &str, text: &str| {
        let path = directory.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tokens = file("tokens", "secret alice\n");
    let config = file("config", "listen = 192.0.2.1:1\ndata = /proc/nowhere\nmin-free-mb = 1000000000\n");
    let mut command = program();
    command.arg("--listen").arg("127.0.0.1:0").env("COHEAP_LISTEN", "192.0.2.2:2").env("COHEAP_DATA", &directory.0);
    command.env("COHEAP_CONFIG", config).env("COHEAP_AUTH", "token").env("COHEAP_TOKEN_FILE", tokens);
    let relay = Relay::spawn(command);
    assert!(directory.0.join("relay.redb").exists(), "from the environment");
    let mut stranger = Client::connect(&relay.heap("h")).await;
    stranger.send(&[Up::Hello(hello(1))]).await;
    assert_eq!(stranger.closed().await.0, 4005, "from the environment");
    let (mut alice, _) = Client::hello(&relay.heap("h"), Hello { token: "secret".into(), ..hello(1) }).await;
    let commit = Writer::new(1).commit(SegmentId::ROOT);
    alice.send(&[commit]).await;
    let busy = alice.find(|frame| if let Down::Busy { code, .. } = frame { Some(code) } else { None }).await;
    assert_eq!(busy, 48, "from the file");
}

#[test]
fn a_store_that_cannot_be_used_ends_with_3() {
    let at = |data: &str, word: &str| check(&["--listen", "127.0.0.1:0", "--data", data], 3, word);
    // In use, which the one that uses it does not notice.
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    at(&data(&directory), "in use");
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    // A file where the directory is to be; a place where nothing can be made; one that cannot be written, to who minds.
    let file = directory.0.join("file");
    std::fs::write(&file, b"x").unwrap();
    at(file.to_str().unwrap(), "file");
    at("/proc/nowhere", "/proc/nowhere");
    let locked = Directory::new();
    std::fs::set_permissions(&locked.0, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(locked.0.join("probe"), b"x").is_err() {
        at(&data(&locked), &data(&locked));
    }
    // Bytes that are no store: they stay.
    let other = Directory::new();
    let path = other.0.join("relay.redb");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    at(&data(&other), "relay");
    assert_eq!(std::fs::read(path).unwrap(), vec![7; 5000]);
}

#[test]
fn a_store_of_a_newer_format_is_refused_untouched() {
    let directory = Directory::new();
    let path = directory.0.join("relay.redb");
    let table = redb::TableDefinition::<&str, u64>::new("store");
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert("format", 99).unwrap();
        transaction.commit().unwrap();
    }
    check(&["--listen", "127.0.0.1:0", "--data", &data(&directory)], 3, "99");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables: Vec<String> = transaction.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    assert_eq!(tables, ["store"]);
    let store = transaction.open_table(table).unwrap();
    assert_eq!((store.get("format").unwrap().unwrap().value(), store.len().unwrap()), (99, 1));
}

#[tokio::test]
async fn a_port_in_use_ends_with_1_and_disturbs_nobody() {
    let taken = Directory::new();
    let relay = Relay::start(&taken);
    let (mut client, _) = Client::join(&relay, "h", 1).await;
    let directory = Directory::new();
    let address = relay.url.strip_prefix("ws://").unwrap();
    check(&["--listen", address, "--data", &data(&directory)], 1, address);
    let commit = Writer::new(1).commit(SegmentId::ROOT);
    client.send(&[commit]).await;
    client.acked(1).await;
    // The store that it had opened is as good as new.
    let relay = Relay::start(&directory);
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
}

#[tokio::test]
async fn sigterm_closes_everybody_on_every_heap_with_1012() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let mut clients = Vec::new();
    for n in 1..6_u8 {
        let heap = format!("heap-{n}");
        let (client, _) = Client::join(&relay, &heap, n).await;
        clients.push(client);
    }
    // One that has not said who it is, and one that comes in the very moment.
    let mut silent = Client::connect(&relay.heap("h")).await;
    let mut new = Client::connect(&relay.heap("new")).await;
    new.send(&[Up::Hello(hello_to("new", 9))]).await;
    let begun = std::time::Instant::now();
    relay.terminate();
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1012);
    }
    assert_eq!(new.closed().await.0, 1012);
    drop(silent.socket.close(None).await);
    assert_eq!(relay.wait(), Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(7), "nothing is waited for that does not come");
}
