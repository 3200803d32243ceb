//! Processes that are killed and stopped.

use std::time::Duration;

use futures::future::join_all;
use test_servers::Redis;
use tokio::time::{Instant, sleep};

use crate::children::{Report, Role, Worker};
use crate::processes::{OPEN, TAKEOVER};

/// Long enough for a restart on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

fn role(store: &str, number: usize, open_for: Duration) -> Role {
    let open_ms = u64::try_from(open_for.as_millis()).unwrap();
    Role { store: store.to_owned(), instance: format!("worker-{number}"), open_ms }
}

async fn start(store: &str, count: usize, open_for: Duration) -> Vec<Worker> {
    let mut workers = join_all((0..count).map(|number| Worker::start(role(store, number, open_for)))).await;
    for worker in &mut workers {
        assert!(worker.first.ready && worker.first.admitted, "{:?}", worker.first);
        worker.wait("decisions by votes", |report| !report.warming_up).await;
    }
    workers
}

/// Lets the backend fail for all, and waits until all circuits are open.
async fn open(workers: &mut [Worker]) {
    for worker in &mut *workers {
        worker.send("failure").await;
    }
    for worker in workers {
        worker.wait("open circuit", |report| report.state == "open").await;
    }
}

/// Kills a process and starts it again. Returns the error of the remaining time.
async fn restart(mut worker: Worker) -> Duration {
    let asked = Instant::now();
    let before = worker.send("").await;
    let answered = Instant::now();
    let started = Worker::start(worker.kill()).await;
    // The first status is from between these times. A report may be read late.
    let (least, most) = (answered.elapsed(), asked.elapsed());
    let Report { ready, admitted, ref state, .. } = started.first;
    assert!(ready && !admitted && state == "open", "{:?}", started.first);
    let remaining = |report: &Report| Duration::from_millis(report.remaining_ms.expect("an end"));
    let (before, after) = (remaining(&before), remaining(&started.first));
    let elapsed = before.saturating_sub(after);
    let error = least.saturating_sub(elapsed).max(elapsed.saturating_sub(most));
    assert!(error < Duration::from_secs(1), "{before:?} before, {after:?} after {least:?} to {most:?}");
    error
}

/// Each process of a fleet is killed and started again, one after another and all together.
/// Returns the largest error of the remaining time.
pub(crate) async fn fleet(count: usize) -> Duration {
    let server = Redis::start();
    let mut workers = start(&server.url(), count, LONG).await;
    open(&mut workers).await;
    let alone = restart(workers.remove(0)).await;
    let together = join_all(workers.into_iter().map(restart)).await;
    together.into_iter().fold(alone, Duration::max)
}

/// A process that is alone opens on its own evidence. Returns the error of the remaining time.
pub(crate) async fn alone() -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut workers = start(&folder.path().display().to_string(), 1, LONG).await;
    open(&mut workers).await;
    // The next heartbeat stores the open time.
    sleep(Duration::from_secs(1)).await;
    restart(workers.remove(0)).await
}

/// A process is stopped while all are open, and continues after the others have closed.
pub(crate) async fn stopped(count: usize) {
    let server = Redis::start();
    let mut workers = start(&server.url(), count, OPEN).await;
    open(&mut workers).await;
    let mut stopped = workers.remove(0);
    stopped.pause();
    for worker in &mut workers {
        worker.send("success").await;
    }
    for worker in &mut workers {
        worker.wait("closed circuit", |report| report.state == "closed").await;
    }
    sleep(OPEN + 2 * TAKEOVER).await;
    let mut openings = Vec::new();
    for worker in &mut workers {
        openings.push(worker.send("").await.openings);
    }
    stopped.resume();
    // Late commands of the stopped process open nothing, and it follows the others.
    stopped.send("success").await;
    let report = stopped.wait("closed circuit", |report| report.state == "closed").await;
    for (worker, openings) in workers.iter_mut().zip(openings) {
        let epoch = report.epoch;
        let report = worker.wait("same epoch", |report| report.epoch == epoch).await;
        assert_eq!((report.openings, report.state.as_str()), (openings, "closed"), "{report:?}");
    }
}

#[tokio::test]
async fn killed_processes_are_open_before_their_first_call() {
    tokio::join!(fleet(3), alone());
}

#[tokio::test]
async fn stopped_process_follows_the_others_when_it_continues() {
    stopped(3).await;
}
