//! Accepts connections: health pages, and WebSockets at `/heap/NAME`. Bounded in number and in what an unfinished request
//! may cost.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::config::Config;
use crate::conn;
use crate::driver::Handle;

/// Open sockets at one time.
const CONNECTIONS_MAX: usize = 20_000;
/// How long a client may take over its request head.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
/// How long a stopping relay waits for connections to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    driver: Handle,
    /// Held by every connection; when nobody holds it any more, all are closed.
    open: tokio::sync::mpsc::Sender<()>,
}

/// Serves until `shutdown`, then tells the driver to stop and waits for the connections to be closed.
pub async fn serve(
    listener: TcpListener,
    config: Arc<Config>,
    driver: Handle,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (open, mut all_closed) = tokio::sync::mpsc::channel(1);
    let shared = Shared { config, driver: driver.clone(), open };
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/heap/{*name}", get(upgrade))
        .with_state(shared);
    let sockets = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or the peer is gone already: neither ends the relay.
                eprintln!("coheap-relay: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&sockets).try_acquire_owned() else { continue };
        let router = router.clone();
        tasks.spawn(async move {
            serve_stream(stream, router).await;
            drop(permit);
        });
    }
    drop((listener, router));
    driver.shut_down().await;
    let closed = async {
        while tasks.join_next().await.is_some() {}
        // A connection is a task of its own from its upgrade on.
        all_closed.recv().await;
    };
    let _ = tokio::time::timeout(CLOSE_WITHIN, closed).await;
    Ok(())
}

async fn serve_stream(stream: TcpStream, router: Router) {
    // Small frames must not wait for others.
    let _ = stream.set_nodelay(true);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let _ = served.await;
}

/// A relay that runs is well: to start it again would mend nothing. Its store may need somebody to look at it all the same.
async fn health(State(shared): State<Shared>) -> &'static str {
    if shared.driver.is_store_suspect() { "ok\nstore: damaged, see the log\n" } else { "ok\n" }
}

/// The WebSocket handshake; what comes after it is `conn.rs`.
async fn upgrade(State(shared): State<Shared>, mut request: Request) -> Response {
    let Some(key) = websocket_key(request.headers()) else {
        return (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")], "this is a WebSocket\n")
            .into_response();
    };
    let raw_name = request.uri().path().strip_prefix("/heap/").unwrap_or_default().to_owned();
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            conn::serve(upgraded, raw_name, shared.config, shared.driver).await;
        }
        drop(shared.open);
    });
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// The client's key, if the request is a WebSocket handshake of the one version there is.
fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: header::HeaderName, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    };
    let handshake = has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket");
    let version = has(header::SEC_WEBSOCKET_VERSION, "13");
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| handshake && version).cloned()
}
