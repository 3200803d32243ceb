//! A variant: a row of the tables, measured for one crate in one style.

use std::hint::black_box;
use std::sync::Mutex;

use tower::Service;

use crate::call::{self, Lend};

/// How a variant makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Style {
    /// Polls the readiness and the future directly, in one loop. The compiler can inline all of it.
    Raw,
    /// Awaits `ready()` and `call()` in an async function, as users do.
    Await,
}

impl Style {
    pub fn name(self) -> &'static str {
        match self {
            Style::Raw => "raw",
            Style::Await => "await",
        }
    }
}

/// The outcomes that a variant must have. Another outcome means that the variant measures something
/// else, for instance because a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Success,
    Failure,
    /// Every fourth call fails, the first included.
    ThreeOfFour,
}

impl Expect {
    /// Returns how many of `calls` calls must succeed.
    fn successes(self, calls: u32) -> u32 {
        match self {
            Expect::Success => calls,
            Expect::Failure => 0,
            Expect::ThreeOfFour => calls - calls.div_ceil(4),
        }
    }
}

/// Makes a number of calls and returns how many succeeded.
pub type Calls = Box<dyn FnMut(u32) -> u32>;

/// Creates the calls of one thread. The threads share the state of the layers.
pub type Threads = Box<dyn Fn() -> Calls + Send + Sync>;

/// A row of the tables, measured for one crate in one style.
pub struct Variant {
    pub row: &'static str,
    /// The crate that is measured, or an empty string.
    pub subject: &'static str,
    pub style: Style,
    /// The row of the service without layers.
    pub bare: &'static str,
    expect: Expect,
    set_up: Box<dyn Fn() -> Threads>,
}

impl Variant {
    /// Creates the layers and warms them up.
    pub fn set_up(&self) -> Threads {
        (self.set_up)()
    }

    /// Checks that the right number of calls succeeded.
    ///
    /// # Panics
    ///
    /// Panics if it is another number.
    pub fn check(&self, calls: u32, successes: u32) {
        let expected = self.expect.successes(calls);
        assert_eq!(successes, expected, "successes of {calls} calls of {}", self.label());
    }

    /// Returns the text that the filters of the command line are searched in.
    pub fn label(&self) -> String {
        format!("{}, {}, {}", self.row, self.subject, self.style.name())
    }
}

/// Collects variants.
pub struct Variants {
    /// The row of the service without layers, for the variants that are added next.
    pub(crate) bare: &'static str,
    variants: Vec<Variant>,
}

impl Default for Variants {
    fn default() -> Self {
        Self { bare: crate::BARE, variants: Vec::new() }
    }
}

impl Variants {
    /// Adds both styles of a row.
    ///
    /// `set_up` creates the layers and returns a function that creates a service. `request` returns
    /// the request of the call with the given number.
    pub(crate) fn add<S, Req, M>(
        &mut self,
        row: &'static str,
        subject: &'static str,
        expect: Expect,
        set_up: impl Fn() -> M + Copy + 'static,
        request: impl Fn(u32) -> Req + Copy + Send + Sync + 'static,
    ) where
        S: Service<Req> + 'static,
        M: Fn() -> S + Send + Sync + 'static,
        Req: 'static,
    {
        self.add_lent(row, subject, expect, set_up, request, call::Same);
    }

    /// Adds both styles of a row that clones the service for each call.
    pub(crate) fn add_cloned<S, Req, M>(
        &mut self,
        row: &'static str,
        subject: &'static str,
        expect: Expect,
        set_up: impl Fn() -> M + Copy + 'static,
        request: impl Fn(u32) -> Req + Copy + Send + Sync + 'static,
    ) where
        S: Service<Req> + Clone + 'static,
        M: Fn() -> S + Send + Sync + 'static,
        Req: 'static,
    {
        self.add_lent(row, subject, expect, set_up, request, call::Cloned);
    }

    fn add_lent<S, Req, M, L>(
        &mut self,
        row: &'static str,
        subject: &'static str,
        expect: Expect,
        set_up: impl Fn() -> M + Copy + 'static,
        request: impl Fn(u32) -> Req + Copy + Send + Sync + 'static,
        lend: L,
    ) where
        S: Service<Req> + 'static,
        M: Fn() -> S + Send + Sync + 'static,
        L: Lend<S> + Copy + Send + Sync + 'static,
        Req: 'static,
    {
        self.add_calls(
            row,
            subject,
            expect,
            set_up,
            move |service| call::raw(service, request, lend),
            move |service| call::awaited(service, request, lend),
        );
    }

    /// Adds both styles of a row for services that are not tower's.
    pub(crate) fn add_calls<S, M>(
        &mut self,
        row: &'static str,
        subject: &'static str,
        expect: Expect,
        set_up: impl Fn() -> M + Copy + 'static,
        raw: impl Fn(S) -> Calls + Copy + Send + Sync + 'static,
        awaited: impl Fn(S) -> Calls + Copy + Send + Sync + 'static,
    ) where
        M: Fn() -> S + Send + Sync + 'static,
    {
        self.push(row, subject, Style::Raw, expect, move || {
            let service = set_up();
            Box::new(move || raw(service()))
        });
        self.push(row, subject, Style::Await, expect, move || {
            let service = set_up();
            Box::new(move || awaited(service()))
        });
    }

    /// Adds the reference that all ratios are relative to.
    pub(crate) fn lock(&mut self) {
        self.push(crate::LOCK, "", Style::Raw, Expect::Success, || {
            Box::new(|| {
                let mutex = Mutex::new(0_u32);
                Box::new(move |calls| {
                    for _ in 0..calls {
                        *black_box(&mutex).lock().expect("no thread panics with the lock") += 1;
                    }
                    calls
                })
            })
        });
    }

    pub(crate) fn push(
        &mut self,
        row: &'static str,
        subject: &'static str,
        style: Style,
        expect: Expect,
        set_up: impl Fn() -> Threads + 'static,
    ) {
        let bare = self.bare;
        self.variants.push(Variant { row, subject, style, bare, expect, set_up: Box::new(set_up) });
    }

    /// Returns the variants by row, in the order in which the rows were added. Within a row they
    /// are sorted by style, and then in the order of addition.
    pub(crate) fn into_sorted(self) -> Vec<Variant> {
        let mut rows = Vec::new();
        for variant in &self.variants {
            if !rows.contains(&variant.row) {
                rows.push(variant.row);
            }
        }
        let mut variants = self.variants;
        variants.sort_by_key(|variant| (rows.iter().position(|row| *row == variant.row), variant.style));
        variants
    }
}
