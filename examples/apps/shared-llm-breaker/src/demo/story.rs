//! The acts of the demo.

use std::time::Duration;

use tempfile::TempDir;
use test_servers::{Llm, LlmFault};
use tokio::time::sleep;
use tower::BoxError;

use super::workers::Workers;
use crate::output::line;

const REPLY: &str = "A small switch opens, and the house does not burn down.";

/// Half of the time between two calls of a worker.
const HALF_INTERVAL: Duration = Duration::from_millis(200);

/// Plays all acts.
pub(super) async fn play() -> Result<(), BoxError> {
    let (folder, llm) = (tempfile::tempdir()?, Llm::start().await);
    llm.set_reply(|_| REPLY.to_owned());
    explain(&folder, &llm);
    let mut workers = Workers::new(&folder, &llm);
    workers.start("first")?;
    // The calls of the workers alternate, so that their order is the same in each run.
    sleep(HALF_INTERVAL).await;
    workers.start("second")?;

    line("\n1. The API works");
    workers.wait_for_calls("succeeded", 4).await?;

    line("\n2. The API fails: the failures of both workers add up");
    llm.set_faults(|_, _| Some(LlmFault::Unavailable));
    let before = requests(&llm);
    workers.wait_for_state("open").await?;
    let failed = requests(&llm) - before;
    line(format_args!("   The circuit is open in both workers after {failed} failed requests."));

    line("\n3. The first worker is killed with SIGKILL, and started again");
    let before = requests(&llm);
    workers.kill("first").await?;
    workers.start("first")?;
    workers.wait_for_rejections("first").await?;
    let sent = requests(&llm) - before;
    line(format_args!("   It starts with the open circuit. The API got {sent} requests meanwhile."));

    line("\n4. The API works again: probes find out, one at a time");
    llm.set_faults(|_, _| None);
    workers.wait_for_state("closed").await?;
    line("   Two probes have succeeded, so the circuit is closed in both workers.");
    workers.wait_for_calls("succeeded", 2).await?;

    workers.stop().await?;
    let [succeeded, failed, rejected] = workers.outcomes();
    line(format_args!(
        "\nIn all: {succeeded} calls succeeded, {failed} failed, and {rejected} were rejected at once."
    ));
    line("With Redis: worker run --redis redis://localhost:6379 --base-url URL");
    Ok(())
}

fn explain(folder: &TempDir, llm: &Llm) {
    line("Two worker processes call an LLM API through one circuit breaker. Five consecutive");
    line("failures of both together open it for 6 s, and two successful probes close it.");
    line(format_args!("The API is part of this demo: {}", llm.url()));
    let folder = folder.path().display();
    line(format_args!("The workers share files in {folder}, because the demo needs no Redis."));
}

/// Returns the requests that have reached the API.
fn requests(llm: &Llm) -> u32 {
    llm.all_counts().values().map(|counts| counts.requests).sum()
}
