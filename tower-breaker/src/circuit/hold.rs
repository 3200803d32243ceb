//! How a permit holds its circuit.

use std::fmt;
use std::task::Waker;

use tower_fault_classify::Verdict;

use super::core::{Core, Entry, Refusal, Took};
use super::store::{Single, Store};
use super::wakers::{Seat, WaitsFor};

/// What a permit needs of the circuit that it holds. Only this crate's handles are any use as one.
#[doc(hidden)]
pub trait Hold {
    /// Takes the circuit over; what is left is of no use, and costs nothing to forget.
    fn take(&mut self) -> Self;
    fn admit(&self) -> Result<Entry, Refusal>;
    fn renew(&self, entry: Entry) -> bool;
    fn settle(&self, entry: Entry, verdict: &Verdict);
    fn settle_late(&self, entry: Entry, verdict: &Verdict, took: Took);
    fn cancel(&self, entry: Entry);
    fn abandon(&self, entry: Entry);
    fn abandon_answered(&self, entry: Entry);
    fn took(&self, entry: Entry) -> Took;
    fn wait(&self, seat: &mut Option<Seat>, waker: &Waker);
    fn leave(&self, seat: Seat);
}

/// Holds a circuit of its own, which is never freed, so that nobody counts.
#[derive(Clone, Copy)]
pub struct Own(pub(super) &'static Core);

/// Reaches a circuit, wherever its parts stand.
pub(crate) trait Reach {
    type Store: Store;

    fn core(&self) -> &Core<Self::Store>;

    /// See [`Hold::take`].
    fn take(&mut self) -> Self;
}

impl Reach for Own {
    type Store = Single;

    #[inline]
    fn core(&self) -> &Core {
        self.0
    }

    #[inline]
    fn take(&mut self) -> Self {
        *self
    }
}

impl<R: Reach> Hold for R {
    #[inline]
    fn take(&mut self) -> Self {
        Reach::take(self)
    }

    #[inline]
    fn admit(&self) -> Result<Entry, Refusal> {
        self.core().admit()
    }

    #[inline]
    fn renew(&self, entry: Entry) -> bool {
        self.core().renew(entry)
    }

    #[inline]
    fn settle(&self, entry: Entry, verdict: &Verdict) {
        self.core().settle(entry, verdict);
    }

    #[inline]
    fn settle_late(&self, entry: Entry, verdict: &Verdict, took: Took) {
        self.core().settle_late(entry, verdict, took);
    }

    #[inline]
    fn cancel(&self, entry: Entry) {
        self.core().cancel(entry);
    }

    #[inline]
    fn abandon(&self, entry: Entry) {
        self.core().abandon(entry);
    }

    fn abandon_answered(&self, entry: Entry) {
        self.core().abandon_answered(entry);
    }

    #[inline]
    fn took(&self, entry: Entry) -> Took {
        self.core().took(entry)
    }

    #[inline]
    fn wait(&self, seat: &mut Option<Seat>, waker: &Waker) {
        self.core().wait(seat, waker, WaitsFor::Change);
    }

    #[inline]
    fn leave(&self, seat: Seat) {
        self.core().leave(seat);
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}
