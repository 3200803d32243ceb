//! Runs real programs.
#![cfg(unix)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use subprocess::{Output, Subprocess, SubprocessError};
use tokio::time::{sleep, timeout};

/// Longer than any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Subprocess {
    Subprocess::new("sh").args(["-c", script])
}

/// Runs the program, and panics if it hangs.
async fn run(program: Subprocess) -> Result<Output, SubprocessError> {
    timeout(DEADLINE, program.run()).await.expect("the program hangs")
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

/// Returns the id in the file, or `None` before the program has written all of it.
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
async fn large_input_and_output_do_not_deadlock() {
    // More than the capacity of the pipes, in all directions at once.
    let input = vec![b'x'; 3_000_000];
    let output = run(shell("tee /dev/stderr").stdin(input.clone())).await.unwrap();
    assert!(output.status.success());
    assert!(output.stdout.bytes == input, "stdout has {} bytes", output.stdout.bytes.len());
    assert!(output.stderr.bytes == input, "stderr has {} bytes", output.stderr.bytes.len());
}

#[tokio::test]
async fn output_limit_keeps_begin_and_counts_rest() {
    let input = vec![b'x'; 1_000_000];
    let output = run(shell("printf 0123; cat; printf abc >&2").stdin(input).output_limit(4)).await.unwrap();
    assert_eq!(output.stdout.text(), "0123");
    assert_eq!(output.stdout.discarded, 1_000_000);
    assert_eq!(output.stderr.text(), "abc");
    assert_eq!(output.stderr.discarded, 0);
}

#[tokio::test]
async fn program_that_ignores_stdin_succeeds() {
    for script in ["echo done", "exec 0<&-; echo done"] {
        let output = run(shell(script).stdin(vec![b'x'; 3_000_000])).await.unwrap();
        assert!(output.status.success(), "{script}: {}", output.status);
        assert_eq!(output.stdout.text(), "done\n");
    }
}

#[tokio::test]
async fn program_that_closes_its_outputs_is_awaited() {
    let output = run(shell("exec >&- 2>&-; sleep 0.2; exit 3")).await.unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn env_and_current_dir_are_set() {
    let dir = tempfile::tempdir().unwrap();
    let program = shell("echo $NAME; pwd -P").env("NAME", "value").current_dir(dir.path());
    let output = run(program).await.unwrap();
    let expected = format!("value\n{}\n", dir.path().canonicalize().unwrap().display());
    assert_eq!(output.stdout.text(), expected);
}

#[tokio::test]
async fn status_names_code_or_signal() {
    let exited = run(shell("exit 7")).await.unwrap();
    assert_eq!(exited.status.code(), Some(7));
    let killed = run(shell("kill -TERM $$")).await.unwrap();
    assert_eq!((killed.status.code(), killed.status.signal()), (None, Some(15)));
}

#[tokio::test]
async fn dropped_future_kills_every_process_of_group() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
    // Both ignore the signals that can be ignored.
    let script = "trap '' INT TERM HUP; sleep 600 & echo $! >child; echo $$ >leader; wait; sleep 600";
    let running = tokio::spawn(shell(script).current_dir(dir.path()).run());
    wait_until("the start", || pid_in(&leader).is_some()).await;
    let (leader, child) = (pid_in(&leader).unwrap(), pid_in(&child).unwrap());
    assert!(is_alive(leader) && is_alive(child));

    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    wait_until("the end of both processes", || !is_alive(leader) && !is_alive(child)).await;
    // tokio has reaped the leader: no zombie is left.
    wait_until("the end of the zombie", || !Path::new(&format!("/proc/{leader}")).exists()).await;
}

#[tokio::test]
async fn background_process_does_not_delay_run() {
    let dir = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $! >child; echo answer";
    let output = run(shell(script).current_dir(dir.path())).await.unwrap();
    assert_eq!(output.stdout.text(), "answer\n");
    let child = pid_in(&dir.path().join("child")).unwrap();
    wait_until("the end of the background process", || !is_alive(child)).await;
}

#[tokio::test]
async fn process_outside_group_does_not_delay_run() {
    let dir = tempfile::tempdir().unwrap();
    // It continues to write to the pipe, until the pipe is closed.
    let script = "setsid sh -c 'echo $$ >child; exec yes' & \
                  while [ ! -s child ]; do sleep 0.01; done; echo answer >&2";
    let output = run(shell(script).current_dir(dir.path())).await.unwrap();
    assert_eq!(output.stderr.text(), "answer\n");
    let child = pid_in(&dir.path().join("child")).unwrap();
    wait_until("the end of the writer", || !is_alive(child)).await;
}

#[tokio::test]
async fn concurrent_programs_return_their_own_outputs() {
    let programs = (0..50).map(|number| {
        let program = shell(&format!("cat; exit {number}")).stdin(format!("input {number}"));
        (number, tokio::spawn(run(program)))
    });
    for (number, running) in programs.collect::<Vec<_>>() {
        let output = running.await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(number));
        assert_eq!(output.stdout.text(), format!("input {number}"));
    }
}
