//! The relay around `coheap_core::relay`: sockets, disk, processes. It decides nothing about heaps.
//!
//! ```text
//!   listen ─► conn (one per WebSocket) ─► driver (all heaps' machines) ─► commit thread ─► store
//!                  ▲                          │      ▲                                       │
//!                  └──────── frames ──────────┘      └──────── durable, read, folded ────────┘
//! ```
//!
//! Reading order: `config.rs`, `listen.rs`, `conn.rs`, `driver.rs`, `store.rs` (and `STORE.md`), `worker.rs`.

pub mod auth;
pub mod config;
mod conn;
mod driver;
mod listen;
mod store;
pub mod worker;

use std::sync::Arc;

use tokio::net::TcpListener;

pub use config::Config;
pub use redb::{BackendError, StorageBackend};
pub use store::{Appended, Disk, FileDisk, FoldResult, HeapAppend, Salvaged, Store, StoreError, Verified, salvage};

/// Serves heaps on a bound listener until `shutdown` is done, then closes in good order: nothing that was acknowledged is
/// ever lost, and everybody is told to come again (close 1012).
pub async fn run(
    listener: TcpListener,
    config: Config,
    store: Arc<Store>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let driver = driver::start(Arc::clone(&store), &config);
    let config = Arc::new(config);
    listen::serve(listener, config, driver.handle(), shutdown).await?;
    driver.stop().await;
    Ok(())
}
