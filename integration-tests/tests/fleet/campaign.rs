//! All cases at full size, for `./campaign fleet`. It prints tables in Markdown.

use std::time::Duration;

use tower_breaker_fleet::FleetAction;

use crate::flush::Flushes;
use crate::outages::{Measured, Start, outage};
use crate::processes::seed;
use crate::servers::{StoreFault, StoreKind};
use crate::{bad_processes, clocks, flush, promotion, reconnects, restarts};

/// The processes of a fleet.
const COUNT: usize = 60;
/// The processes of a fleet that are processes of the system.
const WORKERS: usize = 20;

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes minutes; ./campaign fleet runs it"]
async fn campaign_of_60_processes() {
    println!("\nSeed of the times between calls: {}\n", seed());
    bad_processes().await;
    flushes().await;
    others().await;
    for kind in [StoreKind::Redis, StoreKind::Postgres, StoreKind::File] {
        outages(kind).await;
    }
}

async fn bad_processes() {
    println!("| bad processes of {COUNT} | result |\n|---|---|");
    for bad in [1, 6, 20] {
        let time = Duration::from_secs(30);
        bad_processes::minority(COUNT, bad, time).await;
        println!("| {bad}, for 30 s | no good circuit opened |");
    }
    let time = bad_processes::majority(COUNT, 40).await;
    println!("| 40 | all circuits open after {} |", seconds(time));
    for bad in [6, 20] {
        let recovery = bad_processes::recovery(COUNT, bad).await;
        let (closed, reopened) = (seconds(recovery.closed), recovery.reopened);
        assert!(recovery.closed < bad_processes::limit(recovery), "{bad} bad: {recovery:?}");
        println!(
            "| {bad}, when the backend recovers | closed after {closed}; opened again {reopened} times |"
        );
    }
    println!();
}

async fn flushes() {
    println!("| `FLUSHALL` each second for 10 s | result |\n|---|---|");
    let flushes = Flushes { every: Duration::from_secs(1), time: Duration::from_secs(10) };
    flush::closed(COUNT, flushes).await;
    println!("| closed, 20 of {COUNT} processes bad | no good circuit opened |");
    flush::open(COUNT, flushes).await;
    println!("| open | no call was admitted before the open time was over |");
    flush::half_open(COUNT, flushes).await;
    println!("| half-open | no circuit closed without successful probes |");
    for action in [FleetAction::ForceOpen, FleetAction::ForceClosed] {
        flush::forced(COUNT, flushes, action).await;
        println!("| {} | no transition |", action.as_str());
    }
    println!();
}

async fn others() {
    println!("| case | result |\n|---|---|");
    promotion::promotion(COUNT).await;
    println!(
        "| promoted replica without the last decision, {COUNT} processes | all agree on the last decision |"
    );
    for kind in [StoreKind::Redis, StoreKind::File] {
        clocks::offsets(kind, COUNT).await;
        println!(
            "| {kind:?}, clocks of {COUNT} processes differ by up to 2 h | all open and close together |"
        );
    }
    let error = restarts::fleet(WORKERS).await.max(restarts::alone().await).as_millis();
    println!(
        "| {WORKERS} processes and one alone, SIGKILL and restart while open \
         | no call admitted; remaining time wrong by at most {error} ms |"
    );
    restarts::stopped(WORKERS).await;
    println!(
        "| one of {WORKERS} processes, SIGSTOP while open and SIGCONT after the others closed | it closed, no other opened |"
    );
    let buckets = reconnects::reconnects(400).await;
    reconnects::assert_spread(&buckets);
    println!("| 400 agents lose the store together: connections in each 100 ms | {buckets:?} |");
    println!();
}

async fn outages(kind: StoreKind) {
    println!(
        "| store | failure | state | noticed after | agreed after its end | longest admission | without a fleet |"
    );
    println!("|---|---|---|---|---|---|---|");
    for fault in StoreFault::ALL.into_iter().filter(|fault| fault.applies_to(kind)) {
        for start in Start::ALL {
            let measured = outage(kind, fault, &[start], COUNT).await;
            for (start, Measured { noticed, agreed, shared, alone }) in measured {
                let (noticed, agreed) = (seconds(noticed), seconds(agreed));
                let (shared, alone) = (shared.as_micros(), alone.as_micros());
                println!(
                    "| {kind:?} | {fault:?} | {start:?} | {noticed} | {agreed} | {shared} µs | {alone} µs |"
                );
            }
        }
    }
    println!();
}
