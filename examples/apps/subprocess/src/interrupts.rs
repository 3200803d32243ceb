//! The signals that end a program.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives Ctrl+C, `SIGTERM`, and `SIGHUP` of a closed terminal.
///
/// From the creation on, these signals do not end this process, even after a drop. On Windows, only
/// Ctrl+C is received.
#[derive(Debug)]
pub struct Interrupts {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    /// `None`: the process was started with `SIGHUP` ignored. A handler would replace that.
    #[cfg(unix)]
    hangup: Option<Signal>,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(unix)]
impl Interrupts {
    /// Starts to receive the signals. `SIGHUP` stays ignored if `nohup` has started this process.
    ///
    /// # Errors
    ///
    /// Returns an error if the system does not permit to handle the signals.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime that has I/O enabled.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next signal. No signal is lost if the future is dropped.
    pub async fn recv(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Returns whether the process was started with `SIGHUP` ignored. Only Linux shows it.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Bit 0 is signal 1, which is `SIGHUP`.
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(windows)]
impl Interrupts {
    /// Starts to receive Ctrl+C.
    ///
    /// # Errors
    ///
    /// Returns an error if the system does not permit to handle Ctrl+C.
    pub fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for the next Ctrl+C. None is lost if the future is dropped.
    pub async fn recv(&mut self) {
        self.interrupt.recv().await;
    }
}
