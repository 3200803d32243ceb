//! The load on every stack, and the checks of its outcome.

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
/// One request in 50 goes to a port that refuses connections.
const UNREACHABLE_EVERY: usize = 50;

/// Runs one soak at a time. Each has about 500 open sockets, which is half of the default limit.
static ONE_SOAK_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A request and its target.
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
        !self.number.is_multiple_of(UNREACHABLE_EVERY)
    }

    /// Returns the body of a successful answer.
    pub(crate) fn echo(&self) -> Bytes {
        [self.path.as_bytes(), b"\n", &*self.body].concat().into()
    }
}

/// Returns the number in the path of a request.
pub(crate) fn number(path: &str) -> usize {
    path.trim_start_matches('/').parse().unwrap()
}

/// The outcome of one attempt, classified by the test without the tables of the crates.
pub(crate) enum AttemptOutcome {
    Success,
    /// The server did not process the request. This is not a failure of the server.
    Throttled,
    /// The connection was refused.
    NotConnected,
    Failed,
}

impl AttemptOutcome {
    pub(crate) fn from_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            200 => Self::Success,
            429 => Self::Throttled,
            _ => Self::Failed,
        }
    }

    pub(crate) fn without_response(not_connected: bool) -> Self {
        if not_connected { Self::NotConnected } else { Self::Failed }
    }
}

/// The attempts, as counted by a layer directly around the client.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Entries>);

struct Entries {
    attempts: Vec<AtomicU32>,
    /// The attempts that the server did not process.
    unprocessed: Vec<AtomicU32>,
    successes: AtomicUsize,
    throttled: AtomicUsize,
}

impl Default for Entries {
    fn default() -> Self {
        let zeros = || (0..REQUESTS).map(|_| AtomicU32::new(0)).collect();
        Self {
            attempts: zeros(),
            unprocessed: zeros(),
            successes: AtomicUsize::new(0),
            throttled: AtomicUsize::new(0),
        }
    }
}

impl Ledger {
    pub(crate) fn layer<N, C>(&self, number: N, classify: C) -> CountLayer<N, C> {
        CountLayer { ledger: self.clone(), number, classify }
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

    fn record(&self, number: usize, outcome: &AttemptOutcome) {
        match outcome {
            AttemptOutcome::Success => drop(self.0.successes.fetch_add(1, Ordering::Relaxed)),
            AttemptOutcome::Throttled => drop(self.0.throttled.fetch_add(1, Ordering::Relaxed)),
            AttemptOutcome::NotConnected | AttemptOutcome::Failed => {}
        }
        if matches!(outcome, AttemptOutcome::Throttled | AttemptOutcome::NotConnected) {
            self.0.unprocessed[number].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
pub(crate) struct CountLayer<N, C> {
    ledger: Ledger,
    number: N,
    classify: C,
}

impl<S, N: Clone, C: Clone> Layer<S> for CountLayer<N, C> {
    type Service = Counting<S, N, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting { inner, by: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Counting<S, N, C> {
    inner: S,
    by: CountLayer<N, C>,
}

impl<S, N, C, Request> Service<Request> for Counting<S, N, C>
where
    S: Service<Request>,
    N: Fn(&Request) -> usize,
    C: Fn(&Result<S::Response, S::Error>) -> AttemptOutcome + Clone + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Counted<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let number = (self.by.number)(&request);
        self.by.ledger.0.attempts[number].fetch_add(1, Ordering::Relaxed);
        let (ledger, classify) = (self.by.ledger.clone(), self.by.classify.clone());
        Counted { inner: Box::pin(self.inner.call(request)), ledger, number, classify }
    }
}

pub(crate) struct Counted<F, C> {
    inner: Pin<Box<F>>,
    ledger: Ledger,
    number: usize,
    classify: C,
}

impl<T, E, F, C> Future for Counted<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> AttemptOutcome + Unpin,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let result = std::task::ready!(self.inner.as_mut().poll(cx));
        self.ledger.record(self.number, &(self.classify)(&result));
        Poll::Ready(result)
    }
}

/// Returns a script with two faults in ten actions.
///
/// No fault ends a connection that the client may believe to be idle. Whether a request on such a
/// connection reaches the server is random.
fn mixed_script() -> Vec<Action> {
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
    let groups = REQUESTS * ATTEMPTS as usize / 10;
    let mut faults = faults.into_iter().cycle();
    (0..groups * 10)
        .map(|index| if index % 10 == 3 || index % 10 == 7 { faults.next() } else { None })
        .map(|fault| fault.unwrap_or(Action::Echo))
        .collect()
}

/// A server that follows [`mixed_script`], and a port that refuses connections.
pub(crate) struct Upstream {
    server: Http,
    refused: RefusedPort,
    script: Vec<Action>,
    _lock: MutexGuard<'static, ()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let lock = ONE_SOAK_AT_A_TIME.lock().await;
        let (server, script) = (Http::start().await, mixed_script());
        server.script(script.clone());
        Self { server, refused: RefusedPort::bind(), script, _lock: lock }
    }

    /// Returns a function from a request to the URL of its target, without a path.
    pub(crate) fn base(&self) -> impl Fn(&Order) -> String + Clone + Send + Sync + 'static {
        let (server, refused) = (self.server.url(), self.refused.url());
        move |order| if order.is_reachable() { server.clone() } else { refused.clone() }
    }

    /// Compares the counts of the client with those of the server.
    pub(crate) fn check(&self, outcomes: &CallOutcomes, ledger: &Ledger, window: Counts) {
        let taken = self.script.len() - self.server.remaining();
        let unread =
            self.script[..taken].iter().filter(|action| matches!(action, Action::ResetBeforeRequest)).count();
        check(outcomes, ledger, window, &self.server.requests(), unread);
    }
}

/// How the requests ended for their callers.
#[derive(Debug, Default)]
pub(crate) struct CallOutcomes {
    /// Answered with the complete echo.
    answered: usize,
    /// Answered with another status.
    other_status: usize,
    /// Not answered, or not completely.
    failed: usize,
}

/// Sends all requests. `send` returns the status and the complete body, or an error.
pub(crate) async fn run<F, Fut>(send: F) -> CallOutcomes
where
    F: Fn(Order) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(u16, Bytes), BoxError>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (next, send) = (Arc::clone(&next), send.clone());
        workers.spawn(async move {
            let mut outcomes = CallOutcomes::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return outcomes;
                }
                let order = Order::new(number);
                let echo = order.echo();
                match send(order).await {
                    Ok((200, body)) => {
                        assert!(body == echo, "request {number} was answered with {body:?}");
                        outcomes.answered += 1;
                    }
                    Ok(_) => outcomes.other_status += 1,
                    Err(_) => outcomes.failed += 1,
                }
            }
        });
    }
    workers.join_all().await.into_iter().fold(CallOutcomes::default(), |sum, outcomes| CallOutcomes {
        answered: sum.answered + outcomes.answered,
        other_status: sum.other_status + outcomes.other_status,
        failed: sum.failed + outcomes.failed,
    })
}

/// Checks that all counts agree.
///
/// `unread` is the number of requests that arrived but were not read. They are not in `requests`.
pub(crate) fn check(
    outcomes: &CallOutcomes,
    ledger: &Ledger,
    window: Counts,
    requests: &[RecordedRequest],
    unread: usize,
) {
    assert_eq!(outcomes.answered + outcomes.other_status + outcomes.failed, REQUESTS);
    assert!(outcomes.answered > REQUESTS * 8 / 10, "{outcomes:?}");

    let reachable = |number| Order::new(number).is_reachable();
    let attempts = ledger.all_attempts(reachable);
    assert_eq!(attempts, requests.len() + unread, "{outcomes:?}");
    assert!(attempts > REQUESTS, "some requests are sent again");

    let mut received = HashMap::new();
    for request in requests {
        let order = Order::new(number(&request.path));
        assert_eq!(request.method, order.method);
        assert!(request.body == order.body, "request {} arrived as {:?}", order.number, request.body);
        *received.entry(order.number).or_insert(0) += 1;
    }
    for number in 0..REQUESTS {
        let (attempts, received) = (ledger.attempts(number), received.get(&number).copied().unwrap_or(0));
        let order = Order::new(number);
        assert!(
            (1..=ATTEMPTS).contains(&attempts) && received <= attempts,
            "request {number}: {attempts} attempts, {received} received"
        );
        if !order.is_reachable() {
            assert_eq!((attempts, ledger.unprocessed(number), received), (ATTEMPTS, ATTEMPTS, 0));
        } else if order.method == Method::POST {
            // The server processed none of the attempts before the last one.
            assert!(ledger.unprocessed(number) + 1 >= attempts, "POST {number} was sent {attempts} times");
        }
    }

    let (successes, throttled) =
        (ledger.0.successes.load(Ordering::Relaxed), ledger.0.throttled.load(Ordering::Relaxed));
    let all = ledger.all_attempts(|_| true);
    assert_eq!((window.slow, window.cancelled), (0, 0));
    assert_eq!(window.calls as usize, all - throttled, "throttled attempts do not count");
    assert_eq!(window.failures as usize, all - throttled - successes);
}
