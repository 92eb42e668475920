//! The relay around `coheap_core::relay`: sockets, disk, processes. It decides nothing about heaps.
//!
//! ```text
//!   listen ─► conn (one per WebSocket) ─► driver (all heaps' machines) ─► commit thread ─► store
//!                  ▲                          │      ▲                                       │
//!                  └──────── frames ──────────┘      └──────── durable, read, folded ────────┘
//! ```
//!
//! Reading order: `config.rs`, `listen.rs`, `conn.rs`, `driver.rs`, `store.rs` (and `STORE.md`), `worker.rs`.

#[cfg(feature = "serve")]
pub mod auth;
#[cfg(feature = "serve")]
pub mod config;
#[cfg(feature = "serve")]
mod conn;
#[cfg(feature = "serve")]
mod driver;
#[cfg(feature = "serve")]
mod listen;
mod store;
#[cfg(feature = "serve")]
pub mod worker;

#[cfg(feature = "serve")]
use std::sync::Arc;

#[cfg(feature = "serve")]
use tokio::net::TcpListener;

#[cfg(feature = "serve")]
pub use config::Config;
pub use redb::{BackendError, StorageBackend};
#[cfg(fuzzing)]
pub use store::fuzz;
pub use store::{
    Appended, Disk, FileDisk, FoldResult, HeapAppend, Look, PageDamage, PagesChecked, Salvaged, Store, StoreError,
    Verified, salvage,
};

/// Serves heaps on a bound listener until `shutdown` is done, then closes in good order: nothing that was acknowledged is
/// ever lost, and everybody is told to come again (close 1012).
#[cfg(feature = "serve")]
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
