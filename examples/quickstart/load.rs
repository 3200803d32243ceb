//! The load on both clients, and the log of how their calls end.

use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::script::Script;

/// The time between two calls of one client: 200 calls a second.
const CALL_INTERVAL: Duration = Duration::from_millis(5);

/// A client under load. Each call uses its own clone.
pub(crate) trait Client: Clone + Send + 'static {
    /// Makes one call to the server.
    fn call(self) -> impl Future<Output = Outcome> + Send;
}

/// How a call ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With an answer of the server.
    Answered,
    /// With an error, after one request or more.
    Failed,
    /// With a rejection by the open circuit, without a request.
    Rejected,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// When it ended.
    pub(crate) ended_at: Instant,
    /// The time from the start of the call to its end.
    pub(crate) latency: Duration,
    /// The number of requests that the client sent for it.
    pub(crate) requests: u32,
}

/// The calls of one client so far.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    /// The number of calls that were started.
    pub(crate) started: u64,
    /// The calls that have ended.
    pub(crate) ended: Vec<Call>,
}

impl CallLog {
    /// Returns the number of calls with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.ended.iter().filter(|call| call.outcome == outcome).count() as u64
    }
}

/// A log that is being written. Clones share the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedLog(Arc<Mutex<CallLog>>);

impl SharedLog {
    /// Locks the log.
    pub(crate) fn lock(&self) -> MutexGuard<'_, CallLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a call every [`CALL_INTERVAL`] while the script runs, and then waits for all calls.
///
/// A call starts on time even if earlier calls are still running, as the users of a service do not
/// wait for each other.
pub(crate) async fn generate_load(client: impl Client, script: Script, log: SharedLog) {
    let mut calls = JoinSet::new();
    // Half an interval later, so that no call starts exactly when a phase or a second ends.
    let mut next_start = script.start() + CALL_INTERVAL / 2;
    while next_start < script.end() {
        sleep_until(next_start).await;
        log.lock().started += 1;
        calls.spawn(record_call(client.clone(), Instant::now(), log.clone()));
        next_start += CALL_INTERVAL;
    }
    // Not `join_all`, which would resume a panic. A call that panics is missing in the log, and the
    // totals of the report show it.
    while calls.join_next().await.is_some() {}
}

/// Makes one call and adds it to the log.
async fn record_call(client: impl Client, started_at: Instant, log: SharedLog) {
    let call = async {
        let outcome = client.call().await;
        let ended_at = Instant::now();
        Call { outcome, ended_at, latency: ended_at - started_at, requests: requests_sent() }
    };
    let call = REQUESTS_SENT.scope(Cell::new(0), call).await;
    log.lock().ended.push(call);
}

tokio::task_local! {
    /// The number of requests that the current call has sent.
    static REQUESTS_SENT: Cell<u32>;
}

/// Counts one request of the current call. It panics outside [`Client::call`].
pub(crate) fn count_request() {
    REQUESTS_SENT.with(|sent| sent.set(sent.get() + 1));
}

/// Returns the number of requests that the current call has sent. It panics outside
/// [`Client::call`].
pub(crate) fn requests_sent() -> u32 {
    REQUESTS_SENT.with(Cell::get)
}
