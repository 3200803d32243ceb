//! SIGINT and SIGTERM.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that interrupt the program. They no longer end the process once this value exists.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGINT and SIGTERM. `None`: the system refuses to notify of signals, and they end the
    /// process.
    both: Option<(Signal, Signal)>,
}

impl Signals {
    pub(crate) fn new() -> Self {
        let interrupt = signal(SignalKind::interrupt());
        let both = interrupt.and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
        Self { both: both.ok() }
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let Some((interrupt, terminate)) = &mut self.both else { return pending().await };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
