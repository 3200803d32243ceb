//! Measures the throughput of several threads relative to one thread.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use tower_resilience_benchmarks::{Style, Threads, Variant};

use crate::measure::Effort;
use crate::record::{Kind, Record};
use crate::statistics::Quartiles;

/// The rows that are measured.
const ROWS: &[&str] = &[
    "bare service",
    "breaker, success",
    "breaker, rejected",
    "breaker, a clone per call",
    "breaker, window of 100 calls",
    "retry, budget",
    "retry over breaker, success",
    "keyed, 1 key",
    "keyed, 100,000 keys",
    "HTTP, bare service",
    "HTTP, success",
];

/// The time for which each thread makes calls.
pub(crate) const SAMPLE: Duration = Duration::from_millis(10);

/// The calls between two looks at the clock.
pub(crate) const CHUNK: u32 = 400;

/// The attempts to get a sample in which the threads ran at the same time.
const ATTEMPTS: usize = 10;

/// The calls of one thread in one sample.
pub(crate) struct Ran {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    /// The time for which the thread had a core.
    pub(crate) running: Duration,
    pub(crate) calls: u32,
    pub(crate) successes: u32,
}

/// Returns the throughput of two threads, and of one thread for each core, in async functions.
pub(crate) fn scaling(variants: &[Variant], effort: Effort) -> Vec<Record> {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let mut counts = vec![2, cores.max(2)];
    counts.dedup();
    counts.into_iter().flat_map(|count| scaling_to(count, variants, effort)).collect()
}

fn scaling_to(count: usize, variants: &[Variant], effort: Effort) -> Vec<Record> {
    let mut running: Vec<(&Variant, Threads, Vec<f64>)> = variants
        .iter()
        .filter(|variant| variant.style == Style::Await && ROWS.contains(&variant.row))
        // While its lock is contended, it sleeps on tokio's timer, and there is no runtime here.
        .filter(|variant| variant.subject != "tower-resilience")
        .map(|variant| (variant, variant.set_up(), Vec::new()))
        .collect();
    for _ in 0..(effort.rounds() / 25).max(5) {
        for (variant, threads, ratios) in &mut running {
            if let Some(one) = throughput(variant, threads, 1)
                && let Some(many) = throughput(variant, threads, count)
            {
                ratios.push(many / one);
            }
        }
    }
    let ratio = |(variant, _, ratios): &(&Variant, Threads, Vec<f64>)| {
        let value = if ratios.is_empty() { Quartiles::missing() } else { Quartiles::of(ratios.clone()) };
        Record::of(Kind::Threads(count), variant, value)
    };
    let mut records: Vec<Record> = running.iter().map(ratio).collect();
    for index in 0..records.len() {
        let bare = records.iter().find(|record| record.row == running[index].0.bare);
        records[index].bare = bare.map(|bare| records[index].value.median / bare.value.median);
    }
    records
}

/// Returns the calls per second of all threads together, or `None` if the threads did not run at
/// the same time in any attempt.
fn throughput(variant: &Variant, threads: &Threads, count: usize) -> Option<f64> {
    (0..ATTEMPTS).find_map(|_| {
        let ran = run(threads, count);
        for ran in &ran {
            variant.check(ran.calls, ran.successes);
        }
        ran_together(&ran).then(|| {
            let per_second = |ran: &Ran| f64::from(ran.calls) / (ran.end - ran.start).as_secs_f64();
            ran.iter().map(per_second).sum()
        })
    })
}

/// Makes calls with all threads at the same time.
pub(crate) fn run(threads: &Threads, count: usize) -> Vec<Ran> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let mut run = threads();
                    run(CHUNK);
                    barrier.wait();
                    let (start, running) = (Instant::now(), thread_time());
                    let (mut calls, mut successes) = (0, 0);
                    let mut end = start;
                    while end - start < SAMPLE {
                        successes += run(CHUNK);
                        calls += CHUNK;
                        end = Instant::now();
                    }
                    let running = thread_time().saturating_sub(running);
                    Ran { start, end, running, calls, successes }
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("the calls succeed")).collect()
    })
}

/// Returns whether the threads ran in a common interval, and each had a core for almost all of its
/// time.
pub(crate) fn ran_together(ran: &[Ran]) -> bool {
    let (Some(start), Some(end)) =
        (ran.iter().map(|ran| ran.start).max(), ran.iter().map(|ran| ran.end).min())
    else {
        return false;
    };
    let common = end.saturating_duration_since(start);
    ran.iter().all(|ran| {
        let elapsed = ran.end - ran.start;
        common >= elapsed.mul_f64(0.9) && (ran.running >= elapsed.mul_f64(0.95) || !cfg!(target_os = "linux"))
    })
}

/// Returns the time for which this thread had a core, or zero if the system does not say.
fn thread_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}
