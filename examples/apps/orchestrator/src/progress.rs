//! Shows the events of a run: as JSON lines, as lines of text, or as bars on a terminal.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use orchestrator::plan::Plan;
use orchestrator::report::{Event, Outcome, Report, TaskResult};
use serde_json::json;

use crate::table;

/// Shows the events of a run.
pub(crate) enum Progress {
    /// Each event is a line on standard output.
    Json,
    /// Each event is a line on standard error. The results are a table on standard output.
    Lines,
    /// Like `Lines`, with a bar for each running task below.
    Bars(Bars),
}

impl Progress {
    pub(crate) fn json() -> Self {
        Self::Json
    }

    /// Shows bars if standard error is a terminal.
    pub(crate) fn text(plan: &Plan, bars: MultiProgress) -> Self {
        if io::stderr().is_terminal() { Self::Bars(Bars::new(plan, bars)) } else { Self::Lines }
    }

    pub(crate) fn show(&mut self, event: &Event) -> io::Result<()> {
        match self {
            Self::Json => write_json(event),
            Self::Lines => match line(event) {
                Some(line) => writeln!(io::stderr(), "{line}"),
                None => Ok(()),
            },
            Self::Bars(bars) => bars.show(event),
        }
    }

    /// Shows the results of the run.
    pub(crate) fn finish(&mut self, report: &Report) -> io::Result<()> {
        match self {
            Self::Json => write_json(&summary(report)),
            Self::Lines => writeln!(io::stdout(), "{}", table::results(report)),
            Self::Bars(bars) => {
                bars.all.clear()?;
                writeln!(io::stdout(), "{}", table::results(report))
            }
        }
    }
}

fn write_json(value: &impl serde::Serialize) -> io::Result<()> {
    let line = serde_json::to_string(value)?;
    writeln!(io::stdout(), "{line}")
}

/// Returns the last line of the JSON output. The results of the tasks are in earlier lines.
fn summary(report: &Report) -> serde_json::Value {
    let count = |is_counted: fn(&Outcome) -> bool| {
        report.tasks.iter().filter(|task| is_counted(&task.outcome)).count()
    };
    json!({
        "event": "finished",
        "completed": count(|outcome| matches!(outcome, Outcome::Completed { .. })),
        "failed": count(|outcome| matches!(outcome, Outcome::Failed { .. })),
        "skipped": count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        "cancelled": count(|outcome| matches!(outcome, Outcome::Cancelled)),
        "circuits": report.circuits,
        "duration_seconds": report.duration.as_secs_f64(),
    })
}

/// Returns the text of an event, or `None` for the first attempt, which follows the start.
fn line(event: &Event) -> Option<String> {
    match event {
        Event::Started { task } => Some(format!("{task}: started")),
        Event::Sent { attempt: 1, .. } => None,
        Event::Sent { task, attempt } => Some(format!("{task}: attempt {attempt}")),
        Event::AttemptFailed { task, attempt, error } => {
            Some(format!("{task}: attempt {attempt} failed: {}", table::one_line(error)))
        }
        Event::Ended(result) => Some(ended_line(result)),
    }
}

fn ended_line(result: &TaskResult) -> String {
    let TaskResult { id, outcome, .. } = result;
    match outcome {
        Outcome::Completed { .. } => {
            format!("{id}: completed at attempt {}, {}", result.attempts, table::seconds(result.duration))
        }
        Outcome::Cancelled => format!("{id}: cancelled"),
        Outcome::Failed { .. } | Outcome::Skipped { .. } => {
            format!("{id}: {}: {}", table::state(outcome), table::detail(outcome))
        }
    }
}

/// The bars of a terminal: one for all tasks, and one for each task that runs.
pub(crate) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: HashMap<String, ProgressBar>,
    /// The backend of each task.
    agents: HashMap<String, String>,
}

impl Bars {
    fn new(plan: &Plan, all: MultiProgress) -> Self {
        let total = all.add(ProgressBar::new(plan.tasks().len() as u64).with_style(total_style()));
        total.tick();
        let agents = plan.tasks().iter().map(|task| (task.id.clone(), task.agent.clone())).collect();
        Self { all, total, running: HashMap::new(), agents }
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started { task } => self.start(task),
            Event::Sent { task, attempt } => self.set_message(task, format!("attempt {attempt}")),
            Event::AttemptFailed { task, attempt, .. } => {
                self.set_message(task, format!("attempt {attempt} failed, waiting"));
                self.print(event)?;
            }
            Event::Ended(result) => {
                if let Some(bar) = self.running.remove(&result.id) {
                    self.all.remove(&bar);
                }
                self.total.inc(1);
                self.print(event)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, task: &str) {
        let agent = self.agents.get(task).map_or("", String::as_str);
        let bar = self.all.add(ProgressBar::new_spinner().with_style(task_style()));
        bar.set_prefix(format!("{task} ({agent})"));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(task.to_owned(), bar);
    }

    fn set_message(&self, task: &str, message: String) {
        if let Some(bar) = self.running.get(task) {
            bar.set_message(message);
        }
    }

    /// Prints a line above the bars.
    fn print(&self, event: &Event) -> io::Result<()> {
        line(event).map_or(Ok(()), |line| self.all.println(line))
    }
}

fn total_style() -> ProgressStyle {
    style("[{elapsed}] {bar:30} {pos}/{len} tasks ended")
}

fn task_style() -> ProgressStyle {
    style("  {spinner} {prefix}: {msg}, {elapsed}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are valid")
}
