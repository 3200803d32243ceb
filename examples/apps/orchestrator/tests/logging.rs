//! The log lines of circuits and runs.
//!
//! They are in a program of their own, because tracing caches per process whether a log line is
//! enabled. Tests on other threads, without a log, would disable it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use orchestrator::backend::{Backend, Backends, Message, Response, SendError};
use orchestrator::plan::{Format, Plan};
use orchestrator::runner::Runner;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

/// A backend that fails each send.
struct Dead;

impl Backend for Dead {
    fn send<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<Response, SendError>> {
        Box::pin(async { Err(SendError::transient("the backend is down")) })
    }

    fn session_id(&self) -> &'static str {
        "test"
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

const PLAN: &str = r#"{
    "tasks": [{ "id": "a", "agent": "claude", "prompt": "hello" }],
    "backends": { "claude": { "command": ["claude"] } }
}"#;

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Writes the log of this thread into this log.
    fn capture(&self) -> DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn transition_and_failed_run_are_logged() {
    let log = Log::default();
    let _capture = log.capture();
    let plan = Plan::parse("plan.json", PLAN, Format::Json).unwrap();
    let (backends, cancel) = (Backends::new().with("claude", Dead), CancellationToken::new());
    let (events, _) = mpsc::unbounded_channel();
    Runner::default().run(&plan, &backends, &cancel, events).await;
    let log = log.text();
    let [transition, end] = log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
    let expected = ["circuit=\"claude\"", "from=\"closed\"", "to=\"open\"", "consecutive_failures=5"];
    assert!(transition.contains(" WARN "), "{log}");
    assert!(expected.iter().all(|field| transition.contains(field)), "{log}");
    assert!(end.contains(" WARN ") && end.contains("run completed with errors failed=1"), "{log}");
}
