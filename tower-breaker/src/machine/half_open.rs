//! One round of probing: a bounded number of leased places.

use super::Admission;

/// The place of a probe, and the number by which its holder is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    place: u32,
    serial: u32,
}

/// The places of one round and the successes so far.
///
/// A place is leased: when the lease ends, the place is free again, so that probes that never answer cannot hold up the
/// recovery. The probe itself is not cancelled; what it comes to later still counts, but it has no place left to give
/// back.
#[derive(Debug)]
pub(crate) struct Round {
    places: Vec<Option<Lease>>,
    next_serial: u32,
    successes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    serial: u32,
    until: u64,
}

impl Round {
    pub(super) fn new(probes: u32) -> Self {
        Self { places: vec![None; probes as usize], next_serial: 0, successes: 0 }
    }

    pub(super) fn admit(&mut self, now: u64, lease: u64) -> Admission {
        let free = self.places.iter().position(|place| place.is_none_or(|lease| lease.until <= now));
        match free {
            Some(place) => {
                let serial = self.next_serial;
                self.next_serial = serial.wrapping_add(1);
                self.places[place] = Some(Lease { serial, until: now.saturating_add(lease) });
                Admission::Probe(Ticket { place: place as u32, serial })
            }
            None => Admission::Refused(self.next_free(now)),
        }
    }

    /// How long until the first lease ends, if none is given back before.
    fn next_free(&self, now: u64) -> u64 {
        self.places.iter().flatten().map(|lease| lease.until.saturating_sub(now)).min().unwrap_or(0)
    }

    /// The place is free again, if `ticket` still holds it.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if let Some(place) = self.held(ticket) {
            *place = None;
        }
    }

    pub(super) fn renew(&mut self, ticket: Ticket, now: u64, lease: u64) -> bool {
        match self.held(ticket) {
            Some(Some(place)) if place.until > now => {
                place.until = now.saturating_add(lease);
                true
            }
            _ => false,
        }
    }

    /// Counts a success and says how many there are.
    pub(super) fn succeed(&mut self) -> u32 {
        self.successes = self.successes.saturating_add(1);
        self.successes
    }

    fn held(&mut self, ticket: Ticket) -> Option<&mut Option<Lease>> {
        let place = self.places.get_mut(ticket.place as usize)?;
        place.is_some_and(|lease| lease.serial == ticket.serial).then_some(place)
    }
}
