//! Commands and signals for code that decides for several circuits with one backend.
//!
//! Such code is called a coordinator here. Use this module to share circuits between processes,
//! threads or layers in your own way. The crate `tower-breaker-fleet` shares them through a store.
//!
//! A circuit decides by itself, as always: it opens on its own evidence, and it never waits for the
//! coordinator. The coordinator does three things:
//!
//! | it | with |
//! |---|---|
//! | observes the circuits | [`Circuit::on_transition`](crate::Circuit::on_transition), [`Circuit::on_signal`](crate::Circuit::on_signal), [`CircuitRegistry::on_create`](crate::CircuitRegistry::on_create) |
//! | decides | [`Circuit::status`](crate::Circuit::status), [`Circuit::next_open_time`](crate::Circuit::next_open_time), [`Circuit::override_count`](crate::Circuit::override_count) |
//! | applies its decision to each circuit | [`Circuit::apply`](crate::Circuit::apply) |
//!
//! # Every command has a deadline
//!
//! Each command that stops calls has a time after which the circuit continues by its own rules. If
//! the coordinator ends, or loses its connection, the time passes, and the breaker works as without
//! a coordinator. Only [`Command::Open`] with `remaining: None` has no deadline.
//!
//! The time consists of two parts. `remaining` is what callers see as `Retry-After`. `takeover` is
//! added to it: in this time the coordinator decides which circuit sends the next probe. 2 s suit a
//! network.
//!
//! # Precedence
//!
//! 1. A manual override, and [`Mode::Disabled`](crate::Mode::Disabled): commands change nothing.
//! 2. Commands, and manual operations without an override, such as
//!    [`trip`](crate::Circuit::trip) or a health report: the last one applies.
//! 3. The circuit's own evidence. It always opens a closed circuit.
//!
//! With [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) the circuit follows the commands, and
//! rejects no call.
//!
//! # Example
//!
//! Two circuits in one process call the same backend, for example with different limits. If one of
//! them opens, the other one opens, too. Afterwards, one call through one of them is the probe for
//! both:
//!
//! ```
//! use std::sync::mpsc::{Receiver, Sender, channel};
//! use std::time::Duration;
//!
//! use tower_breaker::control::{Command, ProbeOutcome, Signal};
//! use tower_breaker::{Circuit, CircuitState, Reason};
//!
//! /// How long the circuits wait for the coordinator when the open time is over.
//! const TAKEOVER: Duration = Duration::from_secs(2);
//! /// How long a probe may take.
//! const PROBE_TIME: Duration = Duration::from_secs(10);
//!
//! enum Event {
//!     /// A circuit has opened on its own evidence.
//!     Opened(usize),
//!     Signal(usize, Signal),
//! }
//!
//! struct Coordinator {
//!     circuits: Vec<Circuit>,
//!     events: Receiver<Event>,
//!     /// The open time is over, and the next call is the probe.
//!     awaits_demand: bool,
//! }
//!
//! impl Coordinator {
//!     fn new(circuits: Vec<Circuit>) -> Self {
//!         let (sender, events) = channel();
//!         for (index, circuit) in circuits.iter().enumerate() {
//!             observe(index, circuit, &sender);
//!         }
//!         Self { circuits, events, awaits_demand: false }
//!     }
//!
//!     /// Handles all events so far. A program calls it from a task, every few milliseconds.
//!     fn tick(&mut self) {
//!         while let Ok(event) = self.events.try_recv() {
//!             self.handle(event);
//!         }
//!         let is_due = |circuit: &Circuit| circuit.status().retry_after == Some(Duration::ZERO);
//!         if !self.awaits_demand && self.circuits.iter().all(is_due) {
//!             self.awaits_demand = true;
//!             for circuit in &self.circuits {
//!                 circuit.rearm(Signal::Demand);
//!             }
//!         }
//!     }
//!
//!     fn handle(&mut self, event: Event) {
//!         match event {
//!             Event::Opened(index) => {
//!                 let remaining = self.circuits[index].status().retry_after;
//!                 self.open_all(remaining);
//!             }
//!             Event::Signal(index, Signal::Demand) if self.awaits_demand => {
//!                 // The other circuits stay open while this one sends the probe.
//!                 self.open_all(Some(PROBE_TIME));
//!                 let probe = Command::Probe { start_within: PROBE_TIME, remaining: PROBE_TIME };
//!                 self.circuits[index].apply(probe);
//!             }
//!             Event::Signal(index, Signal::ProbeCompleted(outcome)) => match outcome {
//!                 ProbeOutcome::Success => self.close_all(),
//!                 ProbeOutcome::Failure => self.open_all(self.circuits[index].next_open_time()),
//!                 // The probe was cancelled: the next call is one.
//!                 _ => self.open_all(Some(Duration::ZERO)),
//!             },
//!             Event::Signal(..) => {}
//!         }
//!     }
//!
//!     fn open_all(&mut self, remaining: Option<Duration>) {
//!         self.awaits_demand = false;
//!         for circuit in &self.circuits {
//!             circuit.apply(Command::Open { remaining, takeover: TAKEOVER });
//!         }
//!     }
//!
//!     fn close_all(&mut self) {
//!         self.awaits_demand = false;
//!         for circuit in &self.circuits {
//!             circuit.apply(Command::Close);
//!         }
//!     }
//! }
//!
//! /// Sends the events of a circuit to the coordinator.
//! fn observe(index: usize, circuit: &Circuit, sender: &Sender<Event>) {
//!     let events = sender.clone();
//!     circuit.on_transition(move |transition| {
//!         if transition.to == CircuitState::Open && transition.reason != Reason::CommandedOpen {
//!             // An error means that the coordinator has ended: the circuits decide alone.
//!             let _ = events.send(Event::Opened(index));
//!         }
//!     });
//!     let events = sender.clone();
//!     circuit.on_signal(move |signal| {
//!         let _ = events.send(Event::Signal(index, signal));
//!     });
//! }
//!
//! # use tower_breaker::{BreakerConfig, Clock, Verdict};
//! # let (clock, time) = Clock::manual();
//! # let config = BreakerConfig::builder().clock(clock).build()?;
//! let circuits = [Circuit::new(config.clone()), Circuit::new(config)];
//! let mut coordinator = Coordinator::new(circuits.to_vec());
//!
//! // The first circuit opens, and the second one follows.
//! circuits[0].trip()?;
//! coordinator.tick();
//! let rejection = circuits[1].try_acquire().unwrap_err();
//!
//! // The open time is over. The next call through any circuit is rejected, and shows the demand.
//! # time.advance(rejection.retry_after().unwrap());
//! coordinator.tick();
//! assert!(circuits[1].try_acquire().is_err());
//! coordinator.tick();
//! // Then this circuit sends the probe. Its success closes both circuits.
//! assert!(circuits[0].try_acquire().is_err());
//! circuits[1].try_acquire()?.record(Verdict::Success);
//! coordinator.tick();
//! assert!(circuits.iter().all(|circuit| circuit.status().state == CircuitState::Closed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use crate::machine::CircuitState;

/// A command of a coordinator, for [`Circuit::apply`](crate::Circuit::apply).
///
/// | state of the circuit | [`Open`](Self::Open) | [`Probe`](Self::Probe) | [`Close`](Self::Close) |
/// |---|---|---|---|
/// | closed | opens | unchanged | unchanged |
/// | open | gets the new deadline | half-opens | closes |
/// | half-open, by the circuit's own rules | opens | half-opens again | closes |
/// | half-open, by [`Probe`](Self::Probe) | opens | gets the new times until its probe has succeeded or failed; then it half-opens again | closes |
/// | forced, or disabled by the configuration | unchanged | unchanged | unchanged |
///
/// A duration that is too long for the clock has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Rejects calls.
    ///
    /// A closed or half-open circuit opens. For an open circuit only the deadline changes, which is
    /// no transition: its epoch stays, and waiting tasks are woken.
    ///
    /// An opening by command is part of the streak of open periods, so the next open period of a
    /// circuit with [`open_backoff`](crate::BreakerConfigBuilder::open_backoff) is longer. A
    /// half-open circuit that opens with a `remaining` of zero continues its last open period.
    Open {
        /// How long callers should stay away.
        ///
        /// [`Rejection::retry_after`](crate::Rejection::retry_after) and
        /// [`Status::retry_after`](crate::Status::retry_after) show this time. When it is over,
        /// the status shows zero, and a rejection at most 1 s and the resolution of the clock.
        ///
        /// `None`: until another command or a reset.
        remaining: Option<Duration>,
        /// How long the circuit waits for another command after `remaining`. Then the next call
        /// half-opens the circuit, which continues by its own rules.
        takeover: Duration,
    },
    /// Half-opens the circuit for exactly one probe.
    ///
    /// The outcome of the probe does not change the circuit. It is sent as
    /// [`Signal::ProbeCompleted`], and the coordinator decides. A neutral outcome frees the slot.
    /// While the probe holds the slot, a repeated command changes only the times.
    Probe {
        /// The probe must be admitted within this time.
        start_within: Duration,
        /// How long the circuit waits for another command. Then it continues with a half-open round
        /// of its own, in the same epoch: a probe that still runs is one of the round's probes.
        remaining: Duration,
    },
    /// Closes an open or half-open circuit, with the configured slow start.
    Close,
}

/// The effect of a [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The command changed nothing.
    Unchanged,
    /// The circuit has other deadlines. There was no transition.
    Retimed,
    /// The circuit has had a transition, and its observers were notified.
    Changed,
    /// The circuit is in this state by a manual override or by its configuration, which takes
    /// precedence. The command changed nothing.
    Overridden(CircuitState),
}

/// An event that a coordinator may react to, for
/// [`Circuit::on_signal`](crate::Circuit::on_signal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The circuit has counted a failure.
    ///
    /// Sent once; [`Circuit::rearm`](crate::Circuit::rearm) arms it again.
    Failure,
    /// A call was rejected, a poll of a service's readiness was denied, or a task waits for the
    /// circuit.
    ///
    /// Sent once; [`Circuit::rearm`](crate::Circuit::rearm) arms it again. With
    /// [`Mode::ObserveOnly`](crate::Mode::ObserveOnly), it is sent for a call that would have been
    /// rejected.
    Demand,
    /// The probe of [`Command::Probe`] was admitted. Always sent.
    ProbeStarted,
    /// The probe of [`Command::Probe`] has ended. Always sent.
    ProbeCompleted(ProbeOutcome),
}

/// The outcome of the probe of [`Command::Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// The probe succeeded.
    Success,
    /// The probe failed, or was slow.
    Failure,
    /// The probe was cancelled, or its outcome shows nothing about the server. Another call may be
    /// the probe, within the time that the command set.
    Neutral,
}
