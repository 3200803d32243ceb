//! The agents of the demo: one HTTP server, with a path for each agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use http::StatusCode;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Agents>>);

#[derive(Default)]
struct Agents {
    down: BTreeSet<String>,
    calls: BTreeMap<String, usize>,
}

/// The running agents.
pub(super) struct DemoAgents {
    address: SocketAddr,
    shared: Shared,
}

impl DemoAgents {
    pub(super) async fn start() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("loopback cannot be bound")?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let router = Router::new()
            .route("/{agent}/call", get(call))
            .route("/{agent}/health", get(health))
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set_down(&self, agent: &str, is_down: bool) {
        let mut agents = self.shared.lock();
        if is_down {
            agents.down.insert(agent.to_owned());
        } else {
            agents.down.remove(agent);
        }
    }

    /// Returns the number of calls of an agent so far, without its health probes.
    pub(super) fn calls(&self, agent: &str) -> usize {
        self.shared.lock().calls.get(agent).copied().unwrap_or_default()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Agents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, agent: &str) -> StatusCode {
        if self.lock().down.contains(agent) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }
}

async fn call(State(shared): State<Shared>, Path(agent): Path<String>) -> StatusCode {
    let status = shared.status(&agent);
    *shared.lock().calls.entry(agent).or_default() += 1;
    status
}

async fn health(State(shared): State<Shared>, Path(agent): Path<String>) -> StatusCode {
    shared.status(&agent)
}
