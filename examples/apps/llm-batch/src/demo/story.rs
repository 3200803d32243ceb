//! The acts of the demo.

use std::fmt::Display;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use test_servers::Llm;
use tokio::time::sleep;
use tower::BoxError;

use super::agents::Agents;
use super::api::{self, ITEMS, MODEL, PROMPT};
use super::summary::Summary;
use crate::console::Console;

const JOB: &str = "reviews";
const INPUT: &str = "reviews.jsonl";
const OUTPUT: &str = "sentiments.jsonl";
const KEY: &str = "first-key";
const NEW_KEY: &str = "second-key";

/// The number of calls that run at once.
const BATCH_SIZE: usize = 10;

/// How long a question is shown before it is answered.
const READING_TIME: Duration = Duration::from_secs(1);

/// A demo that is played.
pub(super) struct Story {
    console: Console,
    folder: TempDir,
    llm: Llm,
}

impl Story {
    /// Plays all acts. Returns whether each item has its result.
    pub(super) async fn play(console: Console) -> Result<bool, BoxError> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(INPUT), api::items())?;
        let story = Self { console, folder, llm: api::start(KEY).await };
        story.explain();
        let mut agents = story.transient_errors().await?;
        story.outage(&mut agents).await?;
        story.revoked_key(agents).await?;
        story.killed_process().await?;
        story.resumed_job().await?;
        story.summarize()
    }

    fn explain(&self) {
        self.say(format_args!("A job of {ITEMS} items runs against an API that fails."));
        self.say(format_args!("The API is part of this demo: {}", self.llm.url()));
        self.say(format_args!("The files are in {}", self.folder.path().display()));
    }

    async fn transient_errors(&self) -> Result<Agents, BoxError> {
        self.act("1. Some requests fail");
        self.say("The API fails five of the first ten requests: status 500, a rate limit, half a body,");
        self.say("a connection reset, a reply without JSON. The program sends each of them again.");
        api::fail_some_requests(&self.llm);
        let base_url = format!("{}/v1", self.llm.url());
        let batch_size = BATCH_SIZE.to_string();
        let mut agents = self.start(
            KEY,
            &[
                &["process", INPUT, OUTPUT, "--prompt", PROMPT, "--job-id", JOB][..],
                &["--base-url", &base_url, "--model", MODEL],
                &["--batch-size", &batch_size, "--retry-delay", "0.2"],
            ]
            .concat(),
        )?;
        agents.wait_for_results(10).await?;
        self.say("10 items are finished.");
        Ok(agents)
    }

    async fn outage(&self, agents: &mut Agents) -> Result<(), BoxError> {
        self.act("2. The API is down");
        self.say("The API answers each request with status 503.");
        api::fail_all_requests(&self.llm);
        agents.wait_for("to", "open").await?;
        self.say(format_args!("The circuit of the model `{MODEL}` is open: the program sends no requests."));
        self.say(
            "The items wait for the circuit. An item fails only if its three requests had failed before.",
        );
        self.say("Meanwhile, the API recovers.");
        api::work(&self.llm);
        agents.wait_for("to", "closed").await?;
        self.say("Probes were answered, so the circuit is closed. The job goes on.");
        agents.wait_for_results(30).await
    }

    async fn revoked_key(&self, mut agents: Agents) -> Result<(), BoxError> {
        self.act("3. The key is revoked");
        self.say("The API answers each request with status 401. Such errors are not retried.");
        self.llm.set_keys([NEW_KEY]);
        agents.wait_for("event", "tripped").await?;
        self.say("5 fatal errors in a row have stopped the job. The program asks a person.");
        sleep(READING_TIME).await;
        agents.answer("i").await?;
        sleep(READING_TIME).await;
        agents.answer("a").await?;
        expect_exit_code(agents.wait().await?, 3)?;
        let results = self.summary()?.results();
        self.say(format_args!(
            "{OUTPUT} has the {results} results so far, and the errors of the failed items."
        ));
        Ok(())
    }

    async fn killed_process(&self) -> Result<(), BoxError> {
        self.act("4. The process is killed");
        self.say("The job continues with a new key. It also retries the items that failed.");
        let mut agents = self.start(NEW_KEY, &["resume", JOB, "--retry-failures"])?;
        agents.wait_for_results(15).await?;
        agents.kill().await?;
        self.say(format_args!("SIGKILL has ended the process, with up to {BATCH_SIZE} calls in flight."));
        Ok(())
    }

    async fn resumed_job(&self) -> Result<(), BoxError> {
        self.act("5. The job is resumed");
        self.say("Each finished result is in a file, so only the other items are sent again.");
        let agents = self.start(NEW_KEY, &["resume", JOB, "--retry-failures"])?;
        expect_exit_code(agents.wait().await?, 0)
    }

    fn summarize(&self) -> Result<bool, BoxError> {
        self.act("Summary");
        let summary = self.summary()?;
        self.say(&summary);
        Ok(summary.is_complete(BATCH_SIZE))
    }

    fn summary(&self) -> Result<Summary, BoxError> {
        let output = fs::read_to_string(self.folder.path().join(OUTPUT))?;
        Ok(Summary::new(&output, &self.llm)?)
    }

    fn start(&self, key: &str, arguments: &[&str]) -> Result<Agents, BoxError> {
        Agents::start(self.console, self.folder.path(), key, arguments)
    }

    fn act(&self, title: &str) {
        self.console.line(format_args!("\n{title}\n{}", "-".repeat(title.len())));
    }

    fn say(&self, text: impl Display) {
        self.console.line(text);
    }
}

fn expect_exit_code(status: ExitStatus, code: i32) -> Result<(), BoxError> {
    match status.code() {
        Some(found) if found == code => Ok(()),
        _ => Err(format!("the program ended with {status} instead of exit code {code}").into()),
    }
}
