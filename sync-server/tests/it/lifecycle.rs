//! How the program starts and ends: first line, exit codes, signals.

use std::io::Write;
use std::net::TcpListener;

use crate::client::{Client, Writer, hello};
use crate::process::{Directory, Relay, run};
use coheap_core::id::SegmentId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    let (mut client, _) = Client::hello(&relay.heap("h"), hello(1)).await;
    let commit = Writer::new(1).commit(SegmentId::ROOT);
    client.send(&[commit]).await;
    client.acked(1).await;
    relay.terminate();
    assert_eq!(client.closed().await, (1012, "the relay is stopping".to_owned()));
    assert_eq!(relay.wait(), Some(0));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let check = |arguments: &[&str], word: &str| {
        let (code, errors) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(word), "{arguments:?}: {errors}");
    };
    let directory = Directory::new();
    let data = data(&directory);
    check(&["--wrong"], "--wrong");
    check(&["--listen", "nowhere"], "nowhere");
    check(&[], "--data");
    check(&["--data", &data, "--listen", "0.0.0.0:0"], "--token-file");
    check(&["--data", &data, "--auth", "token"], "--token-file");
    check(&["--data", &data, "--token-file", "/nowhere/tokens"], "/nowhere/tokens");
    check(&["--data", &data, "--config", "/nowhere/config"], "/nowhere/config");
    let config = directory.0.join("config");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\nspeed = 9\n").unwrap();
    check(&["--data", &data, "--config", config.to_str().unwrap()], "speed");
}

#[test]
fn options_come_from_the_environment_and_a_file_too() {
    let directory = Directory::new();
    let config = directory.0.join("config");
    let mut file = std::fs::File::create(&config).unwrap();
    writeln!(file, "# a relay\nlisten = 127.0.0.1:0\ndata = \"{}\"", directory.0.join("store").display()).unwrap();
    let mut child = crate::process::program().env("COHEAP_CONFIG", &config).spawn().unwrap();
    let mut line = [0; 27];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"listening on ws://127.0.0.1");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(directory.0.join("store/relay.redb").exists());
}

#[test]
fn a_store_that_cannot_be_used_ends_with_3() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (code, errors) = run(&["--listen", "127.0.0.1:0", "--data", &data(&directory)]);
    assert_eq!(code, Some(3));
    assert!(errors.contains("in use"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    relay.kill();
    // A file where the directory is to be.
    let file = directory.0.join("file");
    std::fs::write(&file, b"x").unwrap();
    assert_eq!(run(&["--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()]).0, Some(3));
    // Bytes that are no store.
    let other = Directory::new();
    std::fs::write(other.0.join("relay.redb"), vec![7; 5000]).unwrap();
    assert_eq!(run(&["--listen", "127.0.0.1:0", "--data", &data(&other)]).0, Some(3));
}

#[test]
fn a_store_of_a_newer_format_is_refused_untouched() {
    let directory = Directory::new();
    let path = directory.0.join("relay.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&str, u64>::new("store");
        transaction.open_table(table).unwrap().insert("format", 99).unwrap();
        transaction.commit().unwrap();
    }
    let (code, errors) = run(&["--listen", "127.0.0.1:0", "--data", &data(&directory)]);
    assert_eq!(code, Some(3));
    assert!(errors.contains("99"), "{errors}");
}

#[test]
fn a_port_in_use_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = Directory::new();
    let address = taken.local_addr().unwrap().to_string();
    let (code, errors) = run(&["--listen", &address, "--data", &data(&directory)]);
    assert_eq!(code, Some(1));
    assert!(errors.contains(&address), "{errors}");
}
