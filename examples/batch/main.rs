//! A batch that stops when its server is down, keeps what it has done, and goes on when the server
//! is back.
//!
//! The worker makes one call at a time, so a failure rate would say little. Five failures in a row
//! open the circuit, and it stays open until a health check finds the server well. The worker
//! pauses before each health check. No item is lost and none is done twice.
//!
//!     cargo run --example batch

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::ErrorChain;
use tower_breaker::{BreakerConfig, BreakerError, Circuit, ConfigError};

/// How long one import may take.
const IMPORT_LIMIT: Duration = Duration::from_secs(5);
/// The pause before each health check.
const HEALTH_CHECK_PAUSE: Duration = Duration::from_secs(1);
/// How long the server is down.
const DOWN_FOR: Duration = Duration::from_secs(3);
/// What a request takes on the network.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Simulates the server: it is down for a while when it has imported 40 items.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) imported: Vec<u32>,
    pub(crate) requests: u32,
    pub(crate) health_checks: u32,
    down_until: Option<Instant>,
}

impl Server {
    fn is_down(&self) -> bool {
        self.down_until.is_some_and(|until| Instant::now() < until)
    }

    async fn import(&mut self, item: u32) -> io::Result<()> {
        sleep(ROUND_TRIP).await;
        self.requests += 1;
        if self.imported.len() == 40 && self.down_until.is_none() {
            self.down_until = Some(Instant::now() + DOWN_FOR);
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
}

/// Imports all items, in their order.
pub(crate) async fn import_all(server: &mut Server) -> Result<(), ConfigError> {
    let circuit = Circuit::new(BreakerConfig::single_flight().name("import").build()?);
    let mut items: VecDeque<u32> = (1..=100).collect();

    while let Some(&item) = items.front() {
        match circuit.call_within(IMPORT_LIMIT, server.import(item)).await {
            Ok(()) => {
                items.pop_front();
            }
            // The item was not sent. A job may as well end here, and be started again when the
            // server is well.
            Err(BreakerError::Rejected(rejection)) => {
                println!("{} done, {} to do: {rejection}", server.imported.len(), items.len());
                wait_until_healthy(server).await;
                circuit.reset().expect("the circuit is not forced");
            }
            // The item was sent and failed, or took too long: it is sent again.
            Err(error) => println!("item {item}: {}", ErrorChain(&error)),
        }
    }
    Ok(())
}

async fn wait_until_healthy(server: &mut Server) {
    loop {
        sleep(HEALTH_CHECK_PAUSE).await;
        if server.is_healthy().await {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ConfigError> {
    let mut server = Server::default();
    import_all(&mut server).await?;
    let Server { imported, requests, health_checks, .. } = server;
    println!("{} of 100 imported with {requests} requests and {health_checks} health checks", imported.len());
    Ok(())
}
