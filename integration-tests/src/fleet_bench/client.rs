//! A client of the backend, which simulates one process of a fleet.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_breaker::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, Reason, Verdict};
use tower_breaker_fleet::{Fleet, FleetState, MemoryStore};

use crate::fleet_bench::backend::SUCCESS;
use crate::fleet_bench::clock::{millis, wall_ms};
use crate::fleet_bench::protocol::{Change, ClientReport, FirstCall, WorkerConfig};
use crate::fleet_bench::stores;

/// The name of the circuit.
pub(crate) const CIRCUIT: &str = "backend";

/// How long a client waits for the fleet before its first call.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A client whose calls run in a task.
pub(crate) struct Client {
    circuit: Circuit,
    fleet: Option<Fleet>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    first_call: Mutex<Option<FirstCall>>,
}

impl Client {
    /// Starts a client. It calls while `calling` is true.
    pub(crate) fn start(
        number: usize,
        config: &WorkerConfig,
        memory: &MemoryStore,
        calling: watch::Receiver<bool>,
        changes: &Arc<Mutex<Vec<Change>>>,
    ) -> Result<Self> {
        let circuit = Circuit::new(breaker(config)?);
        record_changes(&circuit, number, Arc::clone(changes));
        let fleet = match &config.store {
            None => None,
            Some(store) => {
                let fleet = stores::fleet(store, memory)?;
                let fleet = fleet.instance(format!("client-{number}"));
                let (fleet, agent) = fleet.heartbeat(Duration::from_millis(config.heartbeat_ms)).build()?;
                fleet.share(&circuit)?;
                tokio::spawn(agent);
                Some(fleet)
            }
        };
        let client = Self { circuit, fleet, counts: Arc::default() };
        let pause = Duration::from_secs_f64(1.0 / config.calls_per_second);
        let limit = Duration::from_millis(config.call_timeout_ms);
        tokio::spawn(client.run(Connection::new(config.backend, limit), pause, calling));
        Ok(client)
    }

    /// Waits for the fleet, and then calls the backend for ever.
    fn run(
        &self,
        mut connection: Connection,
        pause: Duration,
        mut calling: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + use<> {
        let (circuit, fleet, counts) = (self.circuit.clone(), self.fleet.clone(), Arc::clone(&self.counts));
        async move {
            let ready = match fleet {
                Some(fleet) => fleet.ready(READY_WITHIN).await,
                None => true,
            };
            *lock(&counts.first_call) = Some(first_call(&circuit, ready));
            // The clients do not call all at the same time.
            sleep(pause.mul_f64(fastrand::f64())).await;
            // An error says that the worker ends.
            while calling.wait_for(|calling| *calling).await.is_ok() {
                if let Ok(permit) = circuit.try_acquire() {
                    counts.calls.fetch_add(1, Ordering::Relaxed);
                    if connection.call().await {
                        permit.record(Verdict::Success);
                    } else {
                        counts.failures.fetch_add(1, Ordering::Relaxed);
                        permit.record(failure());
                    }
                }
                sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            }
        }
    }

    pub(crate) fn report(&self) -> ClientReport {
        let status = self.circuit.status();
        let link = self.fleet.as_ref().map(Fleet::status);
        let shared = self.fleet.as_ref().and_then(|fleet| fleet.circuit_status(CIRCUIT));
        let record = shared.as_ref().and_then(|shared| shared.record.as_ref());
        ClientReport {
            state: status.state.into(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            attached: link.as_ref().is_some_and(|link| link.attached),
            members: shared.as_ref().map_or(0, |shared| shared.members),
            votes_needed: shared.as_ref().map_or(0, |shared| shared.votes_needed),
            warming_up: shared.as_ref().is_none_or(|shared| shared.warming_up),
            epoch: record.map_or(0, |record| record.epoch),
            fleet_open: record.is_some_and(|record| record.state == FleetState::Open),
            messages: link.map_or(0, |link| link.messages),
            first_call: *lock(&self.counts.first_call),
        }
    }
}

fn breaker(config: &WorkerConfig) -> Result<BreakerConfig> {
    let breaker = BreakerConfig::builder().name(CIRCUIT).minimum_calls(10).failure_rate(0.5);
    let breaker = breaker.open_for(Duration::from_millis(config.open_for_ms)).open_jitter(0.0);
    Ok(breaker.probes(config.probes).successes_to_close(2).build()?)
}

fn record_changes(circuit: &Circuit, client: usize, changes: Arc<Mutex<Vec<Change>>>) {
    circuit.on_transition(move |transition| {
        let commanded = [Reason::CommandedOpen, Reason::CommandedProbe, Reason::CommandedClose];
        lock(&changes).push(Change {
            client,
            to: transition.to.into(),
            commanded: commanded.contains(&transition.reason),
            at_ms: wall_ms(),
        });
    });
}

/// Returns the outcome of a failed call.
pub(crate) fn failure() -> Verdict {
    Fault::new(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy, Origin::Local).into()
}

/// Asks the circuit for a permit that no call uses.
fn first_call(circuit: &Circuit, ready: bool) -> FirstCall {
    let remaining = circuit.status().retry_after.unwrap_or_default();
    let open_until_ms = wall_ms() + millis(remaining);
    let permit = circuit.try_acquire();
    let admitted = permit.is_ok();
    if let Ok(permit) = permit {
        permit.cancel();
    }
    FirstCall { ready, admitted, open_until_ms }
}

/// A connection to the backend, which is opened again after a failure.
struct Connection {
    address: SocketAddr,
    limit: Duration,
    stream: Option<TcpStream>,
}

impl Connection {
    fn new(address: SocketAddr, limit: Duration) -> Self {
        Self { address, limit, stream: None }
    }

    /// Calls the backend, and returns whether the call succeeded.
    async fn call(&mut self) -> bool {
        let answer = timeout(self.limit, exchange(self.stream.take(), self.address)).await;
        match answer {
            Ok(Ok((answer, stream))) => {
                self.stream = Some(stream);
                answer == SUCCESS
            }
            // Dropping the stream has ended the call at the backend.
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

async fn exchange(stream: Option<TcpStream>, address: SocketAddr) -> io::Result<(u8, TcpStream)> {
    let mut stream = match stream {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_u8(b'?').await?;
    Ok((stream.read_u8().await?, stream))
}

/// Locks a value. No code panics between two changes, so it is valid even if the lock is poisoned.
pub(crate) fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
