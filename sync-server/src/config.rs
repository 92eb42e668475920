//! What the relay is told: flags, environment, a file. A flag wins over its environment variable, that over the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::auth::Auth;

/// The relay of coheap heaps.
#[derive(Debug, Parser)]
#[command(name = "coheap-relay", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; serving heaps if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub options: Options,
}

/// What else the program can be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fold segments: requests on stdin, answers on stdout. Started by the relay itself.
    Worker,
    /// Check, show, shrink or mend the store of a data directory that no relay has open.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// What to do with a store. Exit codes: 0 done, 1 damage was found (verify) or something failed, 3 the store cannot be opened.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read and check everything; one line a heap.
    Verify(StoreTarget),
    /// Print logs, one JSON object an entry.
    Dump(StoreTarget),
    /// Give unused space back to the file system.
    Compact {
        /// The data directory
        dir: PathBuf,
    },
    /// Keep what is whole of damaged heaps, in a new file; the old one stays beside it.
    Salvage(StoreTarget),
}

/// Which store, and how much of it.
#[derive(Debug, Args)]
pub struct StoreTarget {
    /// The data directory
    pub dir: PathBuf,
    /// This heap only
    #[arg(long, value_name = "NAME")]
    pub heap: Option<String>,
}

/// The options of a relay, as given.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:7420]
    #[arg(long, env = "COHEAP_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// The data directory
    #[arg(long, env = "COHEAP_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A file of `name = value` lines, named as the flags
    #[arg(long, env = "COHEAP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Who may connect [default: none on a loopback address]
    #[arg(long, env = "COHEAP_AUTH", value_enum)]
    pub auth: Option<AuthKind>,
    /// The tokens, one a line: TOKEN SUBJECT [rw|ro]
    #[arg(long, env = "COHEAP_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Take no commits while the disk has less free than this [default: 64]
    #[arg(long, env = "COHEAP_MIN_FREE_MB", value_name = "MB")]
    pub min_free_mb: Option<u64>,
    /// The data directory was put back from a backup: take no commits for a minute, while the processes that hold what it
    /// lacks give that back
    #[arg(long, env = "COHEAP_RESTORED")]
    pub restored: bool,
}

/// Ways of letting connections in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AuthKind {
    /// Everybody who can connect.
    None,
    /// Who has a token of the token file.
    Token,
}

/// How a relay serves, all decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// Who may connect.
    pub auth: Auth,
    /// Free bytes below which nothing is appended.
    pub min_free_bytes: u64,
    /// What folds segments; `None`: nothing is folded.
    pub worker: Option<Worker>,
    /// How the store is read through in the background; `None`: not at all, as tests may want it.
    pub scrub: Option<Scrub>,
    /// The store was put back from a backup (CORE-PROTOCOL D7).
    pub restored: bool,
}

/// The processes that folds are made and checked in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Worker {
    /// The program; `worker` is its one argument.
    pub program: PathBuf,
    /// How long it may take over one segment.
    pub within: Duration,
    /// Its address space.
    pub memory_bytes: u64,
}

impl Worker {
    /// A worker within the usual bounds.
    pub fn new(program: PathBuf) -> Worker {
        Worker { program, within: Duration::from_secs(30), memory_bytes: 2 << 30 }
    }
}

/// Reads each heap as a whole when it is opened for the first time, and all of them again and again, slowly, for damage that
/// nobody has met yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scrub {
    /// Between the start, and the end of one round, and the next.
    pub every: Duration,
    /// At most this fast.
    pub bytes_per_s: u64,
    /// A heap that is opened for the first time: at most this fast.
    pub opened_bytes_per_s: u64,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub { every: Duration::from_secs(3600), bytes_per_s: 4 << 20, opened_bytes_per_s: 64 << 20 }
    }
}

impl Options {
    /// Decides everything; one line says what is wrong otherwise.
    pub fn resolve(mut self) -> Result<Config, String> {
        if let Some(file) = self.config.clone() {
            self.fill_from(&file)?;
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7420)));
        let data = self.data.ok_or("--data DIR is missing: where is the store to be?")?;
        let auth = match (self.auth, &self.token_file) {
            (Some(AuthKind::None), Some(_)) => return Err("--auth none and --token-file exclude each other".to_owned()),
            (Some(AuthKind::Token), None) => return Err("--auth token needs --token-file FILE".to_owned()),
            (_, Some(file)) => {
                let text = read(file)?;
                Auth::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?
            }
            (_, None) if listen.ip().is_loopback() => Auth::None,
            (_, None) => {
                return Err(format!(
                    "{listen} can be reached by others: give --token-file FILE, or a loopback address"
                ));
            }
        };
        let min_free_bytes = self.min_free_mb.unwrap_or(64).saturating_mul(1 << 20);
        let worker = std::env::current_exe().ok().map(Worker::new);
        let scrub = Some(Scrub::default());
        Ok(Config { listen, data, auth, min_free_bytes, worker, scrub, restored: self.restored })
    }

    /// Takes from a file what was not given otherwise.
    fn fill_from(&mut self, file: &Path) -> Result<(), String> {
        for (number, line) in (1..).zip(read(file)?.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let place = format!("{}: line {number}", file.display());
            let (name, value) = line.split_once('=').ok_or_else(|| format!("{place}: expected name = value"))?;
            let value = value.trim().trim_matches('"');
            let wrong = |what: &dyn std::fmt::Display| format!("{place}: {what}");
            match name.trim() {
                "listen" if self.listen.is_none() => self.listen = Some(value.parse().map_err(|error| wrong(&error))?),
                "data" if self.data.is_none() => self.data = Some(PathBuf::from(value)),
                "auth" if self.auth.is_none() => {
                    self.auth = Some(AuthKind::from_str(value, false).map_err(|error| wrong(&error))?);
                }
                "token-file" if self.token_file.is_none() => self.token_file = Some(PathBuf::from(value)),
                "min-free-mb" if self.min_free_mb.is_none() => {
                    self.min_free_mb = Some(value.parse().map_err(|error| wrong(&error))?);
                }
                "listen" | "data" | "auth" | "token-file" | "min-free-mb" => {}
                other => return Err(format!("{place}: unknown option {other:?}")),
            }
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
