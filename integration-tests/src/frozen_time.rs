//! Stops tokio's paused time.

use std::sync::mpsc;

/// Stops tokio's paused time while a test waits for a socket.
///
/// Tokio advances paused time when all tasks wait, but not while a blocking task runs. This guard
/// runs a blocking task until it is dropped.
#[derive(Debug)]
pub struct FrozenTime {
    _end: mpsc::Sender<()>,
}

impl FrozenTime {
    /// Starts the blocking task.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    #[must_use = "time is frozen until this value is dropped"]
    pub fn start() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv().expect_err("nothing is sent"));
        Self { _end: end }
    }
}
