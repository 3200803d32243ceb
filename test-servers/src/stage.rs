//! What both servers have: a script, a record, and connections that end with them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A request that reached a server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The connection it came on, counted from 1.
    pub connection: usize,
    /// Its method.
    pub method: Method,
    /// Its path, with the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, without the framing of chunks. Over gRPC, what has been read so far: five bytes go before each message.
    pub body: Bytes,
}

/// The script that is left, and the record so far. Connections share it with the handle that the test has.
#[derive(Debug)]
pub(super) struct Stage<A> {
    play: Mutex<Play<A>>,
    arrived: watch::Sender<usize>,
}

#[derive(Debug)]
struct Play<A> {
    script: VecDeque<A>,
    otherwise: A,
    connections: usize,
    requests: Vec<Seen>,
}

impl<A: Clone> Stage<A> {
    pub(super) fn new(otherwise: A) -> Self {
        let play = Play { script: VecDeque::new(), otherwise, connections: 0, requests: Vec::new() };
        Self { play: Mutex::new(play), arrived: watch::Sender::new(0) }
    }

    pub(super) fn script(&self, acts: impl IntoIterator<Item = A>) {
        self.play().script.extend(acts);
    }

    pub(super) fn otherwise(&self, act: A) {
        self.play().otherwise = act;
    }

    pub(super) fn left(&self) -> usize {
        self.play().script.len()
    }

    pub(super) fn connections(&self) -> usize {
        self.play().connections
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.play().requests.clone()
    }

    pub(super) async fn arrived(&self, count: usize) {
        let seen = self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.map(drop);
        seen.expect("the sender lives in `self`");
    }

    /// Counts a connection, and says its number.
    fn connected(&self) -> usize {
        let mut play = self.play();
        play.connections += 1;
        play.connections
    }

    /// Takes the next act.
    pub(super) fn next(&self) -> A {
        let mut play = self.play();
        play.script.pop_front().unwrap_or_else(|| play.otherwise.clone())
    }

    /// Takes the next act if it is one of these.
    pub(super) fn next_if(&self, fits: impl Fn(&A) -> bool) -> Option<A> {
        let mut play = self.play();
        match play.script.front() {
            Some(act) if fits(act) => play.script.pop_front(),
            None if fits(&play.otherwise) => Some(play.otherwise.clone()),
            _ => None,
        }
    }

    /// Records a request, and says its place in the record.
    pub(super) fn record(&self, seen: Seen) -> usize {
        let place = {
            let mut play = self.play();
            play.requests.push(seen);
            play.requests.len() - 1
        };
        self.arrived.send_modify(|arrived| *arrived += 1);
        place
    }

    /// Sets the body of a recorded request.
    pub(super) fn record_body(&self, place: usize, body: Bytes) {
        self.play().requests[place].body = body;
    }

    fn play(&self) -> MutexGuard<'_, Play<A>> {
        // Nothing panics halfway through a change.
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener and its connections. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    address: SocketAddr,
    task: AbortHandle,
}

impl Listening {
    /// Listens on a loopback port that the system picks, and gives each connection, with its number, to `serve`.
    pub(super) async fn start<A, S, F>(stage: Arc<Stage<A>>, serve: S) -> Self
    where
        A: Clone + Send + Sync + 'static,
        S: Fn(TcpStream, Arc<Stage<A>>, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let task = tokio::spawn(async move {
            // Dropped, and with it every connection, when this task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let number = stage.connected();
                connections.spawn(serve(stream, Arc::clone(&stage), number));
            }
        });
        Self { address, task: task.abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}
