//! One WebSocket: messages in, frames out. It looks at the Hello far enough to know who comes (version, heap, token) and
//! decides nothing else.
//!
//! Two loops share the socket. The reader hands each message to the driver and waits while the driver has too much to do;
//! the writer puts all frames that are queued into one message and reports what has left, which is what lets the machine
//! send more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coheap_core::limits;
use coheap_core::relay::ConnId;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Up, VERSION, split};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::auth::Grant;
use crate::config::Config;
use crate::driver::{Handle, ToConn};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How long a connection may take over its Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A connection that says nothing for this long is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// And is given up after this long without a word.
const SILENT_MAX: Duration = Duration::from_secs(90);
/// How long one message may take to leave; the machine gives a slow reader up before.
const WRITE_WITHIN: Duration = Duration::from_secs(40);
/// How long the peer may take to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// A peer that sends nothing for this long has nothing more under way.
const QUIET: Duration = Duration::from_millis(300);
/// Frames are put together up to about this size.
const MESSAGE_BYTES: usize = 256 * 1024;

/// Serves one upgraded connection to its end.
pub async fn serve(upgraded: Upgraded, raw_name: String, config: Arc<Config>, driver: Handle) {
    let limits = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(4096)
        .max_write_buffer_size(limits::FRAME_BYTES_MAX + MESSAGE_BYTES)
        .max_message_size(Some(limits::FRAME_BYTES_MAX))
        .max_frame_size(Some(limits::FRAME_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
    let (mut sink, mut stream) = socket.split();
    let greeted = tokio::select! {
        greeted = greet(&mut stream, &raw_name, &config) => greeted,
        () = driver.stopped() => Err(STOPPING),
    };
    let close = match greeted {
        Ok((heap, grant, first)) => talk(&mut sink, &mut stream, driver, heap, grant, first).await,
        Err(Ended::Gone) => return,
        Err(Ended::Close(code, reason)) => Some((code, reason)),
    };
    if let Some((code, reason)) = close {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let _ = timeout(CLOSE_WITHIN, finish(sink, stream, frame)).await;
    }
}

/// Sends the close and reads on until the peer has seen it: what lies unread when a socket is dropped would turn the close
/// into a reset on its way.
async fn finish(mut sink: SplitSink<Socket, Message>, mut stream: SplitStream<Socket>, frame: CloseFrame) {
    if sink.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    while let Some(message) = stream.next().await {
        if message.is_err() {
            break;
        }
    }
    // Where frames can no longer be told apart (a message too large), bytes are still on their way.
    let Ok(socket) = sink.reunite(stream) else { return };
    let (mut io, mut rest) = (socket.into_inner(), [0; 4096]);
    while let Ok(Ok(1..)) = timeout(QUIET, io.read(&mut rest)).await {}
}

/// How it ends when the relay does.
const STOPPING: Ended = Ended::Close(1012, "the relay is stopping");

/// How a connection ends.
enum Ended {
    /// The peer is gone.
    Gone,
    /// It is to be closed, with this code and reason.
    Close(u16, &'static str),
}

impl From<Code> for Ended {
    fn from(code: Code) -> Ended {
        Ended::Close(code.close_code(), code.text())
    }
}

/// The first message: a Hello of our version, for this heap, with a token that is accepted.
async fn greet(
    stream: &mut SplitStream<Socket>,
    raw_name: &str,
    config: &Config,
) -> Result<(Arc<str>, Grant, Bytes), Ended> {
    let heap = heap_name(raw_name).ok_or(Code::BadName)?;
    let first = timeout(HELLO_WITHIN, next_message(stream)).await.map_err(|_| Code::HelloTimeout)??;
    let mut frames = split(&first).map_err(|_| Code::BadFrame)?;
    let (kind, body) = frames.next().ok_or(Code::BadFrame)?;
    if Hello::version_of(&body).is_some_and(|version| version != VERSION) && kind == 1 {
        return Err(Code::Version.into());
    }
    let Ok(Some(Up::Hello(hello))) = Up::decode(kind, &body) else { return Err(Code::BadFrame.into()) };
    if heap_name(&hello.heap).is_none_or(|named| named != heap) {
        return Err(Code::BadName.into());
    }
    let grant = config.auth.check(&hello.token).ok_or(Code::Auth)?;
    Ok((heap.into(), grant, first))
}

/// The next binary message.
async fn next_message(stream: &mut SplitStream<Socket>) -> Result<Bytes, Ended> {
    loop {
        return match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => Ok(bytes),
            Some(Ok(Message::Text(_))) => Err(Code::BadMessage.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(Error::Capacity(_))) => Err(Code::MessageTooLarge.into()),
            Some(Err(Error::Protocol(_))) => Err(Ended::Close(1002, "not a WebSocket frame")),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Ended::Gone),
        };
    }
}

/// Everything after the Hello. Gives the close to send, if the peer is still there.
async fn talk(
    sink: &mut SplitSink<Socket, Message>,
    stream: &mut SplitStream<Socket>,
    driver: Handle,
    heap: Arc<str>,
    grant: Grant,
    first: Bytes,
) -> Option<(u16, &'static str)> {
    let (to_conn, mut queue) = mpsc::unbounded_channel();
    let Some(conn) = driver.open(heap, grant, to_conn).await else { return Some((1012, "the relay is stopping")) };
    driver.message(conn, first).await;
    let reading = async {
        loop {
            match timeout(SILENT_MAX, next_message(stream)).await {
                Ok(Ok(bytes)) => driver.message(conn, bytes).await,
                Ok(Err(ended)) => return ended,
                Err(_) => return Ended::Gone,
            }
        }
    };
    let writing = write_all(sink, &mut queue, &driver, conn);
    let ended = tokio::select! { ended = reading => ended, ended = writing => ended };
    driver.closed(conn).await;
    match ended {
        Ended::Gone => None,
        Ended::Close(code, reason) => Some((code, reason)),
    }
}

async fn write_all(
    sink: &mut SplitSink<Socket, Message>,
    queue: &mut mpsc::UnboundedReceiver<ToConn>,
    driver: &Handle,
    conn: ConnId,
) -> Ended {
    let mut held = None;
    loop {
        let next = match held.take() {
            Some(next) => next,
            None => match timeout(ASK_AFTER, queue.recv()).await {
                Ok(Some(next)) => next,
                // The driver has ended before it came to this connection.
                Ok(None) => return STOPPING,
                Err(_) => match timeout(WRITE_WITHIN, sink.send(Message::Ping(Bytes::new()))).await {
                    Ok(Ok(())) => continue,
                    _ => return Ended::Gone,
                },
            },
        };
        let first = match next {
            ToConn::Frames(frames) => frames,
            ToConn::Close(code, reason) => return Ended::Close(code, reason),
        };
        let mut message = Vec::with_capacity(1 + first.len());
        message.push(0);
        message.extend_from_slice(&first);
        while let Ok(next) = queue.try_recv() {
            match next {
                ToConn::Frames(frames) if message.len() + frames.len() <= MESSAGE_BYTES => {
                    message.extend_from_slice(&frames);
                }
                other => {
                    held = Some(other);
                    break;
                }
            }
        }
        let bytes = message.len() - 1;
        match timeout(WRITE_WITHIN, sink.send(Message::Binary(Bytes::from(message)))).await {
            Ok(Ok(())) => driver.written(conn, bytes),
            _ => return Ended::Gone,
        }
    }
}

/// A heap's name from its place in a URL (`SEMANTICS` S17): 1 to 128 bytes of `A–Z a–z 0–9 . _ ~ -`, anything else
/// percent-encoded, UTF-8 when decoded.
fn heap_name(raw: &str) -> Option<String> {
    if raw.len() > limits::HEAP_NAME_BYTES_MAX {
        return None;
    }
    let mut name = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'~' | b'-' => name.push(*byte),
            b'%' => {
                let (digits, tail) = rest.split_first_chunk::<2>()?;
                let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
                name.push(u8::from_str_radix(digits, 16).ok()?);
                rest = tail;
            }
            _ => return None,
        }
    }
    if name.is_empty() || name.len() > 128 {
        return None;
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::heap_name;

    #[test]
    fn heap_names_are_of_few_letters_or_percent_encoded() {
        let check = |raw: &str, expected: Option<&str>| assert_eq!(heap_name(raw).as_deref(), expected, "{raw}");
        check("notes", Some("notes"));
        check("A.b_c~d-9", Some("A.b_c~d-9"));
        check("a%2Fb", Some("a/b"));
        check("%c3%A4", Some("ä"));
        check("", None);
        check("a/b", None);
        check("a b", None);
        check("%", None);
        check("%4", None);
        check("%+4", None);
        check("%ff", None);
        check(&"a".repeat(128), Some(&"a".repeat(128)));
        check(&"a".repeat(129), None);
        check(&"%41".repeat(128), Some(&"A".repeat(128)));
    }
}
