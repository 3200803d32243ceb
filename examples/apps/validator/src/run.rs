//! A run of the validators of a project.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use subprocess::Interrupts;
use tokio::task::spawn_blocking;
use validator::external::{Delivery, External, http_client};
use validator::resilience;
use validator::result::Report;

use crate::cli::RunArgs;
use crate::output::Outcome;
use crate::progress::Progress;
use crate::stderr::Stderr;
use crate::{INTERRUPTED, settings};

/// Runs the validators, sends the report, prints it, and returns the exit code.
pub(crate) async fn run(args: &RunArgs, stderr: &Stderr) -> Result<u8> {
    let config = settings::load(args)?;
    let client =
        http_client(&config.external).context("the HTTP client cannot be created; check the certificates")?;
    let external = External::new(config.external.clone(), client, resilience::init(&config.resilience));
    let mut orchestrator = config.orchestrator(&args.dir, &external)?;
    settings::select(&mut orchestrator, args)?;

    let mut interrupts = interrupts()?;
    let progress = Progress::start(&orchestrator, stderr);
    let report = orchestrator.run_graceful_until(interrupts.recv(), |result| progress.finished(result)).await;
    progress.pushing();
    let deliveries = push(&external, &report, &mut interrupts).await;
    drop(progress);
    stderr.written().await;

    let outcome = Outcome::new(report, deliveries);
    let text = if args.json { outcome.json()? } else { outcome.text() };
    tokio::select! {
        printed = print(text) => printed.map(|()| outcome.exit_code()),
        // The output is not read.
        () = interrupts.recv() => Ok(INTERRUPTED),
    }
}

pub(crate) fn interrupts() -> Result<Interrupts> {
    Interrupts::new().context("the signals cannot be handled; check the limits of the system")
}

/// Sends the report. Returns `None` after an interrupt.
async fn push(external: &External, report: &Report, interrupts: &mut Interrupts) -> Option<Vec<Delivery>> {
    if report.is_interrupted() {
        return None;
    }
    tokio::select! {
        deliveries = external.push(report) => Some(deliveries),
        () = interrupts.recv() => None,
    }
}

/// Prints a text on a thread, because a write blocks while the output is not read.
async fn print(text: String) -> Result<()> {
    let written = spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match written.await.context("the output thread panicked; report this as a bug")? {
        // A reader that has closed standard output does not want the report.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output cannot be written; check the disk"),
    }
}
