//! One shared circuit of the process: its follower, and the commands to the circuit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::control::{Command, ProbeOutcome as Outcome, Signal};
use tower_breaker::handle::WeakCircuit;
use tower_breaker::telemetry::ObserverId;

use super::circuit::{Action, Follower, Forced, Local};
use super::keyed::Layer;
use super::mailbox::{Event, Id};
use super::target::{SharedTarget, Target};
use super::{GRACE, Settings, Time};
use crate::quorum::Quorum;
use crate::record::Override;
use crate::store::{Ballot, CompletedProbe, LeaseRequest, LocalOpen, ProbeOutcome, SyncCircuit};

/// A message of one circuit to the store.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Ask(LeaseRequest),
    Extend(LeaseRequest),
    Complete(CompletedProbe),
    /// A lease that no probe has used, with the neutral outcome.
    GiveBack(CompletedProbe),
}

/// The messages of one input.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) messages: Vec<Message>,
    /// Whether to send a ballot soon.
    pub(crate) sync: bool,
}

/// Where a shared circuit comes from.
pub(crate) enum Source {
    /// It was shared by itself, or by its registry. The listeners of the agent are kept, to remove
    /// them.
    Single(WeakCircuit, [ObserverId; 2]),
    /// It is the circuit of a key.
    #[cfg_attr(not(feature = "keyed"), allow(dead_code, reason = "there are no circuits by key"))]
    Key(Arc<Layer>),
}

pub(crate) struct Slot {
    pub(crate) id: Id,
    /// The name in the fleet.
    pub(crate) name: Arc<str>,
    /// The name in metrics: that of the circuit, or of the layer.
    pub(crate) label: &'static str,
    pub(crate) circuit: SharedTarget,
    pub(crate) follower: Follower,
    pub(crate) quorum: Quorum,
    pub(crate) source: Source,
}

impl Slot {
    pub(crate) const fn is_single(&self) -> bool {
        matches!(self.source, Source::Single(..))
    }

    /// Removes the listeners of the agent from a circuit that was shared by itself.
    pub(crate) fn remove_observers(&self) {
        if let Source::Single(circuit, observers) = &self.source
            && let Some(circuit) = circuit.upgrade()
        {
            for observer in observers {
                circuit.remove_observer(*observer);
            }
        }
    }

    /// Runs an input of the follower, and executes its commands.
    ///
    /// Returns the messages to send; `None`: the circuit has ended.
    pub(crate) fn run(
        &mut self,
        settings: &Settings,
        input: impl FnOnce(&mut Follower, &Local, &mut Vec<Action>),
    ) -> Option<Outbox> {
        let circuit = self.circuit.upgrade()?;
        let mut actions = Vec::new();
        input(&mut self.follower, &local(&*circuit), &mut actions);
        Some(self.execute(&*circuit, settings, actions))
    }

    pub(crate) fn on_event(&mut self, now: Time, event: Event, settings: &Settings) -> Option<Outbox> {
        if let Event::Signal(Signal::Failure) = event {
            // Needs no status, and failures may be frequent.
            self.follower.on_failure_signal(now);
            return Some(Outbox::default());
        }
        self.run(settings, |follower, local, actions| match event {
            Event::Signal(Signal::Demand) => follower.on_demand_signal(now),
            Event::Signal(Signal::ProbeStarted) => follower.on_probe_started(now, local, actions),
            Event::Signal(Signal::ProbeCompleted(outcome)) => {
                let outcome = match outcome {
                    Outcome::Success => ProbeOutcome::Success,
                    Outcome::Failure => ProbeOutcome::Failure,
                    _ => ProbeOutcome::Neutral,
                };
                follower.on_probe_completed(now, outcome, local, actions);
            }
            Event::Signal(_) => {}
            Event::Transition(moved) => follower.on_transition(now, moved, local, actions),
        })
    }

    pub(crate) fn on_timer(&mut self, now: Time, settings: &Settings) -> Option<Outbox> {
        if self.follower.is_check_due(now)
            && let Some(circuit) = self.circuit.upgrade()
        {
            // Before the status is read: a failure in between is in the status or sends the signal.
            circuit.rearm(Signal::Failure);
        }
        self.run(settings, |follower, local, actions| follower.on_timer(now, local, actions))
    }

    /// Returns the part of a heartbeat. `None`: the circuit has ended.
    pub(crate) fn report(&mut self, now: Time) -> Option<SyncCircuit> {
        let circuit = self.circuit.upgrade()?;
        let local = local(&*circuit);
        let (ballot, local_open) = self.follower.report(now, &local);
        Some(SyncCircuit {
            name: self.name.as_ref().to_owned(),
            member: super::ballot::is_member(&local.config),
            ballot,
            quorum: self
                .quorum
                .rule(local.config.consecutive_failures(), local.config.consecutive_failures_span()),
            open_for: circuit.next_open_time(),
            local: local_open,
            known: self.follower.record(now),
        })
    }

    /// Returns the part of the last message: the process takes back what it has sent.
    pub(crate) fn farewell(name: &str, settings: &Settings) -> SyncCircuit {
        SyncCircuit {
            name: name.to_owned(),
            member: false,
            ballot: Ballot::default(),
            quorum: settings.quorum.rule(0, Duration::ZERO),
            open_for: Some(Duration::ZERO),
            local: LocalOpen::No,
            known: None,
        }
    }

    /// Returns the message that gives an unused lease back.
    pub(crate) fn reservation(&self, settings: &Settings) -> Option<CompletedProbe> {
        let epoch = self.follower.reserved_epoch()?;
        Some(self.completed(&*self.circuit.upgrade()?, settings, epoch, ProbeOutcome::Neutral))
    }

    fn execute(&mut self, circuit: &dyn Target, settings: &Settings, actions: Vec<Action>) -> Outbox {
        let mut outbox = Outbox::default();
        let mut pending = VecDeque::from(actions);
        while let Some(action) = pending.pop_front() {
            match action {
                Action::Apply(command) => {
                    let effect = circuit.apply(command);
                    if matches!(command, Command::Probe { .. }) {
                        let mut more = Vec::new();
                        self.follower.on_probe_applied(effect, &mut more);
                        pending.extend(more);
                    }
                }
                Action::RestoreLocal(remaining) => {
                    circuit.apply(Command::Open { remaining, takeover: Duration::ZERO });
                    self.follower.on_restored(epoch(circuit));
                }
                Action::Force(manual, keep_for) => self.force(circuit, manual, keep_for),
                Action::Release => circuit.release(),
                Action::Rearm(signal) => circuit.rearm(signal),
                Action::Ask { weight, lease } => {
                    outbox.messages.push(Message::Ask(self.lease_request(circuit, settings, weight, lease)));
                }
                Action::Extend { lease } => {
                    outbox.messages.push(Message::Extend(self.lease_request(circuit, settings, 1.0, lease)));
                }
                Action::Complete { epoch, outcome } => {
                    outbox
                        .messages
                        .push(Message::Complete(self.completed(circuit, settings, epoch, outcome)));
                }
                Action::GiveBack { epoch } => {
                    let neutral = self.completed(circuit, settings, epoch, ProbeOutcome::Neutral);
                    outbox.messages.push(Message::GiveBack(neutral));
                }
                Action::Sync => outbox.sync = true,
            }
        }
        outbox
    }

    fn lease_request(
        &self,
        circuit: &dyn Target,
        settings: &Settings,
        weight: f64,
        lease: Duration,
    ) -> LeaseRequest {
        LeaseRequest {
            instance: settings.instance.clone(),
            circuit: self.name.as_ref().to_owned(),
            probes: circuit.config().probes(),
            lease,
            weight,
            grace: GRACE,
        }
    }

    fn completed(
        &self,
        circuit: &dyn Target,
        settings: &Settings,
        epoch: u64,
        outcome: ProbeOutcome,
    ) -> CompletedProbe {
        let config = circuit.config();
        CompletedProbe {
            instance: settings.instance.clone(),
            circuit: self.name.as_ref().to_owned(),
            epoch,
            outcome,
            open_for: circuit.next_open_time(),
            probes: config.probes(),
            successes_to_close: config.successes_to_close(),
            grace: GRACE,
        }
    }

    fn force(&mut self, circuit: &dyn Target, manual: Override, keep_for: Option<Duration>) {
        let keep_for = keep_for.map(|time| time.clamp(SHORTEST_OVERRIDE, LONGEST_OVERRIDE));
        // Before: an override that the process sets at the same time is then one more.
        let count = circuit.override_count().wrapping_add(1);
        // An error: the configuration disables the circuit, which takes precedence.
        let epoch = circuit.force(manual, keep_for).ok().and_then(|()| epoch(circuit));
        self.follower.on_forced(epoch.map(|epoch| Forced { epoch, count }));
    }
}

/// The durations that an override of a circuit accepts.
const SHORTEST_OVERRIDE: Duration = Duration::from_millis(1);
const LONGEST_OVERRIDE: Duration = Duration::from_secs(365 * 24 * 3600);

fn local(circuit: &dyn Target) -> Local {
    let overrides = circuit.override_count();
    Local { status: circuit.status(), config: circuit.config(), overrides }
}

/// The epoch of the last transition.
fn epoch(circuit: &dyn Target) -> Option<u32> {
    circuit.status().last_transition.map(|transition| transition.epoch)
}
