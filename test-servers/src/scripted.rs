//! The common part of the scripted servers: handle, script, record, and connections that close with
//! the server.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::tls::{Acceptor, Stream};

/// A request that reached a server.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The number of its connection, counted from 1.
    pub connection: usize,
    /// The method.
    pub method: Method,
    /// The path with the query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, without the framing of chunks.
    ///
    /// A gRPC server records what it has read so far. There, five bytes precede each message.
    pub body: Bytes,
}

/// A server on a loopback port that takes the next step of its script for each request.
///
/// When the script is empty, it takes the default step. [`Http`](crate::Http) can have a handler
/// instead, which chooses the step. Dropping the server closes the port and all connections.
#[derive(Debug)]
pub struct ScriptedServer<S> {
    script: Arc<Script<S>>,
    scheme: &'static str,
    address: SocketAddr,
    task: AbortHandle,
}

impl<S: Clone> ScriptedServer<S> {
    /// Listens on a loopback port that the system picks, and calls `serve` for each connection with
    /// its number. With an acceptor, it first performs a TLS handshake.
    pub(crate) async fn listen<F>(
        default: S,
        tls: Option<Acceptor>,
        serve: impl Fn(Stream, Arc<Script<S>>, usize) -> F + Clone + Send + 'static,
    ) -> Self
    where
        S: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let script = Arc::new(Script::new(default));
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            // Aborting this task drops the set, and with it every connection.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                // Otherwise the kernel may send several bytes of a drip together. It fails only for
                // a socket that is already closed.
                let _ = stream.set_nodelay(true);
                let number = shared.connected();
                let (tls, serve, script) = (tls.clone(), serve.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let stream = match tls {
                        None => Some(Stream::Plain(stream)),
                        Some(tls) => tls.accept(stream).await,
                    };
                    if let Some(stream) = stream {
                        serve(stream, script, number).await;
                    }
                });
            }
        });
        Self { script, scheme, address, task: task.abort_handle() }
    }

    /// Returns `http://` or `https://` and the address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns the address of the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends steps to the script.
    pub fn script(&self, steps: impl IntoIterator<Item = S>) {
        self.script.state().steps.extend(steps);
    }

    /// Sets the step that is taken when the script is empty and there is no handler.
    pub fn set_default(&self, step: S) {
        self.script.state().default = step;
    }

    pub(crate) fn handle_with(&self, handler: Handler<S>) {
        self.script.state().handler = Some(handler);
    }

    /// Returns the number of steps that no request has taken yet.
    pub fn remaining(&self) -> usize {
        self.script.state().steps.len()
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.script.state().connections
    }

    /// Returns the recorded requests in the order of their arrival.
    ///
    /// An HTTP/1.1 request is recorded when it has been read to its end, a gRPC call when its
    /// headers have arrived.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.script.state().requests.clone()
    }

    /// Waits until `count` requests have been recorded since the start.
    ///
    /// # Panics
    ///
    /// Never: the server exists during the wait.
    pub async fn wait_for_requests(&self, count: usize) {
        let waited = self.script.recorded.subscribe().wait_for(|recorded| *recorded >= count).await.map(drop);
        waited.expect("the script owns the sender");
    }
}

impl<S> Drop for ScriptedServer<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Chooses the step for a request.
pub(crate) struct Handler<S>(Arc<dyn Fn(&RecordedRequest) -> S + Send + Sync>);

impl<S> Handler<S> {
    pub(crate) fn new(choose: impl Fn(&RecordedRequest) -> S + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    pub(crate) fn choose(&self, request: &RecordedRequest) -> S {
        (self.0)(request)
    }
}

impl<S> Clone for Handler<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The next step, or the handler that chooses it when the request has been read.
pub(crate) enum Next<S> {
    Step(S),
    Handler(Handler<S>),
}

/// The remaining script and the record. The connections share it with the server's handle.
#[derive(Debug)]
pub(crate) struct Script<S> {
    state: Mutex<State<S>>,
    recorded: watch::Sender<usize>,
}

#[derive(Debug)]
struct State<S> {
    steps: VecDeque<S>,
    default: S,
    handler: Option<Handler<S>>,
    connections: usize,
    requests: Vec<RecordedRequest>,
}

impl<S: Clone> Script<S> {
    fn new(default: S) -> Self {
        let state =
            State { steps: VecDeque::new(), default, handler: None, connections: 0, requests: Vec::new() };
        Self { state: Mutex::new(state), recorded: watch::Sender::new(0) }
    }

    /// Counts a connection, and returns its number.
    fn connected(&self) -> usize {
        let mut state = self.state();
        state.connections += 1;
        state.connections
    }

    /// Takes the next step.
    pub(crate) fn next(&self) -> S {
        let mut state = self.state();
        state.steps.pop_front().unwrap_or_else(|| state.default.clone())
    }

    /// Takes the next step. Returns the handler if the script is empty and there is a handler.
    pub(crate) fn next_or_handler(&self) -> Next<S> {
        let mut state = self.state();
        match (state.steps.pop_front(), &state.handler) {
            (Some(step), _) => Next::Step(step),
            (None, Some(handler)) => Next::Handler(handler.clone()),
            (None, None) => Next::Step(state.default.clone()),
        }
    }

    /// Takes the next step if `fits` accepts it.
    pub(crate) fn next_if(&self, fits: impl Fn(&S) -> bool) -> Option<S> {
        let mut state = self.state();
        match state.steps.front() {
            Some(step) if fits(step) => state.steps.pop_front(),
            None if state.handler.is_none() && fits(&state.default) => Some(state.default.clone()),
            _ => None,
        }
    }

    /// Records a request, and returns its index in the record.
    pub(crate) fn record(&self, request: RecordedRequest) -> usize {
        let index = {
            let mut state = self.state();
            state.requests.push(request);
            state.requests.len() - 1
        };
        self.recorded.send_modify(|recorded| *recorded += 1);
        index
    }

    /// Sets the body of a recorded request.
    pub(crate) fn record_body(&self, index: usize, body: Bytes) {
        self.state().requests[index].body = body;
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        // No code panics between two changes, so the state is valid even if the lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
