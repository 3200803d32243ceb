//! Leases of probes, and their outcomes.

use std::time::Duration;

use super::deadline::Deadline;
use super::{CircuitData, Decision, Lease, REASON_PROBES_FAILED, REASON_PROBES_SUCCEEDED, REASON_TIME_OVER};
use crate::record::{CircuitRecord, FleetState};
use crate::store::{CompletedProbe, LeaseReply, LeaseRequest, ProbeOutcome, Update};

/// The smallest weight of a lease, so that the number of leases is bounded.
const MIN_WEIGHT: f64 = 0.001;

/// Sums of weights such as `0.1 + 0.2` are slightly above the exact sum.
const ROUNDING_ERROR: f64 = 1e-6;

impl Lease {
    /// Returns whether the probe has begun. Otherwise the lease is a reservation.
    fn has_begun(&self) -> bool {
        self.weight > 1.0 - ROUNDING_ERROR
    }
}

impl CircuitData {
    /// Grants or extends the lease of one probe, if a slot is free.
    pub(crate) fn lease(&mut self, request: &LeaseRequest, now: u64) -> (LeaseReply, Vec<Update>) {
        let mut changed = self.update_to(now);
        let mut slots_taken = None;
        let result = match self.begin_probes(request, now) {
            Ok(has_begun) => {
                changed |= has_begun;
                self.grant(request, now).map(|taken| slots_taken = taken)
            }
            Err(retry_after) => Err(retry_after),
        };
        let record = self.current_record(&request.circuit, now);
        let mut updates = self.updates(changed, &request.circuit, now);
        if let Some(retry_after) = slots_taken {
            let circuit = request.circuit.clone();
            updates.push(Update::SlotsTaken { circuit, epoch: self.epoch, retry_after });
        }
        let retry_after = result.err();
        let granted = retry_after.is_none();
        (LeaseReply { granted, retry_after: retry_after.unwrap_or_default(), record }, updates)
    }

    /// Half-opens a circuit whose open time is over, and returns whether it did. `Err`: no probe
    /// may run. It has the time after which another request is useful; zero: no longer.
    fn begin_probes(&mut self, request: &LeaseRequest, now: u64) -> Result<bool, Duration> {
        if self.manual.is_some() {
            return Err(Duration::ZERO);
        }
        match (self.state, self.until) {
            (FleetState::Closed, _) => Err(Duration::ZERO),
            (FleetState::HalfOpen, _) => Ok(false),
            // Only a reset ends this. A process that asks all the same gets a bounded rate.
            (FleetState::Open, None) => Err(request.lease),
            (FleetState::Open, Some(until)) if !until.is_over(now) => Err(until.remaining(now)),
            (FleetState::Open, Some(_)) => {
                let until = Some(Deadline::after(now, request.lease));
                let (state, reason, by) = (FleetState::HalfOpen, REASON_TIME_OVER, &*request.instance);
                self.begin_epoch(now, Decision { state, until, reason, by, grace: request.grace });
                Ok(true)
            }
        }
    }

    /// Grants a lease in a half-open circuit. `Ok(Some(_))`: its probe begins, and takes the last
    /// slot for this long. `Err`: no slot is free for this long.
    fn grant(&mut self, request: &LeaseRequest, now: u64) -> Result<Option<Duration>, Duration> {
        let is_live = |lease: &Lease| !lease.until.is_over(now);
        let probes = request.probes.max(1);
        let weight = if request.weight.is_nan() { 1.0 } else { request.weight.clamp(MIN_WEIGHT, 1.0) };
        let mut lease = Lease { until: Deadline::after(now, request.lease), weight };
        let own = self.leases.get(&request.instance).copied().filter(is_live);
        if let Some(own) = own {
            // The message may be an earlier one that is late.
            lease = Lease { until: own.until.later(lease.until), weight: own.weight.max(weight) };
        } else {
            let taken: f64 =
                self.leases.values().filter(|lease| is_live(lease)).map(|lease| lease.weight).sum();
            if taken + weight > f64::from(probes) + ROUNDING_ERROR {
                return Err(self.first_end(now, is_live));
            }
        }
        self.leases.insert(request.instance.clone(), lease);
        self.until = self.until.map(|until| until.later(lease.until));
        let begun = |lease: &Lease| is_live(lease) && lease.has_begun();
        let is_new = lease.has_begun() && !own.is_some_and(|own| own.has_begun());
        let is_last = self.leases.values().filter(|lease| begun(lease)).count() >= probes as usize;
        Ok((is_new && is_last).then(|| self.first_end(now, begun)))
    }

    /// Returns when the first of some leases ends, at least 1 ms.
    fn first_end(&self, now: u64, filter: impl Fn(&Lease) -> bool) -> Duration {
        let ends = self.leases.values().filter(|lease| filter(lease)).map(|lease| lease.until.remaining(now));
        ends.min().unwrap_or_default().max(Duration::from_millis(1))
    }

    /// Counts the outcome of a probe, and frees its slot.
    ///
    /// Without effect in another epoch, and without a lease: the message is late or repeated.
    pub(crate) fn complete(&mut self, probe: &CompletedProbe, now: u64) -> (CircuitRecord, Vec<Update>) {
        let mut changed = self.update_to(now);
        let is_current = self.epoch == probe.epoch && self.state == FleetState::HalfOpen;
        if is_current
            && self.manual.is_none()
            && let Some(lease) = self.leases.remove(&probe.instance)
        {
            changed |= self.count_outcome(probe, lease, now);
        }
        (self.current_record(&probe.circuit, now), self.updates(changed, &probe.circuit, now))
    }

    /// Returns whether the processes have to be notified: of a decision, or of a free slot.
    fn count_outcome(&mut self, probe: &CompletedProbe, lease: Lease, now: u64) -> bool {
        let successes_to_close = probe.successes_to_close.max(1);
        let failures_to_open = probe.probes.saturating_sub(successes_to_close).saturating_add(1);
        match probe.outcome {
            // The slot of a reservation was not taken: a notification to all processes for each
            // reservation that ends would be the most of a quiet fleet's messages.
            ProbeOutcome::Neutral => return lease.has_begun(),
            ProbeOutcome::Success => self.successes = self.successes.saturating_add(1),
            ProbeOutcome::Failure => self.failures = self.failures.saturating_add(1),
        }
        let (by, grace) = (&*probe.instance, probe.grace);
        if self.successes >= successes_to_close {
            let until = Some(Deadline::after(now, Duration::ZERO));
            let (state, reason) = (FleetState::Closed, REASON_PROBES_SUCCEEDED);
            self.begin_epoch(now, Decision { state, until, reason, by, grace });
        } else if self.failures >= failures_to_open {
            let until = probe.open_for.map(|open_for| Deadline::after(now, open_for));
            let (state, reason) = (FleetState::Open, REASON_PROBES_FAILED);
            self.begin_epoch(now, Decision { state, until, reason, by, grace });
        }
        true
    }
}
