//! A batch import that pauses while its server is down, and then continues where it stopped.
//!
//! The worker does not use tower. It makes one call at a time through a [`Circuit`]:
//!
//! - Five failures in a row open the circuit. A failure rate says little about so few calls.
//! - The circuit stays open until the worker resets it. The worker does so when a health check
//!   finds the server up.
//! - An item leaves the queue when it was imported, so that no item is lost.
//!
//! ```text
//! cargo run --example batch
//! ```

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::ErrorChain;
use tower_breaker::{BreakerConfig, BreakerError, Circuit, ConfigError};

const ITEM_COUNT: u32 = 100;

/// The time limit of one import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before each health check.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Imports all items in order.
pub(crate) async fn import_all(server: &mut Server) -> Result<(), ConfigError> {
    // This preset opens after five failures in a row and stays open until it is reset.
    let config = BreakerConfig::single_flight().name("import").build()?;
    let circuit = Circuit::new(config);
    let mut queue: VecDeque<u32> = (1..=ITEM_COUNT).collect();

    while let Some(&item) = queue.front() {
        match circuit.call_within(IMPORT_TIMEOUT, server.import(item)).await {
            Ok(()) => {
                queue.pop_front();
            }
            // The circuit is open: the item was not sent. A scheduled job could return an error
            // here instead, and continue at its next run.
            Err(BreakerError::Rejected(rejection)) => {
                println!("{rejection}: {} items are left", queue.len());
                wait_until_healthy(server).await;
                // A reset fails only if someone forced the circuit open or closed.
                circuit.reset().expect("the circuit is not forced");
            }
            // The item was sent, and failed or timed out. It stays at the front of the queue and is
            // sent again. The server may have imported an item whose call timed out, so the import
            // has to be idempotent.
            Err(error) => println!("item {item}: {}", ErrorChain(&error)),
        }
    }
    Ok(())
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
async fn main() -> Result<(), ConfigError> {
    let mut server = Server::default();
    import_all(&mut server).await?;
    println!(
        "{} of {ITEM_COUNT} items imported with {} requests and {} health checks",
        server.imported.len(),
        server.requests,
        server.health_checks
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
    outage_end: Option<Instant>,
}

impl Server {
    async fn import(&mut self, item: u32) -> io::Result<()> {
        sleep(ROUND_TRIP).await;
        self.requests += 1;
        if self.imported.len() == IMPORTS_BEFORE_OUTAGE && self.outage_end.is_none() {
            self.outage_end = Some(Instant::now() + OUTAGE);
        }
        if self.is_down() {
            return Err(io::ErrorKind::ConnectionRefused.into());
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
