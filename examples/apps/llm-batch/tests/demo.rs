//! Runs the demo.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Far longer than the demo takes.
const DEADLINE: Duration = Duration::from_secs(120);

async fn demo() -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
    command.arg("demo").stdin(Stdio::null()).kill_on_drop(true);
    timeout(DEADLINE, command.output()).await.expect("the demo ends by itself").unwrap()
}

/// Returns the number in a row of the table at the end.
fn row(text: &str, name: &str) -> usize {
    let line = text.lines().rev().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line[name.len()..].trim().parse().unwrap()
}

#[tokio::test]
async fn demo_ends_with_a_result_for_each_item() {
    let output = demo().await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{text}");
    assert_eq!(
        (row(&text, "items"), row(&text, "results"), row(&text, "lost results")),
        (60, 60, 0),
        "{text}"
    );
    assert!(row(&text, "repeated requests, in flight at SIGKILL") <= 10, "{text}");
    // Five requests fail at first, five after the revocation, and more in the outage.
    assert!(row(&text, "failed requests") > 10, "{text}");
    assert!(text.contains("Circuit breaker triggered: 5 consecutive failures"), "{text}");
    assert!(text.contains("Aborted. To resume later: agents resume reviews"), "{text}");
}
