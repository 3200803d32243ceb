//! Servers that misbehave as a test tells them to.
//!
//! A client, and what is layered over it, is right when it is right about what really comes over a socket: resets, cuts, stalls and
//! answers that no HTTP library would write. So [`Http`] writes raw bytes over TCP, and [`Grpc`] speaks HTTP/2 through `h2`, where
//! each frame can be chosen. Both listen on a loopback port that the system picks, play a script, count what reaches them, and end
//! with all their connections when they are dropped. A port that [refuses](Refused) is the third.
//!
//! A script holds one [`Act`] for each request to [`Http`], one [`Reply`] for each call to [`Grpc`]. When it has run out, requests are
//! answered with 200 and calls with OK, or with what [`Http::otherwise`] and [`Grpc::otherwise`] were given.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use test_servers::{Act, Http};
//!
//! let server = Http::start().await;
//! server.script([Act::status(503).header("retry-after", "1"), Act::ResetAfterRequest]);
//!
//! let client = reqwest::Client::new();
//! assert_eq!(client.get(server.url()).send().await.unwrap().status(), 503);
//! client.post(server.url()).body("once").send().await.unwrap_err();
//! assert_eq!(client.get(server.url()).send().await.unwrap().status(), 200);
//!
//! let requests = server.requests();
//! assert_eq!(requests.iter().filter(|request| request.method == "POST").count(), 1);
//! assert_eq!(requests[1].body, "once");
//! # }
//! ```
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use test_servers::{Grpc, Reason, Reply};
//!
//! let server = Grpc::start().await;
//! server.script([
//!     Reply::trailers_only(14).trailer("grpc-retry-pushback-ms", "20"),
//!     Reply::message("half of it").rst_stream(Reason::INTERNAL_ERROR),
//! ]);
//!
//! let mut client = EchoClient::connect(server.url()).await.unwrap();
//! let status = client.say(Words::default()).await.unwrap_err();
//! assert_eq!(status.code(), tonic::Code::Unavailable);
//! assert_eq!(client.say(Words::default()).await.unwrap_err().code(), tonic::Code::Internal);
//! assert_eq!(client.say(Words::default()).await.unwrap().into_inner().text, "ok");
//! assert_eq!((server.connections(), server.requests().len()), (1, 3));
//! # }
//! ```
//!
//! No act sleeps but a [drip](Act::drip), through tokio's clock: it can be paused. No limit on time is needed, for none of the servers
//! waits for a client that is gone, and what they read of one request is bounded.

mod grpc;
mod http;
mod stage;

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

pub use self::grpc::{Grpc, Reply};
pub use self::http::{Act, Answer, Http};
pub use self::stage::Seen;
pub use h2::Reason;

/// A port where every connection is refused: it is taken, so that no one else can have it, and nobody listens.
#[derive(Debug)]
pub struct Refused {
    socket: TcpSocket,
}

impl Refused {
    /// Takes a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn bind() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback can be bound");
        Self { socket }
    }

    /// `http://` and the address, without a slash at the end.
    ///
    /// # Panics
    ///
    /// If the system does not tell the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.socket.local_addr().expect("a bound socket has an address"))
    }
}
