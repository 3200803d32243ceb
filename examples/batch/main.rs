//! A batch that stops when its server is down, keeps what it has done, and goes on when the server is back.
//!
//! It makes one call at a time on a plain thread, so that a share of failures would say little: five in a row open the circuit, and it
//! stays open until a health check says that the server is back. No item is lost and none is done twice.
//!
//!     cargo run --example batch

use std::collections::VecDeque;
use std::io;

use tower_breaker::{BreakerConfig, BreakerError, Circuit};

/// Stands for the server: it is down from its 41st request until its health has been asked for three times.
#[derive(Default)]
struct Server {
    imported: Vec<u32>,
    requests: u32,
    health_checks: u32,
}

impl Server {
    fn is_down(&self) -> bool {
        self.imported.len() >= 40 && self.health_checks < 3
    }

    fn import(&mut self, item: u32) -> io::Result<()> {
        self.requests += 1;
        if self.is_down() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.imported.push(item);
        Ok(())
    }

    fn is_healthy(&mut self) -> bool {
        self.health_checks += 1;
        !self.is_down()
    }
}

fn main() -> Result<(), tower_breaker::ConfigError> {
    let circuit = Circuit::new(BreakerConfig::single_flight().name("import").build()?);
    let mut server = Server::default();
    let mut items: VecDeque<u32> = (1..=100).collect();
    let mut pauses = 0;

    while let Some(item) = items.pop_front() {
        match circuit.call_blocking(|| server.import(item)) {
            Ok(()) => {}
            // It was not sent. Whoever watches the server decides when to go on; a job may as well end here and be started anew.
            Err(BreakerError::Rejected(rejection)) => {
                items.push_front(item);
                println!("{} done, {} to do: {rejection}", server.imported.len(), items.len());
                while !server.is_healthy() {
                    pauses += 1;
                }
                circuit.reset().expect("nobody has forced it");
            }
            // It was sent and failed: its turn comes again.
            Err(_) => items.push_front(item),
        }
    }
    println!(
        "{} of 100 imported with {} requests, {pauses} waits for the server",
        server.imported.len(),
        server.requests
    );
    Ok(())
}
