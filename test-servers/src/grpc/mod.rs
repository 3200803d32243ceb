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
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::reply::End;
pub use self::reply::Reply;
use self::wire::Wire;
use crate::Reason;
use crate::http::drain;
use crate::scripted::{RecordedRequest, Script, ScriptedServer};

const MAX_BODY: usize = 64 << 20;
/// As hyper's servers have it. With the smaller one of its own, `h2` ends a connection on which a
/// few hundred calls say something short at once.
const WINDOW: u32 = 1 << 20;
/// The type of the frame.
const GOAWAY: u8 = 7;

/// A gRPC server, over HTTP/2 without TLS, that does what its script says: one [`Reply`] for each
/// call, in the order in which the headers arrive.
///
/// Without a script it answers with the message "ok" and the status OK. It serves every path. A
/// message has one field: number 1, a string.
pub type Grpc = ScriptedServer<Reply>;

impl Grpc {
    /// Starts the server on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound, or if there is no tokio runtime.
    pub async fn start() -> Self {
        Self::listen(Reply::ok("ok"), serve).await
    }
}

/// What a stream asks of its connection, which does it when all that the stream has sent is on the
/// wire, and then drops the sender.
type Commands = mpsc::UnboundedSender<(Command, oneshot::Sender<()>)>;

enum Command {
    /// Nothing more.
    Flush,
    GoAwayGracefully,
    GoAwayBelow(u32, Reason),
    GoAwayAtOnce(Reason),
    Close,
    Reset,
}

async fn serve(stream: TcpStream, script: Arc<Script<Reply>>, number: usize) {
    let wire = Wire::new(stream);
    let handshake = h2::server::Builder::new().initial_connection_window_size(WINDOW).handshake(wire.clone());
    let Ok(mut connection) = handshake.await else { return };
    let (commands, mut received) = mpsc::unbounded_channel();
    // Dropped, and with it every stream, when the connection ends.
    let mut streams = JoinSet::new();
    loop {
        // Biased: `accept` also writes what the streams have sent, so a command finds it written.
        tokio::select! {
            biased;
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                while streams.try_join_next().is_some() {}
                let (head, body) = request.into_parts();
                let reply = script.next();
                let place = script.record(recorded(number, head));
                let script = Arc::clone(&script);
                let commands = commands.clone();
                streams.spawn(async move {
                    script.record_body(place, read(body).await);
                    // A client that breaks off gets no answer, and the test does not hear of it
                    // from here.
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
            // `h2` says no number below that of a stream that it has accepted.
            let mut frame = BytesMut::from(&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..]);
            frame.put_u32(stream.saturating_sub(2));
            frame.put_u32(reason.into());
            if wire.write_all(&frame).await.is_err() {
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
            wire.end_in_a_reset();
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
        // The window of a stream that is done with has nobody to open for.
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
        ask(commands, Command::GoAwayGracefully).await;
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
            // A reset throws away what is not on the wire yet.
            ask(commands, Command::Flush).await;
            respond.send_reset(reason);
        }
        End::GoAwayBelow(reason) => {
            ask(commands, Command::GoAwayBelow(number, reason)).await;
            wait_for_reset(respond, stream).await;
        }
        End::GoAwayAtOnce(reason) => ask(commands, Command::GoAwayAtOnce(reason)).await,
        End::CloseConnection => ask(commands, Command::Close).await,
        End::ResetConnection => ask(commands, Command::Reset).await,
        End::Stall => wait_for_reset(respond, stream).await,
    }
    Ok(())
}

async fn ask(commands: &Commands, command: Command) {
    let (done, is_done) = oneshot::channel();
    // Without a connection there is nothing left to execute the command.
    let _ = commands.send((command, done));
    let _ = is_done.await;
}

/// Waits until the client resets the stream, or the connection ends: a stream that is dropped would
/// be reset by `h2`.
async fn wait_for_reset(mut respond: SendResponse<Bytes>, stream: Option<SendStream<Bytes>>) {
    match stream {
        Some(mut stream) => drop(poll_fn(|context| stream.poll_reset(context)).await),
        None => drop(poll_fn(|context| respond.poll_reset(context)).await),
    }
}
