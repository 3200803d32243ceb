//! Servers on loopback for tests. They fail in the ways in which real servers fail.
//!
//! | server | what it can do |
//! |---|---|
//! | [`Http`] | HTTP/1.1: answer with any status, header and body, also invalid ones; reset or close the connection before, during or after a response; truncate, stall or drip a body; hang; be a proxy whose tunnels work or end early |
//! | [`Llm`] | the API of an LLM provider, in the formats of OpenAI and Anthropic: answer prompts, also as event streams; fail by a script or at random, in each way in which such an API fails |
//! | [`Grpc`] | gRPC: answer with any status, trailer and message; end a call with `RST_STREAM`, `GOAWAY`, a closed or a reset connection; hang |
//! | [`Socks`] | a SOCKS4 and SOCKS5 proxy: open a tunnel, also one that ends early; refuse with any code; reject a password; close; hang; answer with any bytes |
//! | [`RefusedPort`] | refuse every connection |
//! | [`Postgres`], [`Redis`], [`PgBouncer`] | the real programs, on a Unix socket in a temporary folder: start with any setting, stop, restart, be killed, be paused; Redis also on a port, as a cluster, as a replica |
//! | [`Nginx`], [`Prometheus`] | the real programs, on a loopback port, with any configuration |
//! | [`Browser`] | a headless Chromium: open pages, run scripts, click, type, emulate screens, take screenshots |
//! | [`FaultyProxy`] | a proxy in front of any of these servers: forward, delay, refuse, stall, cut, truncate, answer with any bytes; switched at run time |
//!
//! [`Http`], [`Grpc`] and [`Socks`] play a script, with one step for each request, and record the
//! requests. [`Http`] and [`Grpc`] serve with or without [`Tls`], whose handshakes can fail.
//! Dropping a server closes all its connections.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use test_servers::{Action, Http};
//!
//! let server = Http::start().await;
//! server.script([Action::status(503).header("retry-after", "1"), Action::ResetAfterRequest]);
//!
//! # test_servers::install_ring();
//! let client = reqwest::Client::new();
//! assert_eq!(client.get(server.url()).send().await.unwrap().status(), 503);
//! client.post(server.url()).body("once").send().await.unwrap_err();
//! // The script is empty: the default step answers.
//! assert_eq!(client.get(server.url()).send().await.unwrap().status(), 200);
//!
//! let requests = server.requests();
//! assert_eq!(requests.iter().filter(|request| request.method == "POST").count(), 1);
//! assert_eq!(requests[1].body, "once");
//! # }
//! ```
//!
//! The servers use no clock, except to [drip](Action::drip) and to delay ([`Action::delay`],
//! [`ProxyFault::Delay`]). There they use tokio's clock, which a test can pause.

#[cfg(unix)]
mod browser;
mod faulty_proxy;
mod grpc;
mod http;
mod llm;
#[cfg(unix)]
mod nginx;
#[cfg(unix)]
mod pgbouncer;
mod port;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod program;
#[cfg(unix)]
mod prometheus;
#[cfg(unix)]
mod redis;
mod refused;
mod scripted;
mod socks;
mod tls;
mod tunnel;

#[cfg(unix)]
pub use self::browser::{Browser, ConsoleEntry, Element};
pub use self::faulty_proxy::{FaultyProxy, ProxyFault, ProxyTarget};
pub use self::grpc::{Grpc, Reply};
pub use self::http::{Action, Http, Response};
pub use self::llm::{Llm, LlmFault, PromptCounts, random_faults};
#[cfg(unix)]
pub use self::nginx::Nginx;
#[cfg(unix)]
pub use self::pgbouncer::PgBouncer;
#[cfg(unix)]
pub use self::postgres::Postgres;
#[cfg(unix)]
pub use self::prometheus::Prometheus;
#[cfg(unix)]
pub use self::redis::Redis;
pub use self::refused::RefusedPort;
pub use self::scripted::{RecordedRequest, ScriptedServer};
pub use self::socks::{Socks, SocksAction};
pub use self::tls::{Handshake, Tls};
pub use h2::Reason;

/// Makes `ring` the cryptography of this process, if it has none yet.
///
/// The workspace builds reqwest with TLS and without a provider of cryptography. Its clients panic
/// if none is installed.
pub fn install_ring() {
    // An error says that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
