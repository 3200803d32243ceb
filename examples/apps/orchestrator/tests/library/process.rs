//! Backends that run real programs: small shell scripts.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use orchestrator::backend::Backend;
use orchestrator::plan::{BackendSettings, Format, Plan};
use orchestrator::process::{ProcessBackend, backends};
use orchestrator::report::{Outcome, Report};
use orchestrator::resilience::{CircuitSettings, Circuits, RetrySettings, SendFailure, send_with_retry};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower_breaker::fault_classify::{ErrorChain, Retryable};
use tower_breaker::{HumanDuration, Reason};

use crate::common::{message, run, runner, short_retries};

/// The time after which a test fails.
const DEADLINE: Duration = Duration::from_secs(60);

fn shell(script: &str) -> ProcessBackend {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let settings = BackendSettings { command, permanent_exit_codes: vec![64], ..BackendSettings::default() };
    ProcessBackend::new("claude", settings)
}

async fn send(backend: &ProcessBackend, prompt: &str) -> Result<String, SendFailure> {
    let circuit = Circuits::new(CircuitSettings::default().config().unwrap()).circuit("claude");
    let (policy, cancel) = (short_retries().policy().unwrap(), CancellationToken::new());
    let message = message(prompt);
    let sent = send_with_retry(backend, &message, &circuit, &policy, &cancel);
    let result = timeout(DEADLINE, sent).await.expect("the backend ends");
    result.map(|response| response.text)
}

/// A script that appends a line to `sends` for each run, and then runs `rest`.
fn counting(dir: &TempDir, rest: &str) -> (ProcessBackend, PathBuf) {
    let sends = dir.path().join("sends");
    (shell(&format!("echo >> '{}'\n{rest}", sends.display())), sends)
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap().lines().count()
}

#[tokio::test]
async fn command_reads_prompt_and_prints_answer() {
    let script = r#"echo "$ORCHESTRATOR_TASK in $ORCHESTRATOR_SESSION: $(cat)"; echo "second line"; echo"#;
    let backend = shell(script);
    let answer = send(&backend, "a prompt").await.unwrap();
    assert_eq!(answer, format!("task in {}: a prompt\nsecond line", backend.session_id()));
    assert_ne!(backend.session_id(), shell(script).session_id());
}

#[tokio::test]
async fn command_that_fails_twice_is_run_three_times() {
    let dir = tempfile::tempdir().unwrap();
    let sends = dir.path().join("sends");
    let rest = format!(r#"[ "$(wc -l < '{}')" -ge 3 ] || exit 1; echo done"#, sends.display());
    let (backend, sends) = counting(&dir, &rest);
    assert_eq!(send(&backend, "").await.unwrap(), "done");
    assert_eq!(lines(&sends), 3);
}

#[tokio::test]
async fn permanent_exit_code_is_not_retried() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, sends) = counting(&dir, "echo progress >&2; echo 'prompt too long' >&2; exit 64");
    let failure = send(&backend, "").await.unwrap_err();
    assert_eq!(
        ErrorChain(&failure).to_string(),
        "backend `claude` failed (exit status: 64): prompt too long"
    );
    assert_eq!(lines(&sends), 1);
}

#[tokio::test]
async fn other_exit_code_and_signal_are_retried() {
    for (end, error) in [("exit 3", "exit status: 3"), ("kill -9 $$", "signal: 9 (SIGKILL)")] {
        let dir = tempfile::tempdir().unwrap();
        let (backend, sends) = counting(&dir, end);
        let failure = send(&backend, "").await.unwrap_err();
        let expected = format!(
            "backend `claude` failed ({error}) and printed no error; run its command in a shell to see why"
        );
        assert_eq!(ErrorChain(&failure).to_string(), expected);
        assert_eq!(lines(&sends), 5, "the circuit ends the retries");
    }
}

#[tokio::test(start_paused = true)]
async fn send_above_timeout_is_transient_and_counted() {
    let settings = BackendSettings {
        command: ["sleep", "1d"].map(str::to_owned).to_vec(),
        timeout: Some(HumanDuration(Duration::from_secs(600))),
        ..BackendSettings::default()
    };
    let backend = ProcessBackend::new("claude", settings);
    let circuit = Circuits::new(CircuitSettings::default().config().unwrap()).circuit("claude");
    let retries = RetrySettings { max_elapsed: Duration::from_secs(7200).into(), ..short_retries() };
    let (policy, cancel, message) = (retries.policy().unwrap(), CancellationToken::new(), message(""));
    let start = Instant::now();
    let sent = send_with_retry(&backend, &message, &circuit, &policy, &cancel);
    let failure = timeout(Duration::from_secs(7200), sent).await.expect("the sends end").unwrap_err();
    let expected = "backend `claude` has not answered within 10m; check its command, or raise \
                    `backends.claude.timeout`";
    assert_eq!(failure.to_string(), expected);
    // 5 sends of 10 minutes, which the circuit counts. The delays between them are short.
    assert_eq!(start.elapsed().as_secs(), 3000);
    let trip = circuit.status().last_trip.expect("the circuit is open");
    assert_eq!((trip.reason, trip.consecutive_failures), (Reason::ConsecutiveFailures, 5));
}

#[tokio::test]
async fn long_line_on_stderr_is_cut() {
    let backend = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 64");
    let failure = send(&backend, "").await.unwrap_err();
    let expected = format!("backend `claude` failed (exit status: 64): {}", "x".repeat(500));
    assert!(ErrorChain(&failure).to_string() == expected, "the error has another text or length");
}

#[tokio::test]
async fn nul_byte_in_arguments_is_permanent() {
    let command = ["cat", "\0"].map(str::to_owned).to_vec();
    let backend = ProcessBackend::new("claude", BackendSettings { command, ..BackendSettings::default() });
    let message = message("");
    let error = backend.send(&message).await.unwrap_err();
    assert_eq!(error.fault().retryable(), Retryable::Never, "{}", ErrorChain(&error));
}

#[tokio::test]
async fn answer_above_limit_fails() {
    let backend = shell("head -c 17000000 /dev/zero");
    let failure = send(&backend, "").await.unwrap_err();
    let expected = "the answer of backend `claude` is longer than 16777216 bytes; ask for a shorter answer";
    assert_eq!(failure.to_string(), expected);
}

/// Runs a plan with a backend that does not exist, and one that does.
async fn run_without(program: &str) -> Report {
    let plan = json!({
        "tasks": [
            { "id": "a", "agent": "missing", "prompt": "" },
            { "id": "b", "agent": "cat", "prompt": "hello" },
        ],
        "backends": { "missing": { "command": [program] }, "cat": { "command": ["cat"] } },
    });
    let plan = Plan::parse("plan.json", &plan.to_string(), Format::Json).unwrap();
    run(&runner(), &plan, &backends(&plan), &CancellationToken::new()).await.0
}

#[tokio::test]
async fn missing_command_fails_its_task_permanently() {
    let report = run_without("/missing/agent").await;
    let Outcome::Failed { error, circuit: None } = &report.tasks[0].outcome else {
        panic!("task a is expected to fail: {report:?}");
    };
    let expected = "backend `missing` could not be run: program `/missing/agent` is not found; correct the \
                    path: No such file";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(report.tasks[0].attempts, 1);
    assert_eq!(report.tasks[1].outcome, Outcome::Completed { response: "hello".to_owned() });
}

#[tokio::test]
async fn cancelled_send_kills_command_and_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // The shell and its child hold the pipe open.
    let backend = shell(&format!("exec 3> '{}'; sleep 600 & wait", pipe.display()));
    let (opened, closed) = watch(pipe);
    let cancel = CancellationToken::new();
    let circuit = Circuits::new(CircuitSettings::default().config().unwrap()).circuit("claude");
    let (policy, message) = (short_retries().policy().unwrap(), message(""));
    let sent = send_with_retry(&backend, &message, &circuit, &policy, &cancel);
    let cancelled = async {
        opened.await.unwrap();
        cancel.cancel();
    };
    let (result, ()) = timeout(DEADLINE, async { tokio::join!(sent, cancelled) }).await.unwrap();
    assert!(matches!(result, Err(SendFailure::Cancelled)), "{result:?}");
    timeout(DEADLINE, closed).await.expect("the processes are killed").unwrap();
}

/// Reports when a process opens a pipe, and when no process has it open.
fn watch(pipe: PathBuf) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
    let (send_opened, opened) = oneshot::channel();
    let (send_closed, closed) = oneshot::channel();
    thread::spawn(move || {
        let mut pipe = File::open(pipe).unwrap();
        send_opened.send(()).unwrap();
        pipe.read_to_end(&mut Vec::new()).unwrap();
        send_closed.send(()).unwrap();
    });
    (opened, closed)
}
