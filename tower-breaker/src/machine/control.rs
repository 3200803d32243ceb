//! Manual control, health reports, and the configured mode.

use super::{Change, Effect, Force, HealthReport, Machine, Moment, Reason, RecoveryLimits, StateData};

impl Machine {
    /// Opens the circuit manually. An open circuit does not change.
    ///
    /// # Errors
    ///
    /// Returns the forced state if the circuit is forced or disabled.
    pub(crate) fn trip_manually(&mut self, at: Moment, limits: &RecoveryLimits) -> Result<Effect, Force> {
        match self.state {
            StateData::Closed { .. } | StateData::HalfOpen(_) => {
                Ok(Effect::Changed(self.open(Reason::Tripped, None, at, limits)))
            }
            StateData::Open { .. } => Ok(Effect::Unchanged),
            StateData::Forced { force, .. } => Err(force),
        }
    }

    /// Opens the circuit manually for exactly `period` from now. An open circuit stays open for
    /// this time from now, instead of its remaining time.
    ///
    /// The period is no part of the streak of open periods, so it does not change the next one.
    ///
    /// # Errors
    ///
    /// Returns the forced state if the circuit is forced or disabled.
    pub(crate) fn trip_for(&mut self, period: u64, now: u64) -> Result<Effect, Force> {
        let end = Some(now.saturating_add(period));
        match &mut self.state {
            StateData::Closed { .. } | StateData::HalfOpen(_) => {
                let open = StateData::Open { until: end, takeover: 0 };
                Ok(Effect::Changed(self.transition_to(open, Reason::Tripped)))
            }
            StateData::Open { until, takeover } => {
                (*until, *takeover) = (end, 0);
                Ok(Effect::Retimed)
            }
            StateData::Forced { force, .. } => Err(*force),
        }
    }

    /// Half-opens an open circuit manually. A closed or half-open circuit does not change.
    ///
    /// # Errors
    ///
    /// Returns the forced state if the circuit is forced or disabled.
    pub(crate) fn probe_now(&mut self, limits: &RecoveryLimits) -> Result<Effect, Force> {
        match self.state {
            StateData::Open { .. } => Ok(Effect::Changed(self.half_open(limits, Reason::ProbeRequested))),
            StateData::Closed { .. } | StateData::HalfOpen(_) => Ok(Effect::Unchanged),
            StateData::Forced { force, .. } => Err(force),
        }
    }

    /// Closes the circuit manually. A growing open time starts again at its initial value.
    ///
    /// # Errors
    ///
    /// Returns the forced state if the circuit is forced or disabled.
    pub(crate) fn reset(&mut self) -> Result<Change, Force> {
        match self.state {
            StateData::Forced { force, .. } => Err(force),
            _ => Ok(self.close(Reason::Reset)),
        }
    }

    /// Applies the report of a health checker.
    ///
    /// A forced or disabled circuit ignores it. A report that the server is down does not extend
    /// the open time of an open circuit.
    pub(crate) fn report(
        &mut self,
        report: HealthReport,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        match (report, &self.state) {
            (HealthReport::Critical, StateData::Closed { .. } | StateData::HalfOpen(_)) => {
                Some(self.open(Reason::ReportedCritical, None, at, limits))
            }
            (HealthReport::Recovered, StateData::Open { .. }) => {
                Some(self.half_open(limits, Reason::ReportedRecovered))
            }
            _ => None,
        }
    }

    /// Forces the circuit open or closed until a time. `None`: until it is released.
    ///
    /// A circuit that is in this state already gets another end.
    ///
    /// # Errors
    ///
    /// Returns [`Force::Disabled`] if the circuit is disabled.
    pub(crate) fn force(&mut self, force: Force, until: Option<u64>) -> Result<Effect, Force> {
        if let StateData::Forced { force: Force::Disabled, .. } = self.state {
            return Err(Force::Disabled);
        }
        self.overrides = self.overrides.wrapping_add(1);
        match &mut self.state {
            StateData::Forced { force: current, until: end } if *current == force => {
                let retimed = *end != until;
                *end = until;
                Ok(if retimed { Effect::Retimed } else { Effect::Unchanged })
            }
            _ => Ok(Effect::Changed(self.transition_to(StateData::Forced { force, until }, Reason::Forced))),
        }
    }

    /// Returns how many manual overrides were set. The number wraps.
    pub(crate) const fn overrides(&self) -> u32 {
        self.overrides
    }

    /// Ends a manual override. `None`: there is none.
    ///
    /// After forced open the circuit is half-open, after forced closed it is closed. If its
    /// configuration disables the circuit, it is disabled.
    pub(crate) fn release(&mut self, limits: &RecoveryLimits) -> Option<Change> {
        self.end_force(limits, Reason::Released)
    }

    /// Ends a manual override whose time is over, as [`release`](Self::release) does. `None`: there
    /// is none.
    pub(crate) fn end_override(&mut self, now: u64, limits: &RecoveryLimits) -> Option<Change> {
        match self.state {
            StateData::Forced { until: Some(until), .. } if now >= until => {
                self.end_force(limits, Reason::OverrideEnded)
            }
            _ => None,
        }
    }

    fn end_force(&mut self, limits: &RecoveryLimits, reason: Reason) -> Option<Change> {
        match self.state {
            StateData::Forced { force: Force::Open | Force::Closed, .. } if self.disabled => {
                Some(self.disable(reason))
            }
            StateData::Forced { force: Force::Open, .. } => Some(self.half_open(limits, reason)),
            StateData::Forced { force: Force::Closed, .. } => Some(self.close(reason)),
            _ => None,
        }
    }

    /// Returns for how many nanoseconds the manual override stays in force. 0: the next call ends
    /// it. `None`: there is none, or it has no end.
    pub(crate) fn override_remaining(&self, now: u64) -> Option<u64> {
        match self.state {
            StateData::Forced { until, .. } => Some(until?.saturating_sub(now)),
            _ => None,
        }
    }

    /// Sets whether the configuration disables the circuit. A manual override takes precedence.
    pub(crate) fn set_disabled(&mut self, disabled: bool) -> Option<Change> {
        self.disabled = disabled;
        match self.state {
            StateData::Forced { force: Force::Open | Force::Closed, .. } => None,
            StateData::Forced { force: Force::Disabled, .. } => {
                (!disabled).then(|| self.close(Reason::Reconfigured))
            }
            _ => disabled.then(|| self.disable(Reason::Reconfigured)),
        }
    }

    fn disable(&mut self, reason: Reason) -> Change {
        self.transition_to(StateData::Forced { force: Force::Disabled, until: None }, reason)
    }
}
