//! A run with checks and services that misbehave, and an explanation of its results.

mod checks;
#[cfg(feature = "resilience")]
#[path = "circuits.rs"]
mod pushes;
#[cfg(not(feature = "resilience"))]
#[path = "direct.rs"]
mod pushes;
mod services;

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;
use validator::config::Config;
use validator::external::{External, http_client};
use validator::resilience::Resilience;
use validator::result::Report;

use self::checks::{CHECKS, HEARTBEAT};
use self::services::Services;
use crate::progress::Progress;
use crate::stderr::Stderr;
use crate::{INTERRUPTED, PASSED, output, run};

const INTRODUCTION: &str = "\
A project in a temporary folder has 7 validators. Two of them call a tool of an MCP server. The
report is sent to QuestDB and to a Prometheus push gateway. The services are part of this demo, on
loopback, and each of them misbehaves.";

/// A row of the last table.
struct Row {
    subject: String,
    result: String,
    explanation: &'static str,
}

/// Runs the demo. The exit code is 0, although some of its checks fail.
pub(crate) async fn run(stderr: &Stderr) -> Result<u8> {
    let mut interrupts = run::interrupts()?;
    // An interrupt drops the demo, which kills its processes and removes its folder.
    tokio::select! {
        result = play(stderr) => result.map(|()| PASSED),
        () = interrupts.recv() => Ok(INTERRUPTED),
    }
}

async fn play(stderr: &Stderr) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory can be created; set TMPDIR")?;
    let mut services = Services::start().await;
    let config: Config = serde_json::from_value(checks::config(&services))?;
    let client =
        http_client(&config.external).context("the HTTP client cannot be created; check the certificates")?;
    let external = External::new(config.external.clone(), client, Resilience::new(&config.resilience));
    say(INTRODUCTION);

    let report = run_validators(&config, dir.path(), &external, stderr).await?;
    show_killed_processes(dir.path()).await;
    let mut rows = rows(&report);
    rows.extend(pushes::play(&external, &report, &mut services).await?);
    explain(rows);
    Ok(())
}

async fn run_validators(config: &Config, dir: &Path, external: &External, stderr: &Stderr) -> Result<Report> {
    title("1. All validators run at the same time, each with a time limit");
    let orchestrator = config.orchestrator(dir, external)?;
    let progress = Progress::start(&orchestrator, stderr);
    let report = orchestrator.run_graceful_with(|result| progress.finished(result)).await;
    drop(progress);
    stderr.written().await;
    say(output::results(&report));
    say("Every validator has a result, whatever the others did.");
    Ok(report)
}

/// Shows that no process of the validator that timed out runs any more.
async fn show_killed_processes(dir: &Path) {
    title("2. Nothing is left running");
    // Each heartbeat is a byte.
    let heartbeats = || fs::metadata(dir.join(HEARTBEAT)).map_or(0, |file| file.len());
    let before = heartbeats();
    sleep(Duration::from_millis(500)).await;
    let added = heartbeats() - before;
    say(format_args!(
        "A child of `coverage` wrote {before} heartbeats, one in 100 ms, until the time limit."
    ));
    say(format_args!("In the last 500 ms it wrote {added}, because the whole process group was killed."));
}

fn rows(report: &Report) -> Vec<Row> {
    let row = |(check, result): (&checks::Check, _)| Row {
        subject: check.dimension.to_owned(),
        result: output::state(result).to_owned(),
        explanation: check.explanation,
    };
    CHECKS.iter().zip(&report.results).map(row).collect()
}

fn explain(rows: Vec<Row>) {
    title("Why it ended so");
    let mut table = output::new_table(["what", "result", "explanation"]);
    for row in rows {
        table.add_row([&row.subject, &row.result, row.explanation]);
    }
    say(table);
    say("A run with these results exits with code 1, because `lint` failed. Without that failure, the");
    say("code would be 3, because results are missing.");
}

fn title(text: &str) {
    say(format_args!("\n{text}\n{}", "-".repeat(text.len())));
}

/// Prints a text. If standard output is closed, the demo ends without it.
fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}
