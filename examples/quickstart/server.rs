//! A server that follows the script and counts the requests that it receives.

use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use reqwest::Url;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::script::{Action, PHASES, Phase, Script};

/// A running server. Clones are handles to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    script: Script,
    /// The number of requests in each phase. It includes requests that were reset or that hang.
    received: Arc<[AtomicU64; PHASES.len()]>,
}

impl Server {
    /// Starts a server on a loopback port, and returns it with its URL.
    pub(crate) async fn start(script: Script) -> io::Result<(Self, Url)> {
        let server = Self { script, received: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let url = Url::parse(&url).map_err(io::Error::other)?;
        let router = Router::new().route("/", get(handle)).with_state(server.clone());
        let listener = listener.tap_io(reset_on_close);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((server, url))
    }

    /// Returns the number of requests that the server has received in a phase.
    pub(crate) fn received_in(&self, phase: Phase) -> u64 {
        self.received[phase as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of requests that the server has received.
    pub(crate) fn received(&self) -> u64 {
        PHASES.iter().map(|(phase, _)| self.received_in(*phase)).sum()
    }
}

async fn handle(State(server): State<Server>) -> Response {
    let now = Instant::now();
    let counter = &server.received[server.script.phase(now) as usize];
    let number = counter.fetch_add(1, Ordering::Relaxed);
    match server.script.action(now, number) {
        Action::Answer => "ok\n".into_response(),
        Action::Unavailable { retry_after: None } => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Action::Unavailable { retry_after: Some(seconds) } => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds.to_string())]).into_response()
        }
        // Ends the connection's task, which closes the socket. `resume_unwind` does not call the
        // panic hook, so nothing is printed.
        Action::Reset => resume_unwind(Box::new("the script resets this connection")),
        Action::Hang => pending().await,
    }
}

/// Makes the kernel send RST instead of FIN when the server closes the socket.
fn reset_on_close(stream: &mut TcpStream) {
    // It fails only for a socket that is already closed. There is nothing left to reset then.
    let _ = stream.set_zero_linger();
}
