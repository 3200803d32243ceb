//! An upstream that plays the script and counts what reaches it.

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

use crate::script::{Deed, PHASES, Phase, Script};

/// A running server. Clones are handles to it.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    script: Script,
    /// The requests that came, by phase: also those that were reset or left to hang.
    reached: Arc<[AtomicU64; PHASES.len()]>,
}

impl Upstream {
    /// Starts one on a loopback port that the system picks, and says where.
    pub(crate) async fn start(script: Script) -> io::Result<(Self, Url)> {
        let upstream = Self { script, reached: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let url = Url::parse(&url).map_err(io::Error::other)?;
        let router = Router::new().route("/", get(answer)).with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener.tap_io(end_in_a_reset), router).await });
        Ok((upstream, url))
    }

    /// How many requests have come in a phase so far.
    pub(crate) fn reached_in(&self, phase: Phase) -> u64 {
        self.reached[phase as usize].load(Ordering::Relaxed)
    }

    /// How many requests have come so far.
    pub(crate) fn reached(&self) -> u64 {
        PHASES.iter().map(|(phase, _)| self.reached_in(*phase)).sum()
    }
}

/// What a router's handler does with each request.
async fn answer(State(upstream): State<Upstream>) -> Response {
    let now = Instant::now();
    let earlier = upstream.reached[upstream.script.phase(now) as usize].fetch_add(1, Ordering::Relaxed);
    match upstream.script.deed(now, earlier) {
        Deed::Answer => "ok\n".into_response(),
        Deed::Unavailable(None) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Deed::Unavailable(Some(seconds)) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds.to_string())]).into_response()
        }
        // Ends the connection's task, and with it the socket, without a word from the panic hook.
        Deed::Reset => resume_unwind(Box::new("the script resets this connection")),
        Deed::Hang => pending().await,
    }
}

/// Makes the kernel send a RST, not a FIN, when this side drops the socket.
fn end_in_a_reset(stream: &mut TcpStream) {
    // A socket that is closed already can be reset no more.
    let _ = stream.set_zero_linger();
}
