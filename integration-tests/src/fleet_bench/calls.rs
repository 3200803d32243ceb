//! A process that measures single calls of a circuit: their time, their allocations, their
//! instructions.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::runtime;
use tokio::time::timeout;
use tower_breaker::{BreakerConfig, Circuit, Clock, Verdict};
use tower_breaker_fleet::{Fleet, MemoryStore};

use crate::fleet_bench::client::{CIRCUIT, failure};
use crate::fleet_bench::clock::{millis, monotonic, thread_cpu};
use crate::fleet_bench::protocol::StoreAddress;
use crate::fleet_bench::stores;

/// A call that takes longer is counted as slow.
pub(crate) const SLOW: Duration = Duration::from_millis(1);

/// How long the fleet may need to connect.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

const HEARTBEAT: Duration = Duration::from_millis(250);

/// A request of the benchmark, as a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum CallRequest {
    /// Waits until the store answers.
    Attach,
    /// Measures calls for this number of milliseconds.
    Measure(u64),
}

/// The calls of one measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    /// The calls that took longer than [`SLOW`], including the time of other threads.
    pub(crate) slow: u64,
    pub(crate) longest_ms: f64,
    /// The longest time that a call ran on a core.
    pub(crate) longest_cpu_ms: f64,
    /// How often the thread has waited: for a lock, a timer or a socket.
    pub(crate) waits: u64,
    pub(crate) allocations: u64,
}

impl Calls {
    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.slow += other.slow;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.longest_cpu_ms = self.longest_cpu_ms.max(other.longest_cpu_ms);
        self.waits += other.waits;
        self.allocations += other.allocations;
    }
}

/// Answers requests on standard input until it ends. The agent runs in another thread, as in a
/// server.
pub(crate) fn run(store: &str) -> Result<()> {
    let store: Option<StoreAddress> = serde_json::from_str(store).context("the store is invalid")?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let circuit = circuit(Clock::default())?;
    let fleet = store.map(|store| join(&runtime, &circuit, &store)).transpose()?;
    if let Some(fleet) = &fleet {
        runtime.block_on(attached(fleet))?;
    }
    // The first calls of a thread initialize its thread-local values, and the first signals the
    // buffers of the agent.
    measure(&circuit, Duration::from_millis(200))?;
    for line in std::io::stdin().lock().lines() {
        let calls = match serde_json::from_str(&line?).context("the request is invalid")? {
            CallRequest::Attach => {
                if let Some(fleet) = &fleet {
                    runtime.block_on(attached(fleet))?;
                }
                Calls::default()
            }
            CallRequest::Measure(ms) => measure(&circuit, Duration::from_millis(ms))?,
        };
        let mut output = std::io::stdout().lock();
        serde_json::to_writer(&mut output, &calls)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// Runs calls on a closed circuit whose instructions callgrind counts. The agent is not polled in
/// the meantime.
pub(crate) fn run_counted(calls: u64, with_fleet: bool) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // The access to the kernel's clock fails under callgrind.
    let circuit = circuit(Clock::manual().0)?;
    if with_fleet {
        let fleet = join(&runtime, &circuit, &StoreAddress::Memory)?;
        runtime.block_on(attached(&fleet))?;
    }
    counted_calls(&circuit, calls);
    Ok(())
}

/// callgrind collects the instructions of this function only, by its name.
#[inline(never)]
pub(crate) fn counted_calls(circuit: &Circuit, calls: u64) {
    for _ in 0..calls {
        if let Ok(permit) = black_box(circuit).try_acquire() {
            permit.record(Verdict::Success);
        }
    }
}

fn circuit(clock: Clock) -> Result<Circuit> {
    let config = BreakerConfig::builder().name(CIRCUIT).open_for(Duration::from_secs(60));
    Ok(Circuit::new(config.clock(clock).build()?))
}

fn join(runtime: &runtime::Runtime, circuit: &Circuit, store: &StoreAddress) -> Result<Fleet> {
    let _guard = runtime.enter();
    let (fleet, agent) = stores::fleet(store, &MemoryStore::new())?.heartbeat(HEARTBEAT).build()?;
    fleet.share(circuit)?;
    runtime.spawn(agent);
    Ok(fleet)
}

async fn attached(fleet: &Fleet) -> Result<()> {
    let wait = async {
        while !fleet.status().attached || !fleet.ready(Duration::from_millis(10)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(ATTACHED_WITHIN, wait).await.context("the fleet is not attached")
}

/// Measures calls of the closed and of the open circuit, for half of the time each.
fn measure(circuit: &Circuit, time: Duration) -> Result<Calls> {
    // One of eight calls fails, which opens nothing and sends a signal to the agent.
    let mut number = 0_u32;
    let mut calls = measure_each(time / 2, || {
        number = number.wrapping_add(1);
        let verdict = if number.is_multiple_of(8) { failure() } else { Verdict::Success };
        let permit = circuit.try_acquire();
        let is_admitted = permit.is_ok();
        if let Ok(permit) = permit {
            permit.record(verdict);
        }
        is_admitted
    })?;
    circuit.trip()?;
    let rejections = measure_each(time / 2, || circuit.try_acquire().is_err());
    circuit.reset()?;
    calls.add(&rejections?);
    Ok(calls)
}

/// Measures each run of `call`. Its result says whether the circuit decided as expected.
fn measure_each(time: Duration, mut call: impl FnMut() -> bool) -> Result<Calls> {
    let mut calls = Calls::default();
    let mut unexpected = 0_u64;
    let waits = waits()?;
    let allocations = allocation_counter::measure(|| {
        let end = monotonic() + time;
        let mut cpu_before = thread_cpu();
        loop {
            let before = monotonic();
            unexpected += u64::from(!call());
            let after = monotonic();
            let cpu = thread_cpu();
            calls.count += 1;
            let (took, took_cpu) = (after.saturating_sub(before), cpu.saturating_sub(cpu_before));
            calls.slow += u64::from(took > SLOW);
            calls.longest_ms = calls.longest_ms.max(millis(took));
            calls.longest_cpu_ms = calls.longest_cpu_ms.max(millis(took_cpu));
            cpu_before = cpu;
            if after >= end {
                break;
            }
        }
    });
    calls.waits = self::waits()? - waits;
    calls.allocations = allocations.count_total;
    ensure!(unexpected == 0, "{unexpected} of {} calls were decided in another way", calls.count);
    Ok(calls)
}

/// Returns how often this thread has left its core to wait.
fn waits() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").context("this needs Linux")?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(count.context("the kernel counts no context switches")?.trim().parse()?)
}
