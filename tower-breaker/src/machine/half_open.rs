//! A round of probes, which begins when the circuit half-opens: a bounded number of leased slots.

use core::mem;
use core::num::NonZeroU64;

use super::{HalfOpen, RecoveryLimits};

/// The slot of a probe, and the serial number of its lease: `serial:32 | slot:32`.
///
/// The serial number shows whether the probe still holds the slot. A ticket is one word, so that a
/// permit, which every call carries, is three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    /// Returns the word that a permit carries. It is never 0.
    pub(crate) const fn word(self) -> u64 {
        self.0.get()
    }

    /// Returns the ticket of a permit's word. `None`: the word is 0.
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    const fn new(slot: u32, serial: u32) -> Self {
        // Serial numbers start at 1 and skip 0, so the word is never 0.
        let word = (serial as u64) << 32 | slot as u64;
        Self(NonZeroU64::new(word).expect("serial number of a lease must not be 0"))
    }

    const fn slot(self) -> usize {
        self.0.get() as u32 as usize
    }

    const fn serial(self) -> u32 {
        (self.0.get() >> 32) as u32
    }
}

/// The slots of a round of probes, and its successes so far.
///
/// A probe leases a slot. When the lease ends, the slot is free again. So probes that never
/// complete cannot block the recovery. The end of the lease does not cancel the probe: its outcome
/// is still counted, but the probe no longer has a slot to free.
#[derive(Debug)]
pub(crate) struct ProbeRound {
    slots: Vec<Option<Lease>>,
    last_serial: u32,
    successes: u32,
    /// The probes cancelled since the last completed probe.
    cancelled: u32,
    /// Set in a round that a coordinator leads: it has one slot, and the outcome of its probe is
    /// only signalled. Boxed, because few rounds have it, and each circuit has room for two rounds.
    lead: Option<Box<Lead>>,
}

/// The times of a round that a coordinator leads.
#[derive(Clone, Copy, Debug)]
struct Lead {
    /// The probe must be admitted before this time, which is not after `until`.
    start_before: u64,
    /// From this time on, the round is one of the circuit's own.
    until: u64,
    /// Whether the probe has succeeded or failed.
    is_completed: bool,
}

impl Lead {
    fn new(start_before: u64, until: u64) -> Self {
        Self { start_before: start_before.min(until), until, is_completed: false }
    }

    const fn admits(&self, now: u64) -> bool {
        !self.is_completed && now < self.start_before
    }
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    serial: u32,
    from: u64,
    until: u64,
}

impl ProbeRound {
    pub(super) fn new(probes: u32) -> Self {
        Self { slots: vec![None; probes as usize], last_serial: 0, successes: 0, cancelled: 0, lead: None }
    }

    /// Creates a round that a coordinator leads until a time.
    pub(super) fn led(start_before: u64, until: u64) -> Self {
        Self { lead: Some(Box::new(Lead::new(start_before, until))), ..Self::new(1) }
    }

    /// Returns whether a coordinator leads the round at the time `now`.
    pub(super) fn is_led(&self, now: u64) -> bool {
        self.lead.as_ref().is_some_and(|lead| now < lead.until)
    }

    /// Sets other times of a round that a coordinator leads. Returns `false` if no coordinator
    /// leads the round any more, or its probe is completed.
    pub(super) fn retime(&mut self, now: u64, start_before: u64, until: u64) -> bool {
        let retimed = self.lead.as_mut().filter(|lead| now < lead.until && !lead.is_completed);
        retimed.map(|lead| **lead = Lead::new(start_before, until)).is_some()
    }

    /// Records that the probe of a round that a coordinator leads has succeeded or failed. Returns
    /// `false` if another probe has before.
    pub(super) fn complete(&mut self) -> bool {
        self.lead.as_mut().is_some_and(|lead| !mem::replace(&mut lead.is_completed, true))
    }

    /// Continues a round whose coordinator's time is over as one with `probes` slots of its own. A
    /// running probe keeps its slot.
    pub(super) fn end_lead(&mut self, now: u64, probes: u32) {
        if self.lead.as_ref().is_some_and(|lead| lead.until <= now) {
            self.lead = None;
            self.slots.resize(probes as usize, None);
        }
    }

    /// Leases a free slot. `Err`: no slot is free; the first lease ends in this many nanoseconds.
    pub(super) fn admit(&mut self, now: u64, lease: u64) -> Result<Ticket, u64> {
        let slot = self.free_slot(now)?;
        let serial = self.last_serial.checked_add(1).unwrap_or(1);
        self.last_serial = serial;
        self.slots[slot] = Some(Lease { serial, from: now, until: now.saturating_add(lease) });
        Ok(Ticket::new(slot as u32, serial))
    }

    /// Returns a free slot. `Err`: no slot is free; the first lease ends in this many nanoseconds.
    pub(super) fn free_slot(&self, now: u64) -> Result<usize, u64> {
        let free = self.slots.iter().position(|slot| slot.is_none_or(|lease| lease.until <= now));
        free.filter(|_| self.lead.as_ref().is_none_or(|lead| lead.admits(now)))
            .ok_or_else(|| self.time_to_free_slot(now))
    }

    /// Returns how long until the first lease ends. If that is too late for the probe of a
    /// coordinator: until the round is one of the circuit's own.
    fn time_to_free_slot(&self, now: u64) -> u64 {
        let lease_end = self.slots.iter().flatten().map(|lease| lease.until).min();
        let at = match &self.lead {
            None => lease_end.unwrap_or(now),
            Some(lead) => lease_end.filter(|end| *end > now && lead.admits(*end)).unwrap_or(lead.until),
        };
        at.saturating_sub(now)
    }

    /// Frees the slot of `ticket`. Returns `false` if the ticket does not hold it any more.
    pub(super) fn release_probe(&mut self, ticket: Ticket) -> bool {
        self.held_slot(ticket).map(|slot| *slot = None).is_some()
    }

    /// Extends the lease of `ticket`. Returns `false` if the lease has ended.
    pub(super) fn renew(&mut self, ticket: Ticket, now: u64, lease: u64) -> bool {
        match self.held_slot(ticket) {
            Some(Some(slot)) if slot.until > now => {
                slot.from = now;
                slot.until = now.saturating_add(lease);
                true
            }
            _ => false,
        }
    }

    /// Counts a success. Returns the number of successes in this round.
    pub(super) const fn record_success(&mut self) -> u32 {
        self.record_completed();
        self.successes = self.successes.saturating_add(1);
        self.successes
    }

    /// Records a completed probe, which resets the number of cancelled probes.
    pub(super) const fn record_completed(&mut self) {
        self.cancelled = 0;
    }

    /// Counts a cancelled probe. Returns whether `most` were cancelled since the last completed
    /// probe.
    pub(super) const fn record_cancelled(&mut self, most: u32) -> bool {
        self.cancelled = self.cancelled.saturating_add(1);
        self.cancelled >= most
    }

    /// Returns when the lease of `ticket` began. `None`: the ticket no longer holds its slot.
    pub(super) fn lease_start(&self, ticket: Ticket) -> Option<u64> {
        let lease = self.slots.get(ticket.slot()).copied().flatten()?;
        (lease.serial == ticket.serial()).then_some(lease.from)
    }

    /// Returns the progress of the round.
    pub(super) fn progress(&self, now: u64, limits: &RecoveryLimits) -> HalfOpen {
        let running = self.slots.iter().flatten().filter(|lease| lease.until > now);
        // The next decision continues the round with the circuit's own slots.
        let is_own_next = self.lead.is_some() && !self.is_led(now);
        HalfOpen {
            running_probes: running.count() as u32,
            probes: if is_own_next { limits.probes } else { self.slots.len() as u32 },
            successes: self.successes,
            successes_to_close: limits.successes_to_close,
            cancelled_probes: self.cancelled,
        }
    }

    fn held_slot(&mut self, ticket: Ticket) -> Option<&mut Option<Lease>> {
        let slot = self.slots.get_mut(ticket.slot())?;
        slot.is_some_and(|lease| lease.serial == ticket.serial()).then_some(slot)
    }
}
