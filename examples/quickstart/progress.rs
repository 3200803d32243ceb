//! A line a second for each client, and a word on each change.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_breaker::CircuitState;
use tower_breaker::telemetry::Transition;

use crate::load::{End, Log};
use crate::screen::{Screen, colour};
use crate::script::{Phase, Script};
use crate::upstream::Upstream;

/// One client with its upstream.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// What the client is called.
    pub(crate) name: &'static str,
    /// What it experienced.
    pub(crate) log: Log,
    /// Where it asked.
    pub(crate) upstream: Upstream,
}

/// Shows how both sides fare while the script runs.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: Arc<Screen>,
    script: Script,
    sides: [Side; 2],
    /// What both had come to when the last lines were shown.
    shown: [Totals; 2],
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new(screen: Arc<Screen>, script: Script, sides: [Side; 2]) -> Self {
        Self { screen, script, sides, shown: [Totals::default(); 2] }
    }

    /// Shows every second and every phase as it comes. It does not end: the last second is over
    /// when the last call is.
    pub(crate) async fn follow(&mut self) {
        let (mut now, mut phase) = (self.script.start(), None);
        while now < self.script.end_of(Phase::Healed) {
            sleep_until(now).await;
            if now > self.script.start() {
                self.tell_second();
            }
            let begins = self.script.phase(now);
            if phase.replace(begins) != Some(begins) {
                let name = self.screen.paint(colour::BOLD, begins.name());
                self.screen.say(&format!("{}  upstream {name}: {}", time(self.script, now), begins.about()));
            }
            now += Duration::from_secs(1);
        }
        pending::<()>().await;
    }

    /// Shows what has come of the calls since it was last shown.
    pub(crate) fn tell_second(&mut self) {
        let time = time(self.script, Instant::now());
        let lines = std::array::from_fn::<_, 2, _>(|index| {
            let totals = Totals::of(&self.sides[index]);
            let before = std::mem::replace(&mut self.shown[index], totals);
            format!("{time}  {:<5}{}", self.sides[index].name, totals.since(&before).line(&self.screen))
        });
        self.screen.update(lines.into());
    }
}

/// Shows a change of the circuit.
pub(crate) fn tell_transition(screen: &Screen, script: Script, transition: &Transition) {
    let Transition { from, to, reason, fault, .. } = transition;
    let paint = match to {
        CircuitState::Closed => colour::GREEN,
        CircuitState::Open => colour::RED,
        _ => colour::YELLOW,
    };
    let state = screen.paint(paint, &format!("circuit {from} -> {to}"));
    let fault = fault.map(|fault| format!("; {fault}")).unwrap_or_default();
    screen.say(&format!("{}  {state}: {reason}{fault}", time(script, Instant::now())));
}

/// How long the script has been running.
fn time(script: Script, now: Instant) -> String {
    format!("{:5.2} s", (now - script.start()).as_secs_f64())
}

/// What calls have come to.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    offered: u64,
    reached: u64,
    answered: u64,
    failed: u64,
    rejected: u64,
}

impl Totals {
    fn of(side: &Side) -> Self {
        let book = side.log.book();
        Self {
            offered: book.offered,
            reached: side.upstream.reached(),
            answered: book.ended(End::Answered),
            failed: book.ended(End::Failed),
            rejected: book.ended(End::Rejected),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            offered: self.offered - before.offered,
            reached: self.reached - before.reached,
            answered: self.answered - before.answered,
            failed: self.failed - before.failed,
            rejected: self.rejected - before.rejected,
        }
    }

    /// At most 80 characters long with what stands before it.
    fn line(&self, screen: &Screen) -> String {
        let Self { offered, reached, answered, failed, rejected } = self;
        let part = |name, count: u64, paint| {
            let text = format!("  {name} {count:>3}");
            if count > 0 { screen.paint(paint, &text) } else { text }
        };
        let answered = part("answered", *answered, colour::GREEN);
        let failed = part("failed", *failed, colour::RED);
        let rejected = part("rejected", *rejected, colour::YELLOW);
        format!("  offered {offered:>3}  reached {reached:>3}{answered}{failed}{rejected}")
    }
}
