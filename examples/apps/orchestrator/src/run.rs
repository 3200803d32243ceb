//! The command `run`.

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
use tokio::time::sleep;
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
    warn_of_missing_programs(&plan);
    let runner = Runner::new(plan.retry(), plan.circuit())?.concurrency(args.concurrency);
    let progress = if args.json { Progress::json() } else { Progress::text(&plan, bars) };
    let report = run_plan(&plan, &runner, progress).await?;
    Ok(report.map_or(INTERRUPTED, |report| exit_code(&report)))
}

/// Logs which backends are sure to fail. The run starts, because the other tasks do not need them.
fn warn_of_missing_programs(plan: &Plan) {
    for (backend, program) in plan.missing_programs() {
        if plan.tasks().iter().any(|task| task.agent == backend) {
            tracing::warn!(
                backend,
                program,
                "the program is not found or not executable, so the tasks of the backend will fail"
            );
        }
    }
}

/// Runs the plan, and shows its events and its results. Returns `None` if a signal interrupts the
/// run or its output.
///
/// The run is cancelled if the output is closed.
pub(crate) async fn run_plan(plan: &Plan, runner: &Runner, progress: Progress) -> Result<Option<Report>> {
    let cancel = CancellationToken::new();
    cancel_on_interrupt(cancel.clone()).context("the signals cannot be handled; restart the system")?;
    let (events, received) = unbounded_channel();
    let (results, report) = oneshot::channel();
    let shown = spawn_display(progress, received, report, cancel.clone());
    let report = runner.run(plan, &backends(plan), &cancel, events).await;
    // If the display has ended early, `shown` contains its error.
    let _ = results.send(report.clone());

    tokio::select! {
        biased;
        shown = shown => shown.context("the display of the events panicked; report this as a bug")??,
        () = grace_after(&cancel) => {
            tracing::warn!("the output was not read, and does not contain the last events");
            return Ok(None);
        }
    }
    Ok((!report.is_cancelled()).then_some(report))
}

/// Waits for the end of the time that a reader of the output has after an interrupt.
async fn grace_after(cancel: &CancellationToken) {
    cancel.cancelled().await;
    sleep(OUTPUT_GRACE).await;
}

/// Shows the events and the results on a thread, because a write blocks while the output is not
/// read.
///
/// The run is cancelled if an event cannot be written.
fn spawn_display(
    mut progress: Progress,
    events: UnboundedReceiver<Event>,
    report: oneshot::Receiver<Report>,
    cancel: CancellationToken,
) -> oneshot::Receiver<Result<()>> {
    let (ended, receiver) = oneshot::channel();
    thread::spawn(move || {
        let result = show(&mut progress, events, report);
        if result.is_err() {
            cancel.cancel();
        }
        let _ = ended.send(result);
    });
    receiver
}

fn show(
    progress: &mut Progress,
    mut events: UnboundedReceiver<Event>,
    report: oneshot::Receiver<Report>,
) -> Result<()> {
    while let Some(event) = events.blocking_recv() {
        progress
            .show(&event)
            .context("the output was closed, which cancelled the run; read it to its end")?;
    }
    let report = report.blocking_recv().context("the run panicked; report this as a bug")?;
    progress.finish(&report).context("the results cannot be written; read the output to its end")
}

fn exit_code(report: &Report) -> u8 {
    if report.is_success() { SUCCESS } else { SOME_FAILED }
}
