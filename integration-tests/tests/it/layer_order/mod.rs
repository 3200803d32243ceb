//! The orders of `docs/layer-order.md`: each block of the page compiles, and behaves as the page
//! says.

mod buffers;
mod limits;
mod load;
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

/// The timeout of an attempt, and the delay before a retry.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_millis(2_500);

/// What the backend does with a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer,
    Take(Duration),
    Fail,
    Hang,
}

/// A client with a scripted server. Clones share the server.
#[derive(Clone)]
struct Backend(Arc<Mutex<Log>>);

struct Log {
    script: VecDeque<Act>,
    otherwise: Act,
    /// When each request arrived.
    requests: Vec<Instant>,
    running: usize,
    max_running: usize,
}

/// A request in progress, until it is dropped.
struct Running(Arc<Mutex<Log>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().running -= 1;
    }
}

impl Backend {
    /// Creates a backend that follows the script, and then does `otherwise` for each request.
    fn new(script: impl IntoIterator<Item = Act>, otherwise: Act) -> Self {
        let script = script.into_iter().collect();
        Self(Arc::new(Mutex::new(Log {
            script,
            otherwise,
            requests: Vec::new(),
            running: 0,
            max_running: 0,
        })))
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    /// Returns when each request arrived, measured from the first.
    fn times(&self) -> Vec<Duration> {
        let log = self.0.lock().unwrap();
        log.requests.iter().map(|at| *at - log.requests[0]).collect()
    }

    /// Returns the largest number of concurrent requests.
    fn max_running(&self) -> usize {
        self.0.lock().unwrap().max_running
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
            log.max_running = log.max_running.max(log.running);
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

/// Returns a layer with three attempts, one second apart.
fn retry() -> JitterRetryLayer {
    let policy = RetryPolicy::builder()
        .initial_backoff(ATTEMPT_TIMEOUT)
        .backoff_multiplier(1.0)
        .jitter(Jitter::None)
        // The default budget pays for only one retry after a timeout.
        .budget(None)
        .clock(Clock::tokio());
    JitterRetryLayer::new(policy.build().unwrap())
}

/// Returns a layer that opens at the fifth failure in a row, for longer than any test.
fn breaker() -> (BreakerLayer, Circuit) {
    let config = BreakerConfig::builder().open_for(Duration::from_secs(3_600)).clock(Clock::tokio());
    let layer = BreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit();
    (layer, circuit)
}

/// A boxed stack, so that helpers can take any order.
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

/// Makes concurrent calls, and returns their results.
async fn calls(stack: &Stack, count: usize) -> Vec<Result<u32, BoxError>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let stack = stack.clone();
        tasks.spawn(async move { call(&stack).await });
    }
    tasks.join_all().await
}
