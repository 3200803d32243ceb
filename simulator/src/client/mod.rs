//! The client processes: guards, circuits, policies.

pub mod guards;
pub mod model;
mod shared;

use plotters::style::RGBColor;
use tower_breaker::{BreakerConfigBuilder, Circuit, Clock, Verdict};
use tower_jitter_retry::budget::BudgetBuilder;
use tower_jitter_retry::{Budget, RetryPolicy};

use self::model::Model;
use self::shared::SharedCircuit;
use crate::random::Random;

/// What protects the calls of a process. The retry is above the breaker.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The name for tables and figures, in `snake_case`.
    pub name: &'static str,
    /// The colour in figures.
    pub colour: RGBColor,
    /// The retries, if any. Each process has a budget of its own with the same settings.
    pub retry: Option<RetryPolicy>,
    /// The breaker, if any.
    pub breaker: Option<Breaker>,
}

/// The breaker of a guard.
#[derive(Clone, Debug)]
pub enum Breaker {
    /// A shipped circuit in each process.
    Local(BreakerConfigBuilder),
    /// One shipped circuit for all processes. Each process sees a change of its state this many
    /// nanoseconds later.
    Shared(BreakerConfigBuilder, u64),
    /// A model of another implementation in each process.
    Model {
        /// Creates the model from a seed.
        new: fn(u64) -> Box<dyn Model>,
        /// Whether the retry sends a rejected request again.
        resend_rejected: bool,
    },
}

/// The client processes of a run.
#[derive(Debug)]
pub struct Clients {
    processes: Vec<Process>,
    shared: Option<SharedCircuit>,
}

#[derive(Debug)]
struct Process {
    policy: Option<RetryPolicy>,
    breaker: Option<LocalBreaker>,
}

#[derive(Debug)]
enum LocalBreaker {
    Circuit(Circuit),
    /// With the verdict of a rejected request.
    Model(Box<dyn Model>, Verdict),
}

/// The permission of a breaker to send a request.
#[derive(Debug)]
pub enum Permit {
    /// There is no breaker, or the request is not counted.
    Uncounted,
    /// Of a circuit.
    Circuit(tower_breaker::Permit),
    /// Of a model, with its ticket.
    Model(u64),
}

impl Permit {
    /// Marks the request as a retry. Models do not know retries.
    #[must_use]
    pub fn retry(self) -> Self {
        match self {
            Self::Circuit(permit) => Self::Circuit(permit.retry()),
            Self::Uncounted | Self::Model(_) => self,
        }
    }
}

impl Clients {
    /// Creates the processes.
    pub fn new(guard: &Guard, processes: u32, clock: Clock, seeds: &mut Random) -> Self {
        let shared = match &guard.breaker {
            Some(Breaker::Shared(config, delay)) => {
                Some(SharedCircuit::new(circuit(config, clock, seeds.bits()), *delay))
            }
            _ => None,
        };
        let process = |_| Process {
            breaker: match &guard.breaker {
                Some(Breaker::Local(config)) => {
                    Some(LocalBreaker::Circuit(circuit(config, clock, seeds.bits())))
                }
                Some(Breaker::Model { new, resend_rejected }) => {
                    Some(LocalBreaker::Model(new(seeds.bits()), model::rejected(*resend_rejected)))
                }
                Some(Breaker::Shared(..)) | None => None,
            },
            policy: guard.retry.as_ref().map(|retry| policy(retry, clock, seeds.bits())),
        };
        Self { processes: (0..processes).map(process).collect(), shared }
    }

    /// Returns the circuit of a process, if its breaker is a [`Breaker::Local`].
    pub fn circuit(&self, process: u32) -> Option<&Circuit> {
        match &self.processes[process as usize].breaker {
            Some(LocalBreaker::Circuit(circuit)) => Some(circuit),
            Some(LocalBreaker::Model(..)) | None => None,
        }
    }

    /// Returns the policy of a process.
    pub fn policy(&self, process: u32) -> Option<&RetryPolicy> {
        self.processes[process as usize].policy.as_ref()
    }

    /// Asks the breaker of a process for permission to send a request.
    ///
    /// # Errors
    ///
    /// Returns the verdict of a rejected request.
    pub fn try_acquire(&mut self, process: u32, now: u64) -> Result<Permit, Verdict> {
        if let Some(shared) = &mut self.shared {
            return shared.try_acquire(now);
        }
        match &mut self.processes[process as usize].breaker {
            None => Ok(Permit::Uncounted),
            Some(LocalBreaker::Circuit(circuit)) => acquire(circuit),
            Some(LocalBreaker::Model(model, rejected)) => {
                model.admit(now).map(Permit::Model).ok_or(*rejected)
            }
        }
    }

    /// Records the outcome of a request.
    pub fn record(&mut self, process: u32, permit: Permit, verdict: Verdict, now: u64) {
        match permit {
            Permit::Uncounted => {}
            Permit::Circuit(permit) => permit.record(verdict),
            Permit::Model(ticket) => {
                if let Some(LocalBreaker::Model(model, _)) = &mut self.processes[process as usize].breaker {
                    model.record(now, ticket, verdict.is_success());
                }
            }
        }
        if let Some(shared) = &mut self.shared {
            shared.note_state(now);
        }
    }
}

fn acquire(circuit: &Circuit) -> Result<Permit, Verdict> {
    circuit.try_acquire().map(Permit::Circuit).map_err(|rejection| rejection.fault().into())
}

/// Creates a circuit.
///
/// # Panics
///
/// Panics if a setting is out of its range.
fn circuit(config: &BreakerConfigBuilder, clock: Clock, seed: u64) -> Circuit {
    Circuit::new(config.clone().clock(clock).seed(seed).build().expect("the settings are valid"))
}

/// Creates a policy with a new budget.
///
/// # Panics
///
/// Panics if the budget is a custom one.
fn policy(policy: &RetryPolicy, clock: Clock, seed: u64) -> RetryPolicy {
    let budget = policy.budget().map(|budget| new_budget(budget, clock));
    policy.to_builder().budget(budget).clock(clock).seed(seed).build().expect("the settings are valid")
}

fn new_budget(budget: &Budget, clock: Clock) -> Budget {
    let settings = match budget.to_builder().expect("the budget is not a custom one") {
        BudgetBuilder::Window(window) => BudgetBuilder::Window(window.clock(clock)),
        other => other,
    };
    settings.build().expect("the settings are valid")
}
