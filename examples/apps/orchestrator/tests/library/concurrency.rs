//! The limit of concurrent tasks.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use orchestrator::runner::Runner;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::common::{TestBackend, backends, completed, plan, response, run, runner, task};

/// The number of sends that run at the same time, and its maximum.
#[derive(Default)]
struct Load {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Load {
    async fn hold(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        for _ in 0..3 {
            yield_now().await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousand_tasks_are_sent_once_within_limit() {
    const LIMIT: usize = 8;
    let names: Vec<_> = (0..1_000).map(|number| format!("{number}")).collect();
    let tasks = names.iter().enumerate().map(|(number, name)| {
        // Ten chains of a hundred tasks.
        let before = number.checked_sub(10).map(|before| names[before].as_str());
        task(name, if number.is_multiple_of(3) { "codex" } else { "claude" }, before.as_slice())
    });
    let plan = plan(&tasks.collect::<Vec<_>>());
    let load = Arc::new(Load::default());
    let sent = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let (held, counts) = (Arc::clone(&load), Arc::clone(&sent));
    let backend = TestBackend::new(move |message, _| {
        let (load, counts) = (Arc::clone(&held), Arc::clone(&counts));
        async move {
            *counts.lock().unwrap().entry(message.task.clone()).or_default() += 1;
            load.hold().await;
            Ok(response(&message.task))
        }
    });
    let runner = runner().concurrency(NonZeroUsize::new(LIMIT).unwrap());
    let cancel = CancellationToken::new();
    let (report, events) = run(&runner, &plan, &backends(&backend, &backend), &cancel).await;
    assert_eq!(report.tasks.len(), 1_000);
    for (name, result) in names.iter().zip(&report.tasks) {
        assert_eq!((&result.id, &result.outcome, result.attempts), (name, &completed(name), 1));
    }
    let sent = sent.lock().unwrap();
    assert!(sent.len() == 1_000 && sent.values().all(|&count| count == 1), "{sent:?}");
    assert_eq!(events.len(), 3_000);
    let most = load.most.load(Ordering::SeqCst);
    assert!(most <= LIMIT, "{most} sends ran at the same time");
}

#[tokio::test(start_paused = true)]
async fn concurrency_defaults_to_four() {
    let names: Vec<_> = (0..10).map(|number| format!("{number}")).collect();
    let plan = plan(&names.iter().map(|name| task(name, "claude", &[])).collect::<Vec<_>>());
    let load = Arc::new(Load::default());
    let held = Arc::clone(&load);
    let backend = TestBackend::new(move |message, _| {
        let load = Arc::clone(&held);
        async move {
            load.hold().await;
            Ok(response(&message.task))
        }
    });
    let backends = backends(&backend, &backend);
    let report = run(&Runner::default(), &plan, &backends, &CancellationToken::new()).await.0;
    assert!(report.is_success());
    assert_eq!(load.most.load(Ordering::SeqCst), 4);
}
