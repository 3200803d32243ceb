//! What every stack is put through, and what must come out.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use test_servers::{Action, Http, RecordedRequest, RefusedPort};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, Service};
use tower_breaker::Counts;

use crate::ATTEMPTS;

pub(crate) const REQUESTS: usize = 10_000;
const CONCURRENCY: usize = 256;
/// One in so many goes to a port where nobody listens.
const UNREACHED: usize = 50;

/// Each soak has some five hundred sockets open, and half of the default limit is theirs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What a request is and where it goes.
pub(crate) struct Order {
    pub(crate) number: usize,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Empty for a GET.
    pub(crate) body: Bytes,
}

impl Order {
    pub(crate) fn new(number: usize) -> Self {
        let (method, times) = match number % 4 {
            0 | 1 => (Method::GET, 0),
            _ if number.is_multiple_of(97) => (Method::POST, 4_000),
            _ => (Method::POST, number % 13 + 1),
        };
        Self { number, method, path: format!("/{number}"), body: format!("{number} ").repeat(times).into() }
    }

    pub(crate) fn is_reachable(&self) -> bool {
        !self.number.is_multiple_of(UNREACHED)
    }

    /// What it is answered with, if all goes well.
    pub(crate) fn echo(&self) -> Bytes {
        [self.path.as_bytes(), b"\n", &*self.body].concat().into()
    }
}

/// The number in the path of a request.
pub(crate) fn number(path: &str) -> usize {
    path.trim_start_matches('/').parse().unwrap()
}

/// What one attempt came to, as the test reads it, and not our tables.
pub(crate) enum Came {
    Fine,
    /// Known not to have been processed, and nobody's failure.
    Throttled,
    /// No connection was made.
    Unreached,
    Failed,
}

impl Came {
    pub(crate) fn with(status: http::StatusCode) -> Self {
        match status.as_u16() {
            200 => Self::Fine,
            429 => Self::Throttled,
            _ => Self::Failed,
        }
    }

    pub(crate) fn without_an_answer(unreached: bool) -> Self {
        if unreached { Self::Unreached } else { Self::Failed }
    }
}

/// What was attempted, as the layer has counted it that stands directly above the client.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Entries>);

struct Entries {
    attempts: Vec<AtomicU32>,
    /// Those of them that the server is known not to have processed.
    unprocessed: Vec<AtomicU32>,
    fine: AtomicUsize,
    throttled: AtomicUsize,
}

impl Default for Entries {
    fn default() -> Self {
        let zeros = || (0..REQUESTS).map(|_| AtomicU32::new(0)).collect();
        Self {
            attempts: zeros(),
            unprocessed: zeros(),
            fine: AtomicUsize::new(0),
            throttled: AtomicUsize::new(0),
        }
    }
}

impl Ledger {
    pub(crate) fn layer<N, J>(&self, number: N, judge: J) -> CountLayer<N, J> {
        CountLayer { ledger: self.clone(), number, judge }
    }

    fn attempts(&self, number: usize) -> u32 {
        self.0.attempts[number].load(Ordering::Relaxed)
    }

    fn unprocessed(&self, number: usize) -> u32 {
        self.0.unprocessed[number].load(Ordering::Relaxed)
    }

    fn all_attempts(&self, of: impl Fn(usize) -> bool) -> usize {
        (0..REQUESTS).filter(|number| of(*number)).map(|number| self.attempts(number) as usize).sum()
    }

    fn came(&self, number: usize, came: &Came) {
        match came {
            Came::Fine => drop(self.0.fine.fetch_add(1, Ordering::Relaxed)),
            Came::Throttled => drop(self.0.throttled.fetch_add(1, Ordering::Relaxed)),
            Came::Unreached | Came::Failed => {}
        }
        if matches!(came, Came::Throttled | Came::Unreached) {
            self.0.unprocessed[number].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
pub(crate) struct CountLayer<N, J> {
    ledger: Ledger,
    number: N,
    judge: J,
}

impl<S, N: Clone, J: Clone> Layer<S> for CountLayer<N, J> {
    type Service = Counting<S, N, J>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting { inner, by: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Counting<S, N, J> {
    inner: S,
    by: CountLayer<N, J>,
}

impl<S, N, J, Request> Service<Request> for Counting<S, N, J>
where
    S: Service<Request>,
    N: Fn(&Request) -> usize,
    J: Fn(&Result<S::Response, S::Error>) -> Came + Clone + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Counted<S::Future, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let number = (self.by.number)(&request);
        self.by.ledger.0.attempts[number].fetch_add(1, Ordering::Relaxed);
        let (ledger, judge) = (self.by.ledger.clone(), self.by.judge.clone());
        Counted { inner: Box::pin(self.inner.call(request)), ledger, number, judge }
    }
}

pub(crate) struct Counted<F, J> {
    inner: Pin<Box<F>>,
    ledger: Ledger,
    number: usize,
    judge: J,
}

impl<T, E, F, J> Future for Counted<F, J>
where
    F: Future<Output = Result<T, E>>,
    J: Fn(&Result<T, E>) -> Came + Unpin,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let result = std::task::ready!(self.inner.as_mut().poll(cx));
        self.ledger.came(self.number, &(self.judge)(&result));
        Poll::Ready(result)
    }
}

/// Two acts in ten are faults: each of these in turn. None ends a connection that the client may
/// believe to be idle, for what is sent over such a one is counted or not as chance has it.
fn mix() -> Vec<Action> {
    let faults = [
        Action::status(503),
        Action::ResetAfterRequest,
        Action::status(429),
        Action::status(200).body("cut").content_length(10).then_close(),
        Action::status(500).header("connection", "close").then_close(),
        Action::CloseAfterRequest,
        Action::ResetBeforeRequest,
        Action::status(200).body("cut").chunked_without_end().then_close(),
        Action::status(502).body("what happened"),
    ];
    let tens = REQUESTS * ATTEMPTS as usize / 10;
    let mut faults = faults.into_iter().cycle();
    (0..tens * 10)
        .map(|place| if place % 10 == 3 || place % 10 == 7 { faults.next() } else { None })
        .map(|fault| fault.unwrap_or(Action::Echo))
        .collect()
}

/// A server that fails as [`mix`] says, and a port without one.
pub(crate) struct Upstream {
    server: Http,
    refused: RefusedPort,
    script: Vec<Action>,
    _alone: MutexGuard<'static, ()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let (server, script) = (Http::start().await, mix());
        server.script(script.clone());
        Self { server, refused: RefusedPort::bind(), script, _alone: alone }
    }

    /// Where this request goes: a base without a path.
    pub(crate) fn base(&self) -> impl Fn(&Order) -> String + Clone + Send + Sync + 'static {
        let (server, refused) = (self.server.url(), self.refused.url());
        move |order| if order.is_reachable() { server.clone() } else { refused.clone() }
    }

    /// Compares what the client's side has counted with what the server's side has.
    pub(crate) fn check(&self, ends: &Ends, ledger: &Ledger, window: Counts) {
        let taken = self.script.len() - self.server.remaining();
        let unread =
            self.script[..taken].iter().filter(|act| matches!(act, Action::ResetBeforeRequest)).count();
        check(ends, ledger, window, &self.server.requests(), unread);
    }
}

/// What the requests came to, for their callers.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Answered by an echo, which was whole.
    answered: usize,
    /// Answered by another status.
    turned_down: usize,
    /// Not answered, or not to the end.
    failed: usize,
}

/// Sends them all. `send` comes to the status and the whole body, or to the error of either.
pub(crate) async fn run<F, Fut>(send: F) -> Ends
where
    F: Fn(Order) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(u16, Bytes), BoxError>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (next, send) = (Arc::clone(&next), send.clone());
        workers.spawn(async move {
            let mut ends = Ends::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return ends;
                }
                let order = Order::new(number);
                let echo = order.echo();
                match send(order).await {
                    Ok((200, body)) => {
                        assert!(body == echo, "request {number} was answered with {body:?}");
                        ends.answered += 1;
                    }
                    Ok(_) => ends.turned_down += 1,
                    Err(_) => ends.failed += 1,
                }
            }
        });
    }
    workers.join_all().await.into_iter().fold(Ends::default(), |sum, ends| Ends {
        answered: sum.answered + ends.answered,
        turned_down: sum.turned_down + ends.turned_down,
        failed: sum.failed + ends.failed,
    })
}

/// `unread`: how often a request arrived and was not read, so that it is not among those that were
/// `seen`.
pub(crate) fn check(ends: &Ends, ledger: &Ledger, window: Counts, seen: &[RecordedRequest], unread: usize) {
    assert_eq!(ends.answered + ends.turned_down + ends.failed, REQUESTS);
    assert!(ends.answered > REQUESTS * 8 / 10, "{ends:?}");

    let reachable = |number| Order::new(number).is_reachable();
    let attempts = ledger.all_attempts(reachable);
    assert_eq!(attempts, seen.len() + unread, "{ends:?}");
    assert!(attempts > REQUESTS, "some were sent again");

    let mut times = HashMap::new();
    for request in seen {
        let order = Order::new(number(&request.path));
        assert_eq!(request.method, order.method);
        assert!(request.body == order.body, "request {} arrived as {:?}", order.number, request.body);
        *times.entry(order.number).or_insert(0) += 1;
    }
    for number in 0..REQUESTS {
        let (attempts, seen) = (ledger.attempts(number), times.get(&number).copied().unwrap_or(0));
        let order = Order::new(number);
        assert!(
            (1..=ATTEMPTS).contains(&attempts) && seen <= attempts,
            "request {number}: {attempts}, {seen}"
        );
        if !order.is_reachable() {
            assert_eq!((attempts, ledger.unprocessed(number), seen), (ATTEMPTS, ATTEMPTS, 0));
        } else if order.method == Method::POST {
            // All attempts but the last one.
            assert!(ledger.unprocessed(number) + 1 >= attempts, "POST {number} was sent {attempts} times");
        }
    }

    let (fine, throttled) =
        (ledger.0.fine.load(Ordering::Relaxed), ledger.0.throttled.load(Ordering::Relaxed));
    let all = ledger.all_attempts(|_| true);
    assert_eq!((window.slow, window.cancelled), (0, 0));
    assert_eq!(window.calls as usize, all - throttled, "what is throttled says nothing of health");
    assert_eq!(window.failures as usize, all - throttled - fine);
}
