//! The signals that end a run.

use std::io;

use tokio_util::sync::CancellationToken;

/// Cancels the token at the first Ctrl+C, `SIGTERM`, or `SIGHUP` of a closed terminal.
///
/// # Errors
///
/// Returns an error if the system does not permit to handle the signals.
pub(crate) fn cancel_on_interrupt(cancel: CancellationToken) -> io::Result<()> {
    let interrupted = interrupted()?;
    tokio::spawn(async move {
        interrupted.await;
        cancel.cancel();
    });
    Ok(())
}

#[cfg(unix)]
fn interrupted() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // `nohup` ignores `SIGHUP`. A handler would replace that.
    let mut hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        let hangup = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup => {}
        }
    })
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

#[cfg(not(unix))]
fn interrupted() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
