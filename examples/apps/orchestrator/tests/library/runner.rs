//! Runs of plans with backends in this process.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use orchestrator::backend::{Backends, SendError};
use orchestrator::plan::Plan;
use orchestrator::report::{Event, Outcome, Report, TaskResult, Trip};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_breaker::{CircuitState, Reason};

use crate::common::{TestBackend, backends, completed, outcomes, plan, response, run, runner, task};

async fn report_of(plan: &Plan, claude: &TestBackend, codex: &TestBackend) -> Report {
    run(&runner(), plan, &backends(claude, codex), &CancellationToken::new()).await.0
}

#[tokio::test(start_paused = true)]
async fn failure_isolation_independent_tasks() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "codex", &[]), task("c", "claude", &[])]);
    let report = report_of(&plan, &TestBackend::echo(), &TestBackend::dead()).await;
    let [a, b, c] = report.tasks.as_slice() else { panic!("three results are expected: {report:?}") };
    assert_eq!((&a.outcome, a.attempts), (&completed("a"), 1));
    assert_eq!((&c.outcome, c.attempts), (&completed("c"), 1));
    assert_eq!((b.id.as_str(), b.agent.as_str(), b.attempts), ("b", "codex", 5));
    let trip = Trip { reason: Reason::ConsecutiveFailures, consecutive_failures: 5 };
    let failed = Outcome::Failed { error: "the backend is down".to_owned(), circuit: Some(trip) };
    assert_eq!(b.outcome, failed);
    assert!(b.duration >= Duration::from_millis(75), "the duration includes the delays: {b:?}");
    assert_eq!([a, b, c].map(TaskResult::is_success), [true, false, true]);
    assert!(!report.is_success() && !report.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn dependents_of_failed_task_are_skipped() {
    let plan = plan(&[
        task("end", "claude", &["middle", "free"]),
        task("middle", "claude", &["broken"]),
        task("broken", "codex", &[]),
        task("free", "claude", &[]),
    ]);
    let claude = TestBackend::echo();
    let codex = TestBackend::new(async |_, _| Err(SendError::permanent("the prompt is refused")));
    let report = report_of(&plan, &claude, &codex).await;
    let skipped = Outcome::Skipped { because: "broken".to_owned() };
    let failed = Outcome::Failed { error: "the prompt is refused".to_owned(), circuit: None };
    let expected =
        [("broken", &failed), ("end", &skipped), ("free", &completed("free")), ("middle", &skipped)];
    assert_eq!(outcomes(&report), BTreeMap::from(expected));
    assert_eq!((claude.sends(), codex.sends()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dead_backend_does_not_stop_other_backend() {
    let names: Vec<_> = (0..20).map(|number| format!("{number}")).collect();
    let agent = |number: usize| if number.is_multiple_of(2) { "claude" } else { "codex" };
    let tasks = names.iter().enumerate().map(|(number, name)| task(name, agent(number), &[]));
    let plan = plan(&tasks.collect::<Vec<_>>());
    let (claude, codex) = (TestBackend::dead(), TestBackend::echo());
    let runner = runner();
    let report = run(&runner, &plan, &backends(&claude, &codex), &CancellationToken::new()).await.0;
    for task in &report.tasks {
        assert_eq!(task.is_success(), task.agent == "codex", "{task:?}");
        if let Outcome::Failed { circuit, .. } = &task.outcome {
            let trip = circuit.expect("the circuit is open");
            assert_eq!(trip.reason, Reason::ConsecutiveFailures);
            assert!(trip.consecutive_failures >= 5, "{trip:?}");
        }
    }
    assert!(report.tasks.iter().any(|task| task.attempts == 0 && !task.is_success()), "{report:?}");
    assert_eq!(codex.sends(), 10);
    // Sends that had started when the circuit opened are not stopped.
    assert!((5..5 + 4).contains(&claude.sends()), "{}", claude.sends());
    let [claude, codex] = report.circuits.as_slice() else { panic!("{report:?}") };
    assert_eq!((claude.circuit, claude.state), ("claude", CircuitState::Open));
    assert_eq!((codex.circuit, codex.state), ("codex", CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn rejected_task_reports_circuit() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "claude", &[])]);
    let runner = runner().concurrency(NonZeroUsize::MIN);
    let dead = TestBackend::dead();
    let report = run(&runner, &plan, &backends(&dead, &dead), &CancellationToken::new()).await.0;
    let Outcome::Failed { error, circuit: Some(trip) } = &report.tasks[1].outcome else {
        panic!("task b is expected to be rejected: {report:?}");
    };
    assert!(error.starts_with("circuit breaker `claude` is open; retry after "), "{error}");
    assert_eq!((trip.reason, trip.consecutive_failures), (Reason::ConsecutiveFailures, 5));
    assert_eq!((report.tasks[1].attempts, dead.sends()), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn panic_of_backend_fails_its_task() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "codex", &[]), task("c", "claude", &["a"])]);
    let panicking = TestBackend::new(async |message, _| panic!("no answer to {}", message.prompt));
    let report = report_of(&plan, &panicking, &TestBackend::echo()).await;
    let error = "the backend of task `a` panicked; report this as a bug: no answer to a".to_owned();
    let skipped = Outcome::Skipped { because: "a".to_owned() };
    let expected =
        [("a", &Outcome::Failed { error, circuit: None }), ("b", &completed("b")), ("c", &skipped)];
    assert_eq!(outcomes(&report), BTreeMap::from(expected));
    assert_eq!(report.tasks[0].attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn task_without_backend_fails() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "codex", &[])]);
    let backends = Backends::new().with("claude", TestBackend::echo());
    let report = run(&runner(), &plan, &backends, &CancellationToken::new()).await.0;
    assert!(report.tasks[0].is_success());
    let Outcome::Failed { error, .. } = &report.tasks[1].outcome else { panic!("{report:?}") };
    assert_eq!(error, "backend `codex` of task `b` does not exist; add it to the backends");
}

#[tokio::test(start_paused = true)]
async fn results_of_dependencies_are_in_prompt() {
    let plan = plan(&[
        task("a", "claude", &[]),
        task("b", "claude", &[]),
        json!({
            "id": "c", "agent": "codex", "depends_on": ["a", "b"],
            "prompt": "{results.b}, {results.a} and {results.b}",
        }),
    ]);
    let claude = TestBackend::new(async |message, _| Ok(response(&format!("<{}>", message.task))));
    let report = report_of(&plan, &claude, &TestBackend::echo()).await;
    assert_eq!(report.tasks[2].outcome, completed("<b>, <a> and <b>"));
}

#[tokio::test(start_paused = true)]
async fn slow_task_does_not_delay_unrelated_dependents() {
    let plan = plan(&[
        task("slow", "claude", &[]),
        task("fast", "codex", &[]),
        task("after fast", "codex", &["fast"]),
    ]);
    let slow = TestBackend::new(async |_, _| {
        sleep(Duration::from_secs(600)).await;
        Ok(response("done"))
    });
    let (report, events) =
        run(&runner(), &plan, &backends(&slow, &TestBackend::echo()), &CancellationToken::new()).await;
    assert!(report.is_success());
    let ended = events.iter().filter_map(|event| match event {
        Event::Ended(result) => Some(result.id.as_str()),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), ["fast", "after fast", "slow"]);
}

#[tokio::test(start_paused = true)]
async fn events_show_each_step_of_task() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "claude", &["a"])]);
    let claude = TestBackend::new(async |_, send| match send {
        1 => Err(SendError::transient("busy").with_source("no model is loaded")),
        2 => Ok(response("done")),
        _ => Err(SendError::permanent("refused")),
    });
    let (report, events) =
        run(&runner(), &plan, &backends(&claude, &claude), &CancellationToken::new()).await;
    let events: Vec<_> = events.iter().map(short_text).collect();
    let expected = [
        "a started",
        "a sent 1",
        "a failed 1: busy: no model is loaded",
        "a sent 2",
        "a ended after 2",
        "b started",
        "b sent 1",
        "b failed 1: refused",
        "b ended after 1",
    ];
    assert_eq!(events, expected);
    assert_eq!(report.tasks.len(), 2);
}

fn short_text(event: &Event) -> String {
    match event {
        Event::Started { task } => format!("{task} started"),
        Event::Sent { task, attempt } => format!("{task} sent {attempt}"),
        Event::AttemptFailed { task, attempt, error } => format!("{task} failed {attempt}: {error}"),
        Event::Ended(result) => format!("{} ended after {}", result.id, result.attempts),
    }
}

#[tokio::test(start_paused = true)]
async fn report_serializes_states_and_seconds() {
    let plan = plan(&[task("a", "claude", &[]), task("b", "codex", &["a"])]);
    let dead = TestBackend::dead();
    let report = report_of(&plan, &dead, &dead).await;
    let mut report = serde_json::to_value(&report).unwrap();
    let duration = report["tasks"][0]["duration_seconds"].take();
    assert!((0.075..1.0).contains(&duration.as_f64().unwrap()), "{duration}");
    let expected = json!([
        {
            "task": "a", "agent": "claude", "state": "failed", "error": "the backend is down",
            "circuit": { "reason": "consecutive_failures", "consecutive_failures": 5 },
            "attempts": 5, "duration_seconds": null,
        },
        {
            "task": "b", "agent": "codex", "state": "skipped", "because": "a",
            "attempts": 0, "duration_seconds": 0.0,
        },
    ]);
    assert_eq!(report["tasks"], expected);
    assert_eq!(report["circuits"][0]["state"], "open");
}
