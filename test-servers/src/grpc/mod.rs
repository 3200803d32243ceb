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
use crate::stage::{Listening, Seen, Stage};

const MAX_BODY: usize = 64 << 20;
/// As hyper's servers have it. With the smaller one of its own, `h2` ends a connection on which a few hundred calls say something short
/// at once.
const WINDOW: u32 = 1 << 20;
/// The type of the frame.
const GOAWAY: u8 = 7;

/// A server of gRPC, over HTTP/2 without TLS, that does what its script says. It ends when it is dropped.
///
/// It answers every path. Its messages have one field: number 1, a string.
#[derive(Debug)]
pub struct Grpc {
    stage: Arc<Stage<Reply>>,
    listening: Listening,
}

impl Grpc {
    /// Starts one, with an empty script.
    ///
    /// # Panics
    ///
    /// If loopback cannot be bound, or there is no tokio runtime.
    pub async fn start() -> Self {
        let stage = Arc::new(Stage::new(Reply::ok("ok")));
        let listening = Listening::start(Arc::clone(&stage), serve).await;
        Self { stage, listening }
    }

    /// `http://` and the address, without a slash at the end.
    pub fn url(&self) -> String {
        self.listening.url()
    }

    /// Adds to the script: one reply for each call, in the order in which their headers arrive.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.stage.script(replies);
    }

    /// Sets what is done when the script has run out. **Default**: `Reply::ok("ok")`.
    pub fn otherwise(&self, reply: Reply) {
        self.stage.otherwise(reply);
    }

    /// How many replies nobody has taken yet.
    pub fn left(&self) -> usize {
        self.stage.left()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.stage.connections()
    }

    /// The calls whose headers arrived so far, in that order.
    pub fn requests(&self) -> Vec<Seen> {
        self.stage.requests()
    }

    /// Waits until so many calls have arrived since the start.
    pub async fn arrived(&self, count: usize) {
        self.stage.arrived(count).await;
    }
}

/// What a stream asks of its connection, which does it when all that the stream has sent is on the wire, and then drops the sender.
type Orders = mpsc::UnboundedSender<(Order, oneshot::Sender<()>)>;

enum Order {
    /// Nothing more.
    Flush,
    GoAwayGracefully,
    GoAwayBelow(u32, Reason),
    GoAwayAtOnce(Reason),
    Close,
    Reset,
}

async fn serve(stream: TcpStream, stage: Arc<Stage<Reply>>, number: usize) {
    let wire = Wire::new(stream);
    let handshake = h2::server::Builder::new().initial_connection_window_size(WINDOW).handshake(wire.clone());
    let Ok(mut connection) = handshake.await else { return };
    let (orders, mut ordered) = mpsc::unbounded_channel();
    // Dropped, and with it every stream, when the connection ends.
    let mut streams = JoinSet::new();
    loop {
        // Biased: `accept` also writes what the streams have sent, so an order finds it written.
        tokio::select! {
            biased;
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                while streams.try_join_next().is_some() {}
                let (head, body) = request.into_parts();
                let reply = stage.next();
                let place = stage.record(seen(number, head));
                let stage = Arc::clone(&stage);
                let orders = orders.clone();
                streams.spawn(async move {
                    stage.record_body(place, read(body).await);
                    // A client that breaks off gets no answer, and the test does not hear of it from here.
                    let _ = answer(reply, respond, &orders).await;
                });
            }
            Some((order, _done)) = ordered.recv() => {
                if obey(order, &mut connection, &wire).await.is_break() {
                    return;
                }
            }
        }
    }
}

async fn obey(order: Order, connection: &mut Connection<Wire, Bytes>, wire: &Wire) -> ControlFlow<()> {
    let mut wire = wire.clone();
    match order {
        Order::Flush => {}
        Order::GoAwayGracefully => connection.graceful_shutdown(),
        Order::GoAwayAtOnce(reason) => connection.abrupt_shutdown(reason),
        Order::GoAwayBelow(stream, reason) => {
            // `h2` says no number below that of a stream that it has accepted.
            let mut frame = BytesMut::from(&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..]);
            frame.put_u32(stream.saturating_sub(2));
            frame.put_u32(reason.into());
            if wire.write_all(&frame).await.is_err() {
                return ControlFlow::Break(());
            }
        }
        Order::Close => {
            if wire.shutdown().await.is_ok() {
                drain(&mut wire).await;
            }
            return ControlFlow::Break(());
        }
        Order::Reset => {
            wire.end_in_a_reset();
            return ControlFlow::Break(());
        }
    }
    ControlFlow::Continue(())
}

fn seen(connection: usize, head: Parts) -> Seen {
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    Seen { connection, method: head.method, path, headers: head.headers, body: Bytes::new() }
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

async fn answer(reply: Reply, mut respond: SendResponse<Bytes>, orders: &Orders) -> Result<(), h2::Error> {
    if reply.goes_away {
        ask(orders, Order::GoAwayGracefully).await;
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
            ask(orders, Order::Flush).await;
            respond.send_reset(reason);
        }
        End::GoAwayBelow(reason) => {
            ask(orders, Order::GoAwayBelow(number, reason)).await;
            given_up(respond, stream).await;
        }
        End::GoAwayAtOnce(reason) => ask(orders, Order::GoAwayAtOnce(reason)).await,
        End::CloseConnection => ask(orders, Order::Close).await,
        End::ResetConnection => ask(orders, Order::Reset).await,
        End::Stall => given_up(respond, stream).await,
    }
    Ok(())
}

async fn ask(orders: &Orders, order: Order) {
    let (done, is_done) = oneshot::channel();
    // Without a connection there is nobody left to obey.
    let _ = orders.send((order, done));
    let _ = is_done.await;
}

/// Waits until the client resets the stream, or the connection ends: a stream that is dropped would be reset by `h2`.
async fn given_up(mut respond: SendResponse<Bytes>, stream: Option<SendStream<Bytes>>) {
    match stream {
        Some(mut stream) => drop(poll_fn(|context| stream.poll_reset(context)).await),
        None => drop(poll_fn(|context| respond.poll_reset(context)).await),
    }
}
