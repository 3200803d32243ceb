//! The command `run`.

use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::MultiProgress;
use orchestrator::plan::Plan;
use orchestrator::process::backends;
use orchestrator::report::{Event, Report};
use orchestrator::runner::Runner;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::RunArgs;
use crate::interrupts::cancel_on_interrupt;
use crate::progress::Progress;
use crate::{INTERRUPTED, SOME_FAILED, SUCCESS};

/// How long an interrupted run waits for a reader of its output that has stopped reading.
const OUTPUT_GRACE: Duration = Duration::from_millis(300);

/// Runs the plan, prints its events and its results, and returns the exit code.
pub(crate) async fn run(args: &RunArgs, bars: MultiProgress) -> Result<u8> {
    let plan = Plan::load(&args.plan.plan)?;
    let runner = Runner::new(plan.retry(), plan.circuit())?.concurrency(args.concurrency);
    let progress = if args.json { Progress::json() } else { Progress::text(&plan, bars) };
    let report = run_plan(&plan, &runner, progress).await?;
    Ok(exit_code(&report))
}

/// Runs the plan until its end, or until a signal or a closed output cancels it.
pub(crate) async fn run_plan(plan: &Plan, runner: &Runner, progress: Progress) -> Result<Report> {
    let cancel = CancellationToken::new();
    cancel_on_interrupt(cancel.clone()).context("the signals cannot be handled; restart the system")?;
    let (events, received) = unbounded_channel();
    let shown = spawn_display(progress, received, cancel.clone());
    let report = runner.run(plan, &backends(plan), &cancel, events).await;

    let shown = if cancel.is_cancelled() {
        let Ok(shown) = timeout(OUTPUT_GRACE, shown).await else {
            tracing::warn!("the output was not read, and does not contain the last events");
            return Ok(report);
        };
        shown
    } else {
        shown.await
    };
    let mut progress = shown
        .context("the display of the events panicked; report this as a bug")?
        .context("the output was closed, which cancelled the run; read it to its end")?;
    progress.finish(&report).context("the results cannot be written; read the output to its end")?;
    Ok(report)
}

/// Shows the events on a thread, because a write blocks while the output is not read.
///
/// The run is cancelled if an event cannot be written.
fn spawn_display(
    mut progress: Progress,
    mut events: UnboundedReceiver<Event>,
    cancel: CancellationToken,
) -> oneshot::Receiver<io::Result<Progress>> {
    let (ended, receiver) = oneshot::channel();
    thread::spawn(move || {
        let result = show_events(&mut progress, &mut events);
        if result.is_err() {
            cancel.cancel();
        }
        let _ = ended.send(result.map(|()| progress));
    });
    receiver
}

fn show_events(progress: &mut Progress, events: &mut UnboundedReceiver<Event>) -> io::Result<()> {
    while let Some(event) = events.blocking_recv() {
        progress.show(&event)?;
    }
    Ok(())
}

fn exit_code(report: &Report) -> u8 {
    if report.is_cancelled() {
        INTERRUPTED
    } else if report.is_success() {
        SUCCESS
    } else {
        SOME_FAILED
    }
}
