//! The machine made concurrent: the state's storage, and the handles to it.

mod core;
mod gate;
mod name;
mod permit;
mod waiters;
mod window;

pub(crate) use self::core::{Core, Refusal};
pub(crate) use self::name::intern;
pub(crate) use self::waiters::Seat;
pub(crate) use self::window::Shape;
pub use permit::Permit;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__shared::Recycled;

use self::window::Window;
use crate::config::BreakerConfig;
use crate::error::Rejection;
use crate::machine::{CircuitState, Counts};
use crate::observe::Transition;

/// The handle to a circuit.
///
/// Every service that a [`BreakerLayer`](crate::BreakerLayer) makes shares the layer's circuit, and so does every clone of
/// this handle: [`BreakerLayer::circuit`](crate::BreakerLayer::circuit) hands it out. Dropping the last handle ends the
/// circuit; calls that still run then have no effect on it.
///
/// A worker, a thread or a database pool can guard its calls with the circuit alone:
///
/// ```
/// use tower_breaker::{BreakerConfig, Circuit, Verdict};
///
/// let circuit = Circuit::new(BreakerConfig::builder().name("billing").build()?);
/// let permit = circuit.try_acquire()?;
/// // ... the call ...
/// permit.settle(Verdict::Success);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Circuit {
    core: Recycled<Core>,
    name: &'static str,
}

impl Circuit {
    /// A closed circuit with an empty window.
    pub fn new(config: BreakerConfig) -> Self {
        let BreakerConfig { name, trip, recovery, shape, clock } = config;
        let core = Recycled::take(
            |core: &Core| core.window().shape() == shape && *core.clock() == clock,
            || Core::new(clock.clone(), Window::new(shape), trip, recovery),
        );
        core.adopt(name, trip, recovery);
        Self { core, name }
    }

    /// The name from the configuration.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where the circuit stands, and what it counts.
    pub fn status(&self) -> Status {
        let view = self.core.view();
        Status {
            circuit: self.name,
            state: view.state,
            consecutive_failures: view.run,
            window: view.counts,
            retry_after: view.left.map(|left| self.with_slack(left)),
            last_transition: view.last,
        }
    }

    /// Asks to begin a call.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] while the circuit is open, or half-open with all places taken.
    pub fn try_acquire(&self) -> Result<Permit, Rejection> {
        self.admit().map_err(|refusal| self.rejection(refusal))
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Permit> {
        Permit::acquire_closed(self.core.forever())
    }

    pub(crate) fn admit(&self) -> Result<Permit, Refusal> {
        Permit::acquire(self.core.forever())
    }

    #[inline]
    pub(crate) fn rejection(&self, Refusal { state, left }: Refusal) -> Rejection {
        Rejection::new(self.name, state, self.with_slack(left))
    }

    /// How long to wait so that `left` nanoseconds are over on the circuit's clock, which may be a little behind.
    fn with_slack(&self, left: u64) -> Duration {
        Duration::from_nanos(left) + self.core.clock().slack()
    }

    pub(crate) fn core(&self) -> &'static Core {
        self.core.forever()
    }

    pub(crate) fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.core.observe(Arc::new(observer));
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("status", &self.status()).finish()
    }
}

/// What a circuit looks like at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The circuit's name.
    pub circuit: &'static str,
    /// Where it stands.
    pub state: CircuitState,
    /// Failures since the last success; 0 unless closed.
    pub consecutive_failures: u64,
    /// What the window holds; it is empty at every change of the state.
    pub window: Counts,
    /// How long it stays open.
    pub retry_after: Option<Duration>,
    /// How it came to stand there.
    pub last_transition: Option<Transition>,
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::__shared::Clock;

    use super::*;

    #[test]
    fn a_rejection_adds_what_the_clock_may_be_behind() {
        for clock in [Clock::coarse(), Clock::precise()] {
            let slack = clock.slack();
            let circuit = Circuit::new(BreakerConfig::builder().clock(clock).build().unwrap());
            let rejection = circuit.rejection(Refusal { state: CircuitState::Open, left: 7 });
            assert_eq!(rejection.retry_after(), Some(Duration::from_nanos(7) + slack));
        }
        assert_eq!(Clock::coarse().slack().is_zero(), cfg!(not(target_os = "linux")));
    }
}
