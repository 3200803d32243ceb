//! Runs the program in a temporary folder against a scripted API.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use test_servers::{Action, Http};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A generous limit: a test that exceeds it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A temporary folder, and the API that the program calls.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) api: Http,
}

/// What a program has left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Setup {
    /// Starts an API that answers every prompt with `{"answer": 42}`, and writes `items` items.
    pub(crate) async fn new(items: usize) -> Self {
        let api = Http::start().await;
        api.set_default(reply("{\"answer\": 42}"));
        let setup = Self { folder: TempDir::new().unwrap(), api };
        let lines: Vec<String> =
            (0..items).map(|number| format!("{{\"name\":\"item {number}\"}}\n")).collect();
        setup.write("in.jsonl", &lines.concat());
        setup
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }

    /// Returns the values of a JSON Lines file. Every line has to be valid.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Waits until a file has this number of whole lines.
    pub(crate) async fn wait_for_lines(&self, name: &str, count: usize) {
        let path = self.folder.path().join(name);
        let wait = async {
            while std::fs::read_to_string(&path).unwrap_or_default().matches('\n').count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the program does not write the lines");
    }

    /// Returns the arguments that start the job `job` for `in.jsonl` and `out.jsonl`.
    pub(crate) fn process<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        let prompt = "Classify {name}.";
        let words = ["process", "in.jsonl", "out.jsonl", "--prompt", prompt, "--job-id", "job"];
        self.arguments(&words, more)
    }

    pub(crate) fn resume<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        self.arguments(&["resume", "job"], more)
    }

    /// Appends the address of the API, a key, and a short delay of retries.
    pub(crate) fn arguments(&self, words: &[&str], more: &[&str]) -> Vec<String> {
        let url = self.api.url();
        let always = ["--base-url", url.trim_end_matches('/'), "--api-key", "sk-secret"];
        words.iter().chain(&always).chain(more).map(ToString::to_string).collect()
    }

    pub(crate) fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("OPENAI_API_KEY")
            .env_remove("ANTHROPIC_API_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end, with this text on stdin.
    pub(crate) async fn run(&self, arguments: &[String], stdin: &str) -> Finished {
        run(self.command(arguments), stdin).await
    }

    /// Starts the program, with stdin open.
    pub(crate) fn start(&self, arguments: &[String]) -> Running {
        let mut child = self.command(arguments).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout, read: String::new() }
    }
}

pub(crate) async fn run(mut command: Command, stdin: &str) -> Finished {
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // An error means that the program has ended without reading all of it.
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("the program hangs").unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A program that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
    read: String,
}

impl Running {
    /// Reads lines of stdout until one contains `text`.
    pub(crate) async fn wait_for(&mut self, text: &str) {
        let wait = async {
            while !self.read.contains(text) {
                let length = self.stdout.read_line(&mut self.read).await.unwrap();
                assert!(length > 0, "the program ended before it printed {text:?}:\n{}", self.read);
            }
        };
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("the program does not print {text:?}"));
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id().expect("the program runs")).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub(crate) async fn finish(mut self) -> Finished {
        self.child.stdin.take();
        let rest = self.stdout.read_to_string(&mut self.read);
        timeout(DEADLINE, rest).await.expect("the program hangs").unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
        let status = timeout(DEADLINE, self.child.wait()).await.expect("the program hangs").unwrap();
        Finished { code: status.code().unwrap_or(-1), stdout: self.read, stderr }
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_stdout(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "stdout lacks {text:?}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_stderr(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}: {self:#?}");
        self
    }
}

/// A reply in the style of OpenAI.
pub(crate) fn reply(text: &str) -> Action {
    let message = json!({ "role": "assistant", "content": text });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    Action::status(200)
        .header("content-type", "application/json")
        .body(json!({ "choices": [choice] }).to_string())
}

/// An error in the style of OpenAI.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Action {
    let error = json!({ "message": message, "type": "error", "param": null, "code": code });
    Action::status(status)
        .header("content-type", "application/json")
        .body(json!({ "error": error }).to_string())
}

/// The error of an invalid key.
pub(crate) fn invalid_key() -> Action {
    error(401, "invalid_api_key", "Incorrect API key provided")
}
