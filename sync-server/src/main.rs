//! `coheap-relay`: arguments, signals, exit codes. 0 stopped, 1 failed while running, 2 usage or config, 3 store unusable.

mod tools;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use coheap_sync_server::config::{Cli, Command, Config};
use coheap_sync_server::{Store, run};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const STORE: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` are answered, not wrong.
        Err(answer) if !answer.use_stderr() => answer.exit(),
        Err(error) => return fail(USAGE, &one_line(&error.render().to_string())),
    };
    match cli.command {
        Some(Command::Worker) => {
            return match coheap_sync_server::worker::serve() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILED, &format!("worker: {error}")),
            };
        }
        Some(Command::Store(command)) => return tools::run(&command),
        None => {}
    }
    let config = match cli.options.resolve() {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    let store = match Store::open(&config.data, config.min_free_bytes) {
        Ok(store) => Arc::new(store),
        Err(error) => return fail(STORE, &format!("{}: {error}", config.data.display())),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error.to_string()),
    };
    match runtime.block_on(serve(config, store)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

async fn serve(config: Config, store: Arc<Store>) -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    announce(&format!("listening on ws://{address}"));
    let stop = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        // A second signal: at once. What was acknowledged is on the disk.
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            std::process::exit(i32::from(FAILED));
        });
    };
    run(listener, config, store, stop).await.map_err(|error| error.to_string())
}

/// The one line on stdout, flushed: who started the relay waits for it. Nobody may be reading any more.
fn announce(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What is wrong, of what clap would print over several lines: not how the program is used.
fn one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("coheap-relay: {error}");
    ExitCode::from(code)
}
