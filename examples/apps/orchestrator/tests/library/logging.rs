//! The log lines of circuits and runs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use orchestrator::runner::Runner;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

use crate::common::{TestBackend, backends, plan, run, task};

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
    let plan = plan(&[task("a", "claude", &[]), task("b", "codex", &[])]);
    let backends = backends(&TestBackend::dead(), &TestBackend::echo());
    run(&Runner::default(), &plan, &backends, &CancellationToken::new()).await;
    let log = log.text();
    let [transition, end] = log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
    let expected = "circuit changed its state circuit=\"claude\" from=\"closed\" to=\"open\" \
                    reason=\"consecutive_failures\" consecutive_failures=5";
    assert!(transition.contains(" WARN ") && transition.contains(expected), "{log}");
    assert!(end.contains(" WARN ") && end.contains("run completed with errors failed=1"), "{log}");
}
