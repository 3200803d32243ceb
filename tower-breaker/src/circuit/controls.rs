//! What every handle to a circuit offers, said once.

/// What can be done with any handle to a circuit, which has a `core`, a `name` and a way to `hold` it.
macro_rules! controls {
    ($handle:ident $(<$key:ident>)?, $permit:ty) => {
        impl$(<$key>)? $handle$(<$key>)? {
            /// Where the circuit stands, and what it counts.
            pub fn status(&self) -> Status {
                Status::of(self.name, self.core.key(), self.core.snapshot(), self.core.clock().slack())
            }

            /// Asks to begin a call.
            ///
            /// # Errors
            ///
            /// A [`Rejection`] while the circuit is open, or half-open with all places taken.
            pub fn try_acquire(&self) -> Result<$permit, Rejection> {
                self.admit().map_err(|denied| {
                    self.core.emit_rejection(self.name, denied.state);
                    self.rejection(denied)
                })
            }

            pub(crate) fn admit(&self) -> Result<$permit, Denied> {
                Permit::acquire(self.hold())
            }

            #[inline]
            pub(crate) fn rejection(&self, denied: Denied) -> Rejection {
                let retry_after = denied.retry_after(self.core.clock().slack());
                Rejection::new(self.name, self.core.label(), denied.state, retry_after)
            }

            /// Opens the circuit now; it recovers as usual. One that is open already stays as it is, also when its time is over and nobody has
            /// called since.
            ///
            /// # Errors
            ///
            /// The circuit is forced, or disabled by its configuration: what a hand or the configuration said goes before.
            pub fn trip(&self) -> Result<(), ControlError> {
                self.core.trip_manually().map_err(|state| self.forced(state))
            }

            /// Closes the circuit now, with an empty window, no ramp, and no memory of how often it was open. One that is closed already begins
            /// anew, and that is told as a change, too.
            ///
            /// # Errors
            ///
            /// See [`trip`](Self::trip).
            pub fn reset(&self) -> Result<(), ControlError> {
                self.core.reset().map_err(|state| self.forced(state))
            }

            /// Rejects every call until [`release`](Self::release).
            ///
            /// # Errors
            ///
            /// The circuit is disabled by its configuration.
            pub fn force_open(&self) -> Result<(), ControlError> {
                self.core.force(Force::Open).map_err(|state| self.forced(state))
            }

            /// Lets every call through, uncounted, until [`release`](Self::release).
            ///
            /// # Errors
            ///
            /// The circuit is disabled by its configuration.
            pub fn force_closed(&self) -> Result<(), ControlError> {
                self.core.force(Force::Closed).map_err(|state| self.forced(state))
            }

            /// Gives a forced circuit back to itself: from forced open the next calls are probes, from forced closed it is closed with
            /// an empty window. One that is not forced stays as it is.
            pub fn release(&self) {
                self.core.release();
            }

            /// Hears what a health checker says of the server: see [`HealthReport`]. What a hand has forced, or the configuration has
            /// disabled, goes before, and is not changed.
            pub fn report(&self, report: HealthReport) {
                self.core.report(report);
            }

            fn forced(&self, state: CircuitState) -> ControlError {
                ControlError::new(self.name, state)
            }
        }
    };
}
