//! A relay process of a test: a data directory of its own, a free port, ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);

/// A directory that is gone with the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let n = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("relay-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program with a clean environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coheap-relay"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COHEAP_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running relay.
pub struct Relay {
    child: Child,
    pub url: String,
}

impl Relay {
    pub fn start(directory: &Directory) -> Relay {
        Relay::start_with(directory, &[])
    }

    pub fn start_with(directory: &Directory, arguments: &[&str]) -> Relay {
        let mut command = program();
        command.arg("--listen").arg("127.0.0.1:0").arg("--data").arg(&directory.0).args(arguments);
        Relay::spawn(command)
    }

    /// One of this command; it listens on loopback.
    pub fn spawn(mut command: Command) -> Relay {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening on ").expect("the first line").trim_end().to_owned();
        assert!(url.starts_with("ws://127.0.0.1:"), "{line}");
        Relay { child, url }
    }

    pub fn heap(&self, name: &str) -> String {
        format!("{}/heap/{name}", self.url)
    }

    /// Memory that it holds now.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end: the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs to the end: exit code and what went to stderr.
pub fn run_with(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = program().args(arguments).envs(environment.iter().copied()).spawn().unwrap();
    let mut errors = String::new();
    child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code(), errors)
}
