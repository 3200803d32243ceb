//! Runs that are cancelled or dropped.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::backend::SendError;
use orchestrator::report::{Event, Outcome};
use orchestrator::resilience::CircuitSettings;
use orchestrator::runner::Runner;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_breaker::CircuitState;

use crate::common::{
    Answer, TestBackend, backends, completed, outcomes, plan, response, run, runner, short_retries, task,
};

#[tokio::test(start_paused = true)]
async fn cancelled_run_reports_every_task() {
    let plan = plan(&[
        task("done", "codex", &[]),
        task("running", "claude", &["done"]),
        task("waiting for delay", "codex", &[]),
        task("waiting for task", "claude", &["running"]),
    ]);
    let hanging = TestBackend::hanging();
    let codex = TestBackend::new(async |message, _| match message.task.as_str() {
        "done" => Ok(response("done")),
        _ => Err(SendError::transient("the backend is down")),
    });
    let circuit = CircuitSettings { consecutive_failures: 0, ..CircuitSettings::default() };
    let runner = Runner::new(&short_retries(), &circuit).unwrap();
    let (cancel, backends) = (CancellationToken::new(), backends(&hanging, &codex));
    let token = cancel.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(200)).await;
        token.cancel();
    });
    let (report, events) = run(&runner, &plan, &backends, &cancel).await;
    let expected = [
        ("done", &completed("done")),
        ("running", &Outcome::Cancelled),
        ("waiting for delay", &Outcome::Cancelled),
        ("waiting for task", &Outcome::Cancelled),
    ];
    assert_eq!(outcomes(&report), BTreeMap::from(expected));
    assert_eq!(report.duration, Duration::from_millis(200), "the run ends immediately");
    assert!(report.is_cancelled() && !report.is_success());
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Ended(_))).count(), 4);
    assert_eq!((hanging.sends(), hanging.closes(), codex.closes()), (1, 1, 1));
    assert_eq!(report.circuits[0].state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn dropped_run_drops_running_sends() {
    let plan = plan(&[task("a", "claude", &[])]);
    let alive = Arc::new(());
    let guard = Arc::clone(&alive);
    let hanging = TestBackend::new(move |_, _| {
        let guard = Arc::clone(&guard);
        async move {
            let answer = pending::<Answer>().await;
            drop(guard);
            answer
        }
    });
    let (sender, mut events) = mpsc::unbounded_channel();
    let (runner, backends, token) = (runner(), backends(&hanging, &hanging), CancellationToken::new());
    let mut run = Box::pin(runner.run(&plan, &backends, &token, sender));
    let sent = async { while !matches!(events.recv().await, Some(Event::Sent { .. })) {} };
    tokio::select! {
        report = &mut run => panic!("the run does not end: {report:?}"),
        () = sent => {}
    }
    // `alive`, the backend's closure, and the send.
    assert_eq!(Arc::strong_count(&alive), 3);
    drop(run);
    yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 2);
}
