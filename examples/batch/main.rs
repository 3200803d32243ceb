//! A batch import that pauses while its server is down, and then continues where it stopped.
//!
//! The worker does not use tower. It makes one request at a time, through a circuit and a retry
//! policy whose settings are in `settings.toml`:
//!
//! - Four failures in a row open the circuit. A failure rate says little about so few calls.
//! - While the circuit is open, the worker pauses. A health check finds the server up, and the next
//!   item is the probe that closes the circuit.
//! - An item leaves the queue when it was imported, when the server refuses it, or when it has
//!   failed too often. The worker keeps the last two kinds, so that no item is lost.
//!
//! ```text
//! cargo run --example batch
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::rules::StatusRules;
use tower_breaker::{BreakerConfig, Circuit, ControlError, HumanDuration, Rejection, Status, Verdict};
use tower_jitter_retry::{Deadline, RetryPolicy};

/// The settings file. It is compiled in so that the example needs no path. A service would call
/// `std::fs::read_to_string` instead.
pub(crate) const SETTINGS: &str = include_str!("settings.toml");

const ITEM_COUNT: u32 = 100;

/// The settings of the program. The file describes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    timeout: HumanDuration,
    deadline: HumanDuration,
    max_failures: u32,
    health_check_interval: HumanDuration,
    breaker: BreakerConfig,
    retry: RetryPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item(pub(crate) u32);

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {}", self.0)
    }
}

/// The items of an import. After an error, `queue` contains the items that are left.
pub(crate) struct Batch {
    pub(crate) queue: VecDeque<Item>,
    /// The items that the server refused, or that failed too often.
    pub(crate) set_aside: Vec<Item>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { queue: (1..=ITEM_COUNT).map(Item).collect(), set_aside: Vec::new() }
    }

    /// Imports the items of the queue in order.
    pub(crate) async fn import(
        &mut self,
        server: &Server,
        circuit: &Circuit,
        settings: &Settings,
    ) -> Result<(), ControlError> {
        let guard = circuit.rule(refused_item);
        let deadline = Deadline::within(settings.deadline.into());
        let retry = settings.retry.rule(refused_item).deadline(deadline);

        // How often the item at the front of the queue has failed.
        let mut failures = 0;
        while let Some(&item) = self.queue.front() {
            // The circuit keeps the item with the last failure.
            let guard = guard.clone().keep_last_failure(item);
            let request = || guard.call_within(settings.timeout.into(), server.import(item));
            let Err(error) = retry.retry(request).await else {
                self.queue.pop_front();
                failures = 0;
                continue;
            };
            // The circuit is open: the item was not sent. A scheduled job could return an error
            // here instead, and continue at its next run.
            if let Some(rejection) = error.downcast_ref::<Rejection>() {
                println!("{rejection}: {} items are left", self.queue.len());
                pause(rejection, server, circuit, settings).await?;
                continue;
            }
            // The item was sent, and failed or timed out. The server may have imported an item
            // whose request timed out, so the import has to be idempotent.
            println!("{item}: {error:#}");
            failures += 1;
            if error.is::<RefusedItem>() || failures == settings.max_failures {
                println!("{item} is set aside");
                self.queue.pop_front();
                self.set_aside.push(item);
                failures = 0;
            }
        }
        Ok(())
    }
}

/// Waits until the next item may be sent: it is the probe of the open circuit.
///
/// # Errors
///
/// Returns an error if an operator has forced the circuit open.
async fn pause(
    rejection: &Rejection,
    server: &Server,
    circuit: &Circuit,
    settings: &Settings,
) -> Result<(), ControlError> {
    // With `open_until_reset = false`, the circuit has an open time.
    if rejection.retry_after().is_some() {
        circuit.ready().await;
        return Ok(());
    }
    loop {
        sleep(settings.health_check_interval.into()).await;
        if server.is_healthy().await {
            return circuit.probe_now();
        }
    }
}

/// Classifies a refused item like a response with status 422: it is the caller's mistake. The
/// circuit does not count it, and no retry sends it again.
fn refused_item(outcome: Result<&(), &anyhow::Error>) -> Option<Verdict> {
    let error = outcome.err()?;
    error.is::<RefusedItem>().then(|| StatusRules::row(422).into())
}

/// Creates the circuit, and prints its failures and transitions. With the feature `tracing`, the
/// crates log both by themselves.
pub(crate) fn import_circuit(settings: &Settings) -> Circuit {
    let circuit = Circuit::new(settings.breaker.clone());
    circuit.on_failure(|failure| println!("# {}: failure ({})", failure.circuit, failure.fault.kind()));
    circuit.on_transition(|transition| {
        println!(
            "# {}: {} -> {} ({})",
            transition.circuit, transition.from, transition.to, transition.reason
        );
    });
    circuit
}

fn print_status(status: &Status) {
    println!(
        "circuit `{}` is {}, {} calls were rejected",
        status.circuit, status.state, status.rejected_calls
    );
    if let Some(trip) = &status.last_trip {
        println!("it opened after {} failures in a row", trip.consecutive_failures);
    }
    if let Some(failure) = &status.last_failure {
        println!("last failure: {}: {}", failure.subject, failure.message);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let settings: Settings = toml::from_str(SETTINGS)?;
    let circuit = import_circuit(&settings);
    let server = Server { refused_item: Some(Item(70)), ..Server::default() };
    let mut batch = Batch::new();

    let result = batch.import(&server, &circuit, &settings).await;
    print_status(&circuit.status());
    result?;

    let (imported, requests) = (server.imported.borrow().len(), server.requests.get());
    println!("{imported} of {ITEM_COUNT} items imported with {requests} requests");
    println!("set aside: {:?}", batch.set_aside);
    Ok(())
}

// The rest simulates the server.

/// How many items the server imports before its outage.
const IMPORTS_BEFORE_OUTAGE: usize = 40;
const OUTAGE: Duration = Duration::from_secs(3);
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// The server cannot import the item, however often it is sent.
#[derive(Debug)]
pub(crate) struct RefusedItem;

impl fmt::Display for RefusedItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the item is invalid")
    }
}

impl Error for RefusedItem {}

/// A server that is down for a while after its first [`IMPORTS_BEFORE_OUTAGE`] items.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) imported: RefCell<Vec<Item>>,
    pub(crate) requests: Cell<u32>,
    pub(crate) health_checks: Cell<u32>,
    pub(crate) refused_item: Option<Item>,
    /// An item that makes the server fail.
    pub(crate) broken_item: Option<Item>,
    /// An item that the server never answers.
    pub(crate) hanging_item: Option<Item>,
    pub(crate) outage_end: Cell<Option<Instant>>,
}

impl Server {
    async fn import(&self, item: Item) -> anyhow::Result<()> {
        sleep(ROUND_TRIP).await;
        self.requests.set(self.requests.get() + 1);
        if self.imported.borrow().len() == IMPORTS_BEFORE_OUTAGE && self.outage_end.get().is_none() {
            self.outage_end.set(Some(Instant::now() + OUTAGE));
        }
        self.connect()?;
        if self.refused_item == Some(item) {
            return Err(RefusedItem.into());
        }
        if self.broken_item == Some(item) {
            anyhow::bail!("internal error");
        }
        if self.hanging_item == Some(item) {
            pending::<()>().await;
        }
        self.imported.borrow_mut().push(item);
        Ok(())
    }

    fn connect(&self) -> io::Result<()> {
        if self.is_down() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    async fn is_healthy(&self) -> bool {
        sleep(ROUND_TRIP).await;
        self.health_checks.set(self.health_checks.get() + 1);
        !self.is_down()
    }

    fn is_down(&self) -> bool {
        self.outage_end.get().is_some_and(|end| Instant::now() < end)
    }
}
