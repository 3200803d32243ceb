//! The permission for one retry, and its settlement.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tower_fault_classify::{Fault, Verdict};

use super::tokens::Refund;

/// The permission for one retry, which the retry's outcome settles.
///
/// The budget grants it. Dropping it without settling it means that the retry was not sent or was
/// cancelled.
///
/// | the retry | [`Budget::tokens`](super::Budget::tokens), [`Budget::aws`](super::Budget::aws) | [`Budget::grpc`](super::Budget::grpc) | [`Budget::window`](super::Budget::window) |
/// |---|---|---|---|
/// | succeeded | returns the cost | adds a part of a token | |
/// | failed | keeps the cost | takes a token | |
/// | was rejected on this side and not sent | returns the cost | | |
/// | was dropped, because the caller stopped waiting | returns the cost | | |
#[derive(Debug)]
#[must_use]
pub struct Ticket(pub(super) TicketKind);

pub(super) enum TicketKind {
    Paid,
    Tokens(Refund),
    Custom(OnSettle),
}

/// The function that is called once with the outcome of a ticket.
pub(super) struct OnSettle(Option<Box<SettleFn>>);

type SettleFn = dyn FnOnce(Option<&Verdict>) + Send + Sync;

impl OnSettle {
    fn run(&mut self, verdict: Option<&Verdict>) {
        if let Some(settle) = self.0.take() {
            settle(verdict);
        }
    }
}

impl Drop for OnSettle {
    // Out of line, because most calls have no ticket of this kind.
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        // The ticket may be dropped while its task unwinds. A panic that leaves this `drop` would
        // then abort the process.
        drop(catch_unwind(AssertUnwindSafe(|| self.run(None))));
    }
}

impl Ticket {
    /// Creates a ticket that returns nothing to the budget.
    pub const fn paid() -> Self {
        Self(TicketKind::Paid)
    }

    /// Creates the ticket of a custom budget.
    ///
    /// `settle` is called once: with the retry's verdict, or with `None` if the ticket is dropped.
    /// Creating the ticket allocates.
    ///
    /// # Panics
    ///
    /// The method itself does not panic. A panic of `settle` is propagated to the caller of
    /// [`succeeded`](Self::succeeded) or [`failed`](Self::failed). If `settle` is called with
    /// `None`, its panic is caught, because the ticket may be dropped during another panic.
    pub fn new(settle: impl FnOnce(Option<&Verdict>) + Send + Sync + 'static) -> Self {
        Self(TicketKind::Custom(OnSettle(Some(Box::new(settle)))))
    }

    /// Settles the ticket of a retry that succeeded.
    pub fn succeeded(self) {
        self.settle(&Verdict::Success);
    }

    /// Settles the ticket of a retry that failed with `fault`.
    pub fn failed(self, fault: &Fault) {
        self.settle(&Verdict::Fault(*fault));
    }

    pub(crate) fn settle(self, verdict: &Verdict) {
        match self.0 {
            TicketKind::Paid => {}
            TicketKind::Tokens(refund) => refund.settle(verdict),
            TicketKind::Custom(mut settle) => settle.run(Some(verdict)),
        }
    }
}

impl fmt::Debug for TicketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paid => "Paid",
            Self::Tokens(_) => "Tokens",
            Self::Custom(_) => "Custom",
        })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A panic that is not caught would abort the whole test process.
    #[test]
    fn ticket_dropped_during_panic_does_not_abort_process() {
        let settled = Arc::new(Mutex::new(0));
        let settle = Arc::clone(&settled);
        let unwound = catch_unwind(AssertUnwindSafe(move || {
            let _ticket = Ticket::new(move |_| {
                *settle.lock().unwrap() += 1;
                panic!("the ticket's own panic");
            });
            panic!("the call's panic");
        }));
        let panic = unwound.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the call's panic"));
        assert_eq!(Arc::into_inner(settled).unwrap().into_inner().unwrap(), 1);
    }
}
