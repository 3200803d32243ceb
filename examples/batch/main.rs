//! A batch import that pauses while its server is down, and then continues where it stopped.
//!
//! The worker does not use tower. It makes one call at a time through a [`Circuit`]:
//!
//! - Five failures in a row open the circuit. A failure rate says little about so few calls.
//! - The circuit stays open until the worker resets it. The worker does so when a health check
//!   finds the server up.
//! - An item leaves the queue when it was imported, or when it failed too often. The worker keeps
//!   the items that failed, so that no item is lost.
//!
//! ```text
//! cargo run --example batch
//! ```

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::ErrorChain;
use tower_breaker::{BreakerConfig, BreakerError, Circuit, ConfigError, ControlError};

const ITEM_COUNT: u32 = 100;

/// The time limit of one import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an item may fail. The limit is above the five failures that open the circuit, so that
/// an outage of the server does not use it up.
const MAX_FAILURES: u32 = 8;

/// The pause after a failed import.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The pause before each health check.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The items of an import. After an error, `queue` contains the items that are left.
pub(crate) struct Batch {
    pub(crate) queue: VecDeque<u32>,
    /// The items that failed too often, for example because the server refuses them.
    pub(crate) failed: Vec<u32>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { queue: (1..=ITEM_COUNT).collect(), failed: Vec::new() }
    }

    /// Imports the items of the queue in order.
    pub(crate) async fn import(
        &mut self,
        server: &mut Server,
        circuit: &Circuit,
    ) -> Result<(), ControlError> {
        // How often the item at the front of the queue has failed.
        let mut failures = 0;
        while let Some(&item) = self.queue.front() {
            match circuit.call_within(IMPORT_TIMEOUT, server.import(item)).await {
                Ok(()) => {
                    self.queue.pop_front();
                    failures = 0;
                }
                // The circuit is open: the item was not sent. A scheduled job could return an error
                // here instead, and continue at its next run.
                Err(BreakerError::Rejected(rejection)) => {
                    println!("{rejection}: {} items are left", self.queue.len());
                    wait_until_healthy(server).await;
                    // This is an error if an operator has forced the circuit open.
                    circuit.reset()?;
                }
                // The item was sent, and failed or timed out. The server may have imported an item
                // whose call timed out, so the import has to be idempotent.
                Err(error) => {
                    println!("item {item}: {}", ErrorChain(&error));
                    failures += 1;
                    if failures == MAX_FAILURES {
                        println!("item {item} failed {failures} times and is set aside");
                        self.queue.pop_front();
                        self.failed.push(item);
                        failures = 0;
                    }
                    sleep(RETRY_DELAY).await;
                }
            }
        }
        Ok(())
    }
}

/// Creates the circuit. The preset opens after five failures in a row and stays open until it is
/// reset.
pub(crate) fn import_circuit() -> Result<Circuit, ConfigError> {
    let config = BreakerConfig::single_flight().name("import").build()?;
    Ok(Circuit::new(config))
}

async fn wait_until_healthy(server: &mut Server) {
    loop {
        sleep(HEALTH_CHECK_INTERVAL).await;
        if server.is_healthy().await {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::refusing(70);
    let mut batch = Batch::new();
    batch.import(&mut server, &import_circuit()?).await?;
    println!(
        "{} of {ITEM_COUNT} items imported with {} requests and {} health checks; failed: {:?}",
        server.imported.len(),
        server.requests,
        server.health_checks,
        batch.failed
    );
    Ok(())
}

// The rest simulates the server.

/// How many items the server imports before its outage.
const IMPORTS_BEFORE_OUTAGE: usize = 40;
const OUTAGE: Duration = Duration::from_secs(3);
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A server that is down for a while after its first [`IMPORTS_BEFORE_OUTAGE`] items.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) imported: Vec<u32>,
    pub(crate) requests: u32,
    pub(crate) health_checks: u32,
    /// An item that the server cannot import.
    refused_item: Option<u32>,
    outage_end: Option<Instant>,
}

impl Server {
    pub(crate) fn refusing(item: u32) -> Self {
        Self { refused_item: Some(item), ..Self::default() }
    }

    async fn import(&mut self, item: u32) -> io::Result<()> {
        sleep(ROUND_TRIP).await;
        self.requests += 1;
        if self.imported.len() == IMPORTS_BEFORE_OUTAGE && self.outage_end.is_none() {
            self.outage_end = Some(Instant::now() + OUTAGE);
        }
        if self.is_down() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if self.refused_item == Some(item) {
            return Err(io::Error::other("the item is invalid"));
        }
        self.imported.push(item);
        Ok(())
    }

    async fn is_healthy(&mut self) -> bool {
        sleep(ROUND_TRIP).await;
        self.health_checks += 1;
        !self.is_down()
    }

    fn is_down(&self) -> bool {
        self.outage_end.is_some_and(|end| Instant::now() < end)
    }
}
