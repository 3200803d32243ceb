//! Circuits that keep their state over a restart of the process.
//!
//! A service restores the circuits of its registry from a JSON file before its first call. It saves
//! them at its shutdown, after each transition, and every few seconds:
//!
//! - The server of `search` is down when the service restarts. The circuit is still open, and the
//!   new process does not call the server.
//! - An operator has forced `billing` open. It stays forced open, although the process is killed.
//! - A damaged file is reported. The service starts with closed circuits.
//!
//! ```text
//! cargo run --example restart
//! ```

mod snapshot_file;

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower_breaker::snapshot::{CircuitSnapshot, RestoreReport};
use tower_breaker::{BreakerConfig, BreakerError, CircuitRegistry, CircuitState, ConfigError};

use snapshot_file::SnapshotFile;

/// How often the circuits are saved without a transition. A process that is killed loses at most
/// the changes of this time.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// A process of the service.
struct Service {
    registry: CircuitRegistry,
    stop_saving: oneshot::Sender<()>,
    saving: JoinHandle<io::Result<()>>,
}

impl Service {
    /// Restores the circuits, and begins to save them.
    fn start(file: SnapshotFile) -> Result<Self, ConfigError> {
        let registry = circuits()?;
        // Before the first call. A circuit that is created later is restored when it is created.
        match file.load() {
            Ok(snapshots) => print_report(&registry.restore(snapshots)),
            Err(error) => println!("the circuits start closed: {error}"),
        }
        let (stop_saving, stopped) = oneshot::channel();
        let saving = tokio::spawn(save_until(stopped, registry.clone(), file));
        Ok(Self { registry, stop_saving, saving })
    }

    /// Ends the process in an orderly way. A real service calls it after its last call.
    async fn shut_down(self) -> anyhow::Result<()> {
        // The task has ended if the receiver is gone. Its result says why.
        let _ = self.stop_saving.send(());
        self.saving.await?.context("the circuits cannot be saved")
    }

    /// Ends the process without a last save.
    fn kill(self) {
        self.saving.abort();
    }

    /// Calls the server through the circuit `search`, and prints the result.
    fn search(&self, server: &Server) {
        match self.registry.circuit("search").call_blocking(|| server.search()) {
            Ok(answer) => println!("search: {answer}"),
            Err(BreakerError::Rejected(rejection)) => println!("search is rejected: {}", rejection.state()),
            Err(error) => println!("search failed: {error}"),
        }
    }
}

/// Returns a registry without circuits. It prints the transitions of its circuits.
fn circuits() -> Result<CircuitRegistry, ConfigError> {
    let config = BreakerConfig::builder()
        .consecutive_failures(3)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(Duration::from_secs(2))
        .open_jitter(0.0)
        .successes_to_close(1)
        .build()?;
    let registry = CircuitRegistry::new(config);
    registry.on_transition(|transition| {
        println!(
            "# {}: {} -> {} ({})",
            transition.circuit, transition.from, transition.to, transition.reason
        );
    });
    Ok(registry)
}

fn print_report(report: &RestoreReport) {
    println!("circuits with a state to restore: {}", report.applied + report.kept);
    for error in &report.errors {
        println!("{error}");
    }
}

/// Saves the circuits after each transition and at each interval, and a last time at the end. One
/// task writes the file, so that two saves never run at the same time.
async fn save_until(
    mut stopped: oneshot::Receiver<()>,
    registry: CircuitRegistry,
    file: SnapshotFile,
) -> io::Result<()> {
    let changed = Arc::new(Notify::new());
    let notifier = Arc::clone(&changed);
    registry.on_transition(move |_| notifier.notify_one());

    let mut ticks = interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            _ = &mut stopped => true,
            () = changed.notified() => false,
            _ = ticks.tick() => false,
        };
        let result = save(registry.snapshots(), file.clone()).await;
        if is_last {
            return result;
        }
        // The next save may succeed, for example if the disk was full.
        if let Err(error) = result {
            println!("the circuits cannot be saved: {error}");
        }
    }
}

/// Writes the file on a thread that may block.
async fn save(snapshots: Vec<CircuitSnapshot>, file: SnapshotFile) -> io::Result<()> {
    spawn_blocking(move || file.save(&snapshots)).await?
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = DemoFolder::create()?;
    let file = SnapshotFile::new(folder.0.join("circuits.json"));
    let server = Server { is_down: Cell::new(true), calls: Cell::new(0) };

    println!("-- the server is down");
    let service = Service::start(file.clone())?;
    for _ in 0..4 {
        service.search(&server);
    }
    service.shut_down().await?;

    println!("-- the service restarts");
    let service = Service::start(file.clone())?;
    service.search(&server);
    println!("the server was called {} times", server.calls.get());
    service.registry.circuit("billing").force_open()?;
    wait_until_saved(&file, "billing", CircuitState::ForcedOpen).await?;
    service.kill();

    println!("-- the service was killed, and restarts; the server has recovered");
    server.is_down.set(false);
    let service = Service::start(file.clone())?;
    println!("billing is {}", service.registry.circuit("billing").status().state);
    let search = service.registry.circuit("search");
    if let Some(trip) = search.status().last_trip {
        println!("search opened before the restarts: {}", trip.reason);
    }
    search.ready().await;
    service.search(&server);
    service.shut_down().await?;

    println!("-- the file is damaged");
    fs::write(file.path(), "[{\"version\": 1,")?;
    let service = Service::start(file)?;
    service.search(&server);
    service.shut_down().await
}

// The rest simulates the server, and waits for the demo.

/// A server whose calls fail while it is down.
struct Server {
    is_down: Cell<bool>,
    calls: Cell<u32>,
}

impl Server {
    fn search(&self) -> io::Result<&'static str> {
        self.calls.set(self.calls.get() + 1);
        if self.is_down.get() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok("3 results") }
    }
}

/// Waits until the file contains the circuit in this state.
async fn wait_until_saved(file: &SnapshotFile, circuit: &str, state: CircuitState) -> anyhow::Result<()> {
    let is_saved = |snapshots: &[CircuitSnapshot]| {
        snapshots.iter().any(|one| one.circuit == circuit && one.state == state)
    };
    while !is_saved(&file.load()?) {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A temporary folder, which is removed at the end.
struct DemoFolder(PathBuf);

impl DemoFolder {
    fn create() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("restart-example-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        // The system removes temporary folders, too.
        let _ = fs::remove_dir_all(&self.0);
    }
}
