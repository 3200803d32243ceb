//! The progress: one line a second for each client, and one line for each event.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_breaker::CircuitState;
use tower_breaker::telemetry::Transition;

use crate::load::{Outcome, SharedLog};
use crate::screen::{Screen, colour};
use crate::script::{Phase, Script};
use crate::server::Server;

/// One client with its server.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// The name of the client.
    pub(crate) name: &'static str,
    /// The calls of the client.
    pub(crate) log: SharedLog,
    /// The server that the client calls.
    pub(crate) server: Server,
}

/// Shows the progress of both sides while the script runs.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: Arc<Screen>,
    script: Script,
    sides: [SideProgress; 2],
}

#[derive(Debug)]
struct SideProgress {
    side: Side,
    /// The totals when the last line was shown.
    shown: Totals,
}

impl Progress {
    /// Creates the progress of two sides. It shows nothing yet.
    pub(crate) fn new(screen: Arc<Screen>, script: Script, sides: [Side; 2]) -> Self {
        let sides = sides.map(|side| SideProgress { side, shown: Totals::default() });
        Self { screen, script, sides }
    }

    /// Shows each second and each phase when it begins.
    ///
    /// The future never resolves, because calls can still run when the script has ended. The caller
    /// drops it when all calls have ended, and then shows the last second.
    pub(crate) async fn run(&mut self) {
        let mut now = self.script.start();
        let mut shown_phase = None;
        while now < self.script.end() {
            sleep_until(now).await;
            if now > self.script.start() {
                self.show_second();
            }
            let phase = self.script.phase(now);
            if shown_phase != Some(phase) {
                self.show_phase(phase, now);
                shown_phase = Some(phase);
            }
            now += Duration::from_secs(1);
        }
        pending::<()>().await;
    }

    /// Shows one line for each side, with the changes since its last line.
    pub(crate) fn show_second(&mut self) {
        let time = elapsed(self.script, Instant::now());
        let mut lines = Vec::new();
        for progress in &mut self.sides {
            let totals = Totals::of(&progress.side);
            let change = totals.since(progress.shown);
            progress.shown = totals;
            lines.push(format!("{time}  {:<5}{}", progress.side.name, change.line(&self.screen)));
        }
        self.screen.update(lines);
    }

    fn show_phase(&self, phase: Phase, now: Instant) {
        let time = elapsed(self.script, now);
        let name = self.screen.paint(colour::BOLD, phase.name());
        self.screen.print(&format!("{time}  server {name}: {}", phase.description()));
    }
}

/// Shows a transition of the circuit.
pub(crate) fn show_transition(screen: &Screen, script: Script, transition: &Transition) {
    let colour = match transition.to {
        CircuitState::Closed => colour::GREEN,
        CircuitState::Open => colour::RED,
        _ => colour::YELLOW,
    };
    let states = format!("circuit {} -> {}", transition.from, transition.to);
    let mut reason = transition.reason.to_string();
    if let Some(fault) = transition.fault {
        reason = format!("{reason}; last failure: {fault}");
    }
    let time = elapsed(script, Instant::now());
    screen.print(&format!("{time}  {}: {reason}", screen.paint(colour, &states)));
}

/// Returns the time since the start of the script, as text.
fn elapsed(script: Script, now: Instant) -> String {
    format!("{:5.2} s", (now - script.start()).as_secs_f64())
}

/// What one side has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    calls: u64,
    requests: u64,
    answered: u64,
    failed: u64,
    rejected: u64,
}

impl Totals {
    fn of(side: &Side) -> Self {
        let log = side.log.lock();
        Self {
            calls: log.started,
            requests: side.server.received(),
            answered: log.count(Outcome::Answered),
            failed: log.count(Outcome::Failed),
            rejected: log.count(Outcome::Rejected),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            requests: self.requests - before.requests,
            answered: self.answered - before.answered,
            failed: self.failed - before.failed,
            rejected: self.rejected - before.rejected,
        }
    }

    /// Returns the columns of a progress line. With time and name it has at most 80 characters.
    fn line(self, screen: &Screen) -> String {
        let column = |name, count: u64, colour| {
            let text = format!("  {name} {count:>3}");
            if count > 0 { screen.paint(colour, &text) } else { text }
        };
        let answered = column("answered", self.answered, colour::GREEN);
        let failed = column("failed", self.failed, colour::RED);
        let rejected = column("rejected", self.rejected, colour::YELLOW);
        format!("  calls {:>3}  requests {:>3}{answered}{failed}{rejected}", self.calls, self.requests)
    }
}
