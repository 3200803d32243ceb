//! The gRPC server.

mod reply;
mod wire;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::Response;
use http::request::Parts;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::reply::End;
pub use self::reply::Reply;
use self::wire::Wire;
use crate::Reason;
use crate::http::drain;
use crate::scripted::{RecordedRequest, Script, ScriptedServer};
use crate::tls::{Stream, Tls};

const MAX_BODY: usize = 64 << 20;
/// The connection window of hyper's servers.
///
/// With its own, smaller default, `h2` ends a connection on which a few hundred calls each send a
/// short message at the same time.
const WINDOW: u32 = 1 << 20;
/// The type of the HTTP/2 frame.
const GOAWAY: u8 = 7;

/// A gRPC server over HTTP/2 that follows a script: one [`Reply`] for each call, in the
/// order in which the headers arrive.
///
/// Without a script it answers with the message "ok" and the status OK. It serves every path. A
/// message has one field: a string with number 1.
pub type Grpc = ScriptedServer<Reply>;

impl Grpc {
    /// Starts the server on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound, or if there is no tokio runtime.
    pub async fn start() -> Self {
        Self::listen(Reply::ok("ok"), None, serve).await
    }

    /// Starts the server with TLS on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics as [`start`](Self::start) does, and if a name of the certificate is invalid.
    pub async fn start_tls(tls: &Tls) -> Self {
        Self::listen(Reply::ok("ok"), Some(tls.acceptor(b"h2")), serve).await
    }
}

/// Commands from a stream to its connection.
///
/// The connection executes a command when everything that the stream has sent is written, and then
/// drops the sender.
type Commands = mpsc::UnboundedSender<(Command, oneshot::Sender<()>)>;

enum Command {
    /// Does nothing else: the stream only waits until its data is written.
    Flush,
    GoAwayGracefully,
    GoAwayBelow(u32, Reason),
    GoAwayAtOnce(Reason),
    Close,
    Reset,
}

async fn serve(stream: Stream, script: Arc<Script<Reply>>, number: usize) {
    let wire = Wire::new(stream);
    let handshake = h2::server::Builder::new().initial_connection_window_size(WINDOW).handshake(wire.clone());
    let Ok(mut connection) = handshake.await else { return };
    let (commands, mut received) = mpsc::unbounded_channel();
    // Dropping the set at the end of the connection also drops every stream.
    let mut streams = JoinSet::new();
    loop {
        // Biased: `accept` also writes what the streams have sent. A command then runs after that.
        tokio::select! {
            biased;
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                while streams.try_join_next().is_some() {}
                let (head, body) = request.into_parts();
                let reply = script.next();
                let index = script.record(recorded(number, head));
                let script = Arc::clone(&script);
                let commands = commands.clone();
                streams.spawn(async move {
                    script.record_body(index, read(body).await);
                    // An error means that the client has cancelled. The test checks its own side.
                    let _ = respond_with(reply, respond, &commands).await;
                });
            }
            Some((command, _done)) = received.recv() => {
                if execute(command, &mut connection, &wire).await.is_break() {
                    return;
                }
            }
        }
    }
}

async fn execute(command: Command, connection: &mut Connection<Wire, Bytes>, wire: &Wire) -> ControlFlow<()> {
    let mut wire = wire.clone();
    match command {
        Command::Flush => {}
        Command::GoAwayGracefully => connection.graceful_shutdown(),
        Command::GoAwayAtOnce(reason) => connection.abrupt_shutdown(reason),
        Command::GoAwayBelow(stream, reason) => {
            // `h2` cannot send a number below that of a stream that it has accepted.
            let mut frame = BytesMut::from(&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..]);
            frame.put_u32(stream.saturating_sub(2));
            frame.put_u32(reason.into());
            if wire.write_all(&frame).await.is_err() || wire.flush().await.is_err() {
                return ControlFlow::Break(());
            }
        }
        Command::Close => {
            if wire.shutdown().await.is_ok() {
                drain(&mut wire).await;
            }
            return ControlFlow::Break(());
        }
        Command::Reset => {
            wire.reset_on_close();
            return ControlFlow::Break(());
        }
    }
    ControlFlow::Continue(())
}

fn recorded(connection: usize, head: Parts) -> RecordedRequest {
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    RecordedRequest { connection, method: head.method, path, headers: head.headers, body: Bytes::new() }
}

async fn read(mut stream: RecvStream) -> Bytes {
    let mut body = BytesMut::new();
    while let Some(Ok(data)) = stream.data().await {
        // It fails only if the stream is closed. Its window does not matter then.
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
        if body.len() > MAX_BODY {
            break;
        }
    }
    body.freeze()
}

async fn respond_with(
    reply: Reply,
    mut respond: SendResponse<Bytes>,
    commands: &Commands,
) -> Result<(), h2::Error> {
    if reply.goes_away {
        request(commands, Command::GoAwayGracefully).await;
    }
    let mut stream = None;
    if let Some((status, headers)) = &reply.head {
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (*status, headers.clone());
        let only_headers = reply.data.is_empty() && matches!(reply.end, End::Stream);
        let sender = stream.insert(respond.send_response(response, only_headers)?);
        if !reply.data.is_empty() {
            sender.send_data(reply.frame(), matches!(reply.end, End::Stream))?;
        }
    }
    let number = respond.stream_id().as_u32();
    match reply.end {
        End::Stream => {}
        End::Trailers(trailers) => {
            if let Some(sender) = &mut stream {
                sender.send_trailers(trailers)?;
            }
        }
        End::RstStream(reason) => {
            // A reset discards what is not written yet.
            request(commands, Command::Flush).await;
            respond.send_reset(reason);
        }
        End::GoAwayBelow(reason) => {
            request(commands, Command::GoAwayBelow(number, reason)).await;
            wait_for_reset(respond, stream).await;
        }
        End::GoAwayAtOnce(reason) => request(commands, Command::GoAwayAtOnce(reason)).await,
        End::CloseConnection => request(commands, Command::Close).await,
        End::ResetConnection => request(commands, Command::Reset).await,
        End::Stall => wait_for_reset(respond, stream).await,
    }
    Ok(())
}

/// Sends a command to the connection, and waits until it is executed.
async fn request(commands: &Commands, command: Command) {
    let (done, is_done) = oneshot::channel();
    // Both fail only if the connection has ended. The command has no effect then.
    let _ = commands.send((command, done));
    let _ = is_done.await;
}

/// Waits until the client resets the stream or the connection ends. `h2` would reset a stream that
/// is dropped.
async fn wait_for_reset(mut respond: SendResponse<Bytes>, stream: Option<SendStream<Bytes>>) {
    match stream {
        Some(mut stream) => drop(poll_fn(|context| stream.poll_reset(context)).await),
        None => drop(poll_fn(|context| respond.poll_reset(context)).await),
    }
}
