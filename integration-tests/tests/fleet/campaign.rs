//! All cases at full size, for `./campaign fleet`. It prints tables in Markdown.

use std::time::Duration;

use tower_breaker_fleet::FleetAction;

use crate::flush::Flushes;
use crate::outages::{Measured, Start, outage};
use crate::processes::seed;
use crate::servers::{StoreFault, StoreKind};
use crate::{bad_processes, flush};

/// The processes of a fleet.
const COUNT: usize = 60;

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes minutes; ./campaign fleet runs it"]
async fn campaign_of_60_processes() {
    println!("\nSeed of the times between calls: {}\n", seed());
    bad_processes().await;
    flushes().await;
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
