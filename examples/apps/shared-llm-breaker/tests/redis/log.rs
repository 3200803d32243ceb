//! The seven log events.

use std::fmt::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shared_llm_breaker::{BreakerSettings, CircuitBreaker, CircuitState};
use test_servers::Redis;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::subscriber::set_global_default;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::support::{CallError, fail, fail_times, settings, start, succeed, until_admitted, until_state};

type CallResult = Result<&'static str, CallError>;

/// The events of all tests as lines of text.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Collects the events of all breakers of this process, from before the first one.
///
/// A subscriber of one thread could miss an event that another thread logs first.
pub(crate) fn collect() {
    static COLLECTS: OnceLock<()> = OnceLock::new();
    COLLECTS.get_or_init(|| set_global_default(tracing_subscriber::registry().with(Log)).unwrap());
}

/// Returns the events of a breaker since the last call.
fn take(breaker: &str) -> Vec<String> {
    let name = format!("breaker={breaker:?}");
    LINES.lock().unwrap().extract_if(.., |line| line.contains(&name)).collect()
}

struct Log;

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "shared_llm_breaker" {
            let mut line = Line::default();
            event.record(&mut line);
            let line = format!("{} {}{}", event.metadata().level(), line.message, line.fields);
            LINES.lock().unwrap().push(line);
        }
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            write!(self.fields, " {}={value:?}", field.name()).unwrap();
        }
    }
}

#[tokio::test]
async fn each_event_is_logged_once_with_its_fields() {
    let redis = Redis::start();
    let settings = BreakerSettings { fail_max: 2, ..settings("a") };
    let breaker = start(&redis.url(), "seven", settings).await;

    succeed(&breaker).await.unwrap();
    assert_eq!(take("seven"), [r#"DEBUG circuit_breaker_success breaker="seven""#]);

    fail_times(&breaker, 2).await;
    let failure = |count| {
        format!(r#"WARN circuit_breaker_failure breaker="seven" fail_counter={count} error=status 503"#)
    };
    let change = |old, new| {
        format!(r#"WARN circuit_breaker_state_change breaker="seven" old_state="{old}" new_state="{new}""#)
    };
    assert_eq!(take("seven"), [failure(1), change("closed", "open"), failure(2)]);

    until_admitted(async || fail(&breaker).await).await.unwrap_err();
    until_state(&breaker, CircuitState::Open).await;
    let half_open_failure = r#"WARN circuit_breaker_half_open_failure breaker="seven""#.to_owned();
    let expected = [change("open", "half-open"), failure(3), half_open_failure, change("half-open", "open")];
    assert_eq!(take("seven"), expected);

    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_state(&breaker, CircuitState::Closed).await;
    let success = r#"DEBUG circuit_breaker_success breaker="seven""#.to_owned();
    let half_open_success = |count| {
        format!(
            r#"DEBUG circuit_breaker_half_open_success breaker="seven" success_count={count} threshold=2"#
        )
    };
    let closing = r#"INFO circuit_breaker_closing breaker="seven""#.to_owned();
    let expected = [
        change("open", "half-open"),
        success.clone(),
        half_open_success(1),
        success,
        half_open_success(2),
        closing,
        change("half-open", "closed"),
    ];
    assert_eq!(take("seven"), expected);

    breaker.reset().await.unwrap();
    assert_eq!(take("seven"), [r#"INFO circuit_breaker_reset breaker="seven""#]);
}

#[tokio::test]
async fn reset_of_open_circuit_logs_reset_and_no_closing() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "reset", settings("a")).await;
    fail_times(&breaker, 5).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    take("reset");
    breaker.reset().await.unwrap();
    let expected = [
        r#"WARN circuit_breaker_state_change breaker="reset" old_state="half-open" new_state="closed""#,
        r#"INFO circuit_breaker_reset breaker="reset""#,
    ];
    assert_eq!(take("reset"), expected);
}

#[tokio::test]
async fn worker_without_a_probe_logs_no_closing() {
    let redis = Redis::start();
    let probing = start(&redis.url(), "closing", settings("a")).await;
    let idle = start(&redis.url(), "closing", settings("b")).await;
    fail_times(&probing, 5).await;
    until_state(&idle, CircuitState::Open).await;
    until_admitted(async || succeed(&probing).await).await.unwrap();
    until_admitted(async || succeed(&probing).await).await.unwrap();
    until_state(&probing, CircuitState::Closed).await;
    until_state(&idle, CircuitState::Closed).await;
    let closing = take("closing").iter().filter(|line| line.contains("circuit_breaker_closing")).count();
    assert_eq!(closing, 1, "only the worker that has probed logs it");
}

/// Starts a probe whose reply is sent later.
async fn slow_probe(breaker: &CircuitBreaker) -> (oneshot::Sender<()>, BoxFuture<'static, CallResult>) {
    loop {
        let (breaker, (finish, finished)) = (breaker.clone(), oneshot::channel());
        let reply = async {
            finished.await.unwrap();
            Ok("late reply")
        };
        let mut call = async move { breaker.call(reply).await }.boxed();
        match call.as_mut().now_or_never() {
            None => return (finish, call),
            Some(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test]
async fn late_success_of_an_earlier_probe_is_not_logged_as_half_open_success() {
    let redis = Redis::start();
    let settings = BreakerSettings { probes: 2, ..settings("a") };
    let breaker = start(&redis.url(), "late", settings).await;
    fail_times(&breaker, 5).await;
    let (finish, late) = slow_probe(&breaker).await;
    until_admitted(async || fail(&breaker).await).await.unwrap_err();
    until_state(&breaker, CircuitState::Open).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    take("late");
    finish.send(()).unwrap();
    assert_eq!(late.await.unwrap(), "late reply");
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(take("late"), [r#"DEBUG circuit_breaker_success breaker="late""#]);
}
