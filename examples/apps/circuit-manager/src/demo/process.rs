//! The server of the demo, as a process, and its files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use circuit_manager::store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::sleep;

pub(super) const OPERATOR: &str = "demo-operator-0123456789";
pub(super) const READER: &str = "demo-reader-0123456789";

/// The files of the server.
pub(super) struct Files(TempDir);

impl Files {
    /// Writes the files of a server for agents at this URL.
    pub(super) fn write(agents: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary directory can be created; set TMPDIR")?;
        let files = Self(folder);
        let agent = |name: &str| {
            let (url, health_url) = (format!("{agents}/{name}/call"), format!("{agents}/{name}/health"));
            json!({ "url": url, "health_url": health_url, "interval_seconds": 0.2 })
        };
        let config = json!({
            "circuit": { "failure_threshold": 5, "min_requests_for_rate": 100, "cooldown_seconds": 4 },
            "health": { "interval_seconds": 1, "window_probes": 3 },
            "agents": { "billing": agent("billing"), "mail": agent("mail"), "search": agent("search") },
        });
        let tokens = format!("operator anna {OPERATOR}\nreader wall {READER}\n");
        for (name, content) in [("config.json", config.to_string()), ("tokens", tokens)] {
            fs::write(files.path(name), content)
                .context("a temporary file cannot be written; check the disk")?;
        }
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) async fn start(&self) -> Result<Server> {
        let program = env::current_exe().context("the path of this program is unknown; reinstall it")?;
        Server::start(&program, self.0.path()).await
    }

    /// Waits until the open circuit of an agent is in the file.
    pub(super) async fn wait_for_open(&self, agent: &str) -> Result<()> {
        let store = Store::file(self.path("circuits.json"));
        for _ in 0..500 {
            let rows = store.load().await?;
            if rows.iter().any(|row| row.agent_id == agent && row.state.is_open()) {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("the server of the demo does not write the state of `{agent}`")
    }

    pub(super) fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.path("audit")).context("the audit of the demo cannot be read")?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// The running server.
pub(super) struct Server {
    child: Child,
    // The server would fail to print to a closed pipe.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config", "config.json", "--embedded"]);
        command.args(["circuits.json", "--token-file", "tokens", "--audit-file", "audit"]);
        command.env_clear().current_dir(folder).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("the server of the demo cannot be started")?;
        let mut stdout = BufReader::new(child.stdout.take().context("the server has no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let url =
            line.trim().strip_prefix("listening on ").context("the server of the demo did not start")?;
        Ok(Self { child, url: url.to_owned(), _stdout: stdout })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Kills the server (SIGKILL).
    pub(super) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Stops the server (SIGTERM), and waits for its end.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.context("the server of the demo has ended")?, Signal::TERM)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "the server of the demo failed: {status}");
        Ok(())
    }
}
