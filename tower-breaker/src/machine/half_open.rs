//! One round of probing: a bounded number of leased places.

use core::num::NonZeroU64;

use super::Admission;

/// The place of a probe, and the number by which its holder is known: `serial:32 | place:32`.
///
/// It is one word, so that a permit, which every call carries, is three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    /// The word that a permit carries; it is never 0.
    pub(crate) const fn word(self) -> u64 {
        self.0.get()
    }

    /// The ticket of such a word.
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    const fn new(place: u32, serial: u32) -> Self {
        // Serials begin at 1 and skip 0, so that the word is never 0.
        let word = (serial as u64) << 32 | place as u64;
        Self(NonZeroU64::new(word).expect("a serial is not 0"))
    }

    const fn place(self) -> usize {
        self.0.get() as u32 as usize
    }

    const fn serial(self) -> u32 {
        (self.0.get() >> 32) as u32
    }
}

/// The places of one round and the successes so far.
///
/// A place is leased: when the lease ends, the place is free again, so that probes that never answer cannot hold up the
/// recovery. The probe itself is not cancelled; what it comes to later still counts, but it has no place left to give
/// back.
#[derive(Debug)]
pub(crate) struct Round {
    places: Vec<Option<Lease>>,
    last_serial: u32,
    successes: u32,
    /// Since the last completed probe.
    cancelled: u32,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    serial: u32,
    from: u64,
    until: u64,
}

impl Round {
    pub(super) fn new(probes: u32) -> Self {
        Self { places: vec![None; probes as usize], last_serial: 0, successes: 0, cancelled: 0 }
    }

    pub(super) fn admit(&mut self, now: u64, lease: u64) -> Admission {
        let free = self.places.iter().position(|place| place.is_none_or(|lease| lease.until <= now));
        match free {
            Some(place) => {
                let serial = self.last_serial.checked_add(1).unwrap_or(1);
                self.last_serial = serial;
                self.places[place] = Some(Lease { serial, from: now, until: now.saturating_add(lease) });
                Admission::Probe(Ticket::new(place as u32, serial))
            }
            None => Admission::Refused(Some(self.next_free(now))),
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
                place.from = now;
                place.until = now.saturating_add(lease);
                true
            }
            _ => false,
        }
    }

    /// Counts a success and says how many there are.
    pub(super) const fn succeed(&mut self) -> u32 {
        self.complete();
        self.successes = self.successes.saturating_add(1);
        self.successes
    }

    /// Records a completed probe.
    pub(super) const fn complete(&mut self) {
        self.cancelled = 0;
    }

    /// Counts a cancelled probe. Returns whether `most` were cancelled since the last completed
    /// probe.
    pub(super) const fn abandon_reaches(&mut self, most: u32) -> bool {
        self.cancelled = self.cancelled.saturating_add(1);
        self.cancelled >= most
    }

    /// When the lease began that `ticket` holds.
    pub(super) fn began(&self, ticket: Ticket) -> Option<u64> {
        let lease = self.places.get(ticket.place()).copied().flatten()?;
        (lease.serial == ticket.serial()).then_some(lease.from)
    }

    fn held(&mut self, ticket: Ticket) -> Option<&mut Option<Lease>> {
        let place = self.places.get_mut(ticket.place())?;
        place.is_some_and(|lease| lease.serial == ticket.serial()).then_some(place)
    }
}
