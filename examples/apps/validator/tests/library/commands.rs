//! Validators that run real programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{advance, pause, sleep, timeout};
use validator::orchestrator::ValidationOrchestrator;
use validator::result::ValidationResult;
use validator::validator::{CommandValidator, rust_validators};

use crate::support::{orchestrator, timeouts};

/// Longer than any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn shell(script: &str, dir: &Path) -> CommandValidator {
    CommandValidator::new("lint", 2, "sh", ["-c", script], dir)
}

async fn run(validator: CommandValidator) -> ValidationResult {
    orchestrator([validator]).run_graceful().await.results.remove(0)
}

#[tokio::test]
async fn exit_code_decides() {
    let dir = tempfile::tempdir().unwrap();
    let passed = run(shell("echo out; echo err >&2; pwd -P >dir", dir.path())).await;
    assert!(passed.passed, "{passed:?}");
    assert_eq!((&*passed.dimension, passed.tier, &*passed.message), ("lint", 2, "`sh` passed"));
    let expected = serde_json::json!({
        "command": "sh -c echo out; echo err >&2; pwd -P >dir",
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "err\n",
    });
    assert_eq!(serde_json::Value::from(passed.details), expected);
    let ran_in = fs::read_to_string(dir.path().join("dir")).unwrap();
    assert_eq!(Path::new(ran_in.trim_end()), dir.path().canonicalize().unwrap());

    let failed = run(shell("exit 3", dir.path())).await;
    assert_eq!((failed.passed, &*failed.message), (false, "`sh` failed: exit code 3"));
    assert_eq!((&failed.details["exit_code"], failed.error()), (&3.into(), None));
}

#[tokio::test]
async fn listed_exit_codes_pass() {
    let dir = tempfile::tempdir().unwrap();
    for (code, passes) in [(0, false), (1, true), (2, true), (3, false)] {
        let script = format!("exit {code}");
        let result = run(shell(&script, dir.path()).success_exit_codes([1, 2])).await;
        assert_eq!(result.passed, passes, "{code}");
    }
}

#[tokio::test]
async fn killed_command_fails_and_names_signal() {
    let dir = tempfile::tempdir().unwrap();
    let result = run(shell("kill -KILL $$", dir.path())).await;
    assert!(!result.passed);
    assert!(result.message.contains("signal: 9"), "{}", result.message);
    assert!(result.details["exit_code"].is_null());
}

#[tokio::test]
async fn end_of_long_output_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [100_000, 3_000_000] {
        let script = format!("yes | head -c {bytes}; echo 'error: the reason'");
        let result = run(shell(&script, dir.path())).await;
        let stdout = result.details["stdout"].as_str().unwrap();
        assert!(stdout.starts_with(&format!("… {} bytes\n", bytes + 18 - 16_384)), "{}", &stdout[..40]);
        assert!(stdout.ends_with("y\nerror: the reason\n"), "{bytes}");
    }
}

#[tokio::test]
async fn bytes_after_capture_limit_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let result = run(shell("yes | head -c 20000000", dir.path())).await;
    let stdout = result.details["stdout"].as_str().unwrap();
    let (skipped, discarded) = ((16 << 20) - 16_384, 20_000_000 - (16 << 20));
    assert!(stdout.starts_with(&format!("… {skipped} bytes\ny\n")), "{}", &stdout[..40]);
    assert!(stdout.ends_with(&format!("y\n\n… {discarded} bytes")));
}

#[tokio::test]
async fn missing_program_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let missing = CommandValidator::new("lint", 1, "no-such-tool", ["check"], dir.path());
    let result = run(missing).await;
    assert_eq!((result.passed, result.error()), (false, Some("not_found")));
    let message = "Error: program `no-such-tool` is not found in PATH; install it or use its full path";
    assert!(result.message.starts_with(message), "{}", result.message);

    let result = run(shell("true", Path::new("/no/such/dir"))).await;
    assert_eq!((result.passed, result.error()), (false, Some("subprocess::error::SubprocessError")));
}

/// Waits until the condition holds. The system does not notify of the end of foreign processes.
async fn wait_until(description: &str, condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, polled).await.unwrap_or_else(|_| panic!("{description} does not happen"));
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Returns whether the process runs. A zombie has ended: PID 1 of a container may not reap it.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}

#[tokio::test]
async fn hanging_validator_with_children_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
    // Both ignore the signals that can be ignored.
    let script = "trap '' INT TERM HUP; sleep 600 & echo $! >child; echo $$ >leader; wait; sleep 600";
    let validator = shell(script, dir.path());
    let running = tokio::spawn(async { orchestrator([validator]).run_graceful().await });
    wait_until("the start", || pid_in(&leader).is_some()).await;
    let (leader, child) = (pid_in(&leader).unwrap(), pid_in(&child).unwrap());
    assert!(is_alive(leader) && is_alive(child));

    // The processes have started, so the clock may reach the time limit.
    pause();
    advance(Duration::from_secs(60)).await;
    let report = running.await.unwrap();
    assert_eq!(report.results[0].message, "Timeout after 60s");
    tokio::time::resume();
    wait_until("the end of both processes", || !is_alive(leader) && !is_alive(child)).await;
}

#[tokio::test]
async fn secrets_are_found_and_not_reported() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = || {
        let mut validators = rust_validators(dir.path());
        validators.remove(4)
    };
    fs::write(dir.path().join("clean.rs"), "fn main() {}").unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let key = ["AKIA", "ABCDEFGHIJKLMNOP"].concat();
    fs::write(dir.path().join("target/built.txt"), &key).unwrap();
    let clean = run(secrets()).await;
    assert!(clean.passed, "{clean:?}");

    fs::write(dir.path().join("leak.env"), &key).unwrap();
    let leaked = run(secrets()).await;
    assert!(!leaked.passed);
    assert_eq!(leaked.details["stdout"], "./leak.env\n");
    assert!(!serde_json::to_string(&leaked).unwrap().contains(&key));
}

#[tokio::test]
async fn rust_validators_check_a_package() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[package]\nname = \"checked\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/lib.rs"), "pub fn answer()->u32{42}\n").unwrap();
    // The default time limits may be too short on a busy machine.
    let validators =
        rust_validators(dir.path()).into_iter().map(|validator| Box::new(validator) as _).collect();
    let limits = ["code_quality", "lint", "type_safety", "coverage"].map(|dimension| (dimension, 1_800.0));
    let report = ValidationOrchestrator::new(validators, timeouts(limits)).run_graceful().await;
    let results: Vec<_> = report.results.iter().map(|result| (&*result.dimension, result.passed)).collect();
    let expected = [
        ("code_quality", false),
        ("lint", true),
        ("type_safety", true),
        ("coverage", true),
        ("security", true),
    ];
    assert_eq!(results, expected, "{report:?}");
    assert_eq!(report.results[0].message, "`cargo fmt` failed: exit code 1");
}
