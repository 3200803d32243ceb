//! A process of this program.

use std::env;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tower::BoxError;

use crate::console::Console;
use crate::text::shell_word;

/// A running process of this program. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Agents {
    child: Child,
    stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    /// Prints what the process prints for people.
    printer: JoinHandle<()>,
    console: Console,
    results: usize,
}

impl Agents {
    /// Starts the program in a folder, and prints its command line.
    pub(super) fn start(
        console: Console,
        folder: &Path,
        key: &str,
        arguments: &[&str],
    ) -> Result<Self, BoxError> {
        console.line(format_args!("\n  $ agents {}", command_line(arguments)));
        let mut child = Command::new(env::current_exe()?)
            .args(arguments)
            // With this flag, stdout has the events, and stderr has the text for people.
            .arg("--json")
            .current_dir(folder)
            .env("OPENAI_API_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipe = "a stream of a new process is piped";
        let stderr = child.stderr.take().ok_or(pipe)?;
        let stdout = child.stdout.take().ok_or(pipe)?;
        Ok(Self {
            stdin: child.stdin.take().ok_or(pipe)?,
            events: BufReader::new(stdout).lines(),
            printer: tokio::spawn(print_lines(console, stderr)),
            child,
            console,
            results: 0,
        })
    }

    /// Waits until the process has written this number of results.
    pub(super) async fn wait_for_results(&mut self, count: usize) -> Result<(), BoxError> {
        while self.results < count {
            self.next_event(&format!("result {count}")).await?;
        }
        Ok(())
    }

    /// Waits for an event whose field has this value.
    pub(super) async fn wait_for(&mut self, field: &str, value: &str) -> Result<(), BoxError> {
        while self.next_event(value).await?[field] != value {}
        Ok(())
    }

    /// Answers a question of the process.
    pub(super) async fn answer(&mut self, answer: &str) -> Result<(), BoxError> {
        self.console.line(format_args!("  | > {answer}"));
        self.stdin.write_all(format!("{answer}\n").as_bytes()).await?;
        Ok(())
    }

    /// Kills the process with SIGKILL.
    pub(super) async fn kill(mut self) -> Result<(), BoxError> {
        self.child.kill().await?;
        Ok(self.printer.await?)
    }

    /// Waits until the process ends.
    pub(super) async fn wait(mut self) -> Result<ExitStatus, BoxError> {
        // The process would wait while the pipe is full.
        while self.events.next_line().await?.is_some() {}
        let status = self.child.wait().await?;
        self.printer.await?;
        Ok(status)
    }

    async fn next_event(&mut self, wanted: &str) -> Result<Value, BoxError> {
        let Some(line) = self.events.next_line().await? else {
            return Err(format!("the program ended before the event `{wanted}`").into());
        };
        let event: Value = serde_json::from_str(&line)?;
        self.results += usize::from(event["event"] == "result");
        Ok(event)
    }
}

async fn print_lines(console: Console, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The demo has printed the prompt together with the answer.
        console.line(format_args!("  | {}", line.trim_start_matches("> ")));
    }
}

/// Returns the arguments as a person would type them.
fn command_line(arguments: &[&str]) -> String {
    arguments.iter().map(|argument| shell_word(argument)).collect::<Vec<_>>().join(" ")
}
