//! The orders of `docs/layer-order.md`: each compiles as it stands there, and means what the page
//! says.

mod buffers;
mod limits;
mod page;
mod redirects;
mod retries_and_breakers;
mod uploads;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, Clock};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

/// How long an attempt may take.
const EACH: Duration = Duration::from_secs(1);

/// How long a call may take.
const TOTAL: Duration = Duration::from_millis(2_500);

/// What the backend does with a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer,
    Take(Duration),
    Fail,
    Hang,
}

/// A server, as its client sees it. Clones are the same server.
#[derive(Clone)]
struct Backend(Arc<Mutex<Log>>);

struct Log {
    script: VecDeque<Act>,
    otherwise: Act,
    /// When each request came.
    requests: Vec<Instant>,
    running: usize,
    most: usize,
}

/// A request that runs, until it is dropped.
struct Running(Arc<Mutex<Log>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().running -= 1;
    }
}

impl Backend {
    /// Plays the script, then does `otherwise`.
    fn new(script: impl IntoIterator<Item = Act>, otherwise: Act) -> Self {
        let script = script.into_iter().collect();
        Self(Arc::new(Mutex::new(Log { script, otherwise, requests: Vec::new(), running: 0, most: 0 })))
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    /// When each request came, counted from the first.
    fn times(&self) -> Vec<Duration> {
        let log = self.0.lock().unwrap();
        log.requests.iter().map(|at| *at - log.requests[0]).collect()
    }

    /// How many ran at once at most.
    fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }
}

impl Service<u32> for Backend {
    type Response = u32;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<u32, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let act = {
            let mut log = self.0.lock().unwrap();
            log.requests.push(Instant::now());
            log.running += 1;
            log.most = log.most.max(log.running);
            let otherwise = log.otherwise;
            log.script.pop_front().unwrap_or(otherwise)
        };
        let running = Running(Arc::clone(&self.0));
        Box::pin(async move {
            let _running = running;
            match act {
                Act::Answer => Ok(request),
                Act::Take(time) => {
                    tokio::time::sleep(time).await;
                    Ok(request)
                }
                Act::Fail => Err(io::ErrorKind::ConnectionReset.into()),
                Act::Hang => std::future::pending().await,
            }
        })
    }
}

/// Three attempts, a second apart.
fn retry() -> JitterRetryLayer {
    let policy = RetryPolicy::builder()
        .initial_backoff(EACH)
        .backoff_multiplier(1.0)
        .jitter(Jitter::None)
        .clock(Clock::tokio());
    JitterRetryLayer::new(policy.build().unwrap())
}

/// Opens at the fifth failure in a row, for longer than any test.
fn breaker() -> (BreakerLayer, Circuit) {
    let config = BreakerConfig::builder().open_for(Duration::from_secs(3_600)).clock(Clock::tokio());
    let layer = BreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit();
    (layer, circuit)
}

/// A stack with its types put away: many callers share it.
type Stack = BoxCloneSyncService<u32, u32, BoxError>;

fn boxed<S>(stack: S) -> Stack
where
    S: Service<u32, Response = u32, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(stack.map_err(Into::into))
}

async fn call(stack: &Stack) -> Result<u32, BoxError> {
    stack.clone().oneshot(7).await
}

/// So many calls at once, and what each came to.
async fn calls(stack: &Stack, many: usize) -> Vec<Result<u32, BoxError>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..many {
        let stack = stack.clone();
        tasks.spawn(async move { call(&stack).await });
    }
    tasks.join_all().await
}
