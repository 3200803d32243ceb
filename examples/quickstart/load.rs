//! The load, and what came of it.

use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::script::{Phase, Script};

/// A request falls due this often.
const EVERY: Duration = Duration::from_millis(5);

/// A client under load. Every call has a clone of its own.
pub(crate) trait Client: Clone + Send + 'static {
    /// Asks the upstream for an answer.
    fn call(self) -> impl Future<Output = End> + Send;
}

/// How a call ended for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With what was asked for.
    Answered,
    /// With an error, after one try or several.
    Failed,
    /// With a rejection, without a try.
    Rejected,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// How it ended.
    pub(crate) end: End,
    /// When it ended.
    pub(crate) at: Instant,
    /// From the moment at which the call was made until the caller knew how it ended.
    pub(crate) took: Duration,
    /// How often the request was sent.
    pub(crate) tries: u32,
}

/// What is known of one client's calls so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Calls that were made.
    pub(crate) offered: u64,
    /// Those of them that have ended.
    pub(crate) calls: Vec<Call>,
}

impl Book {
    /// How many calls have ended so.
    pub(crate) fn ended(&self, end: End) -> u64 {
        self.calls.iter().filter(|call| call.end == end).count() as u64
    }
}

/// A book that is being written. Clones are handles to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Book>>);

impl Log {
    /// Opens the book.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a call whenever one is due, from the script's start to its end, however long the others
/// take. Returns when all of them have ended.
pub(crate) async fn drive(client: impl Client, script: Script, log: Log) {
    let mut calls = JoinSet::new();
    // Half a step in, so that no call is due just when a phase begins or a second is told.
    let mut due = script.start() + EVERY / 2;
    while due < script.end_of(Phase::Healed) {
        sleep_until(due).await;
        log.book().offered += 1;
        calls.spawn(observe(client.clone(), Instant::now(), log.clone()));
        due += EVERY;
    }
    // Not `join_all`, which would pass a panic on: such a call is missing in the book, and the sums
    // tell.
    while calls.join_next().await.is_some() {}
}

/// Makes one call and writes down what came of it.
async fn observe(client: impl Client, made: Instant, log: Log) {
    let call = async {
        let end = client.call().await;
        let at = Instant::now();
        Call { end, at, took: at - made, tries: tries() }
    };
    let call = SENT.scope(Cell::new(0), call).await;
    log.book().calls.push(call);
}

tokio::task_local! {
    /// How often the call that this task makes has been sent.
    static SENT: Cell<u32>;
}

/// Notes that a request is sent. To be called within [`Client::call`] only.
pub(crate) fn count_try() {
    SENT.with(|sent| sent.set(sent.get() + 1));
}

/// How often this task's request has been sent.
pub(crate) fn tries() -> u32 {
    SENT.with(Cell::get)
}
