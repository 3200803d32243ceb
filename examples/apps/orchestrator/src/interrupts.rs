//! The signals that end a run.

use std::io;
use std::process;
use std::time::Duration;

use subprocess::Interrupts;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::INTERRUPTED;

/// How long an interrupted program may take to end. Then a write to standard error blocks it, for
/// example that of a log line. All commands have been killed.
const FORCED_END: Duration = Duration::from_secs(2);

/// Cancels the token at the first Ctrl+C, `SIGTERM`, or `SIGHUP` of a closed terminal.
///
/// # Errors
///
/// Returns an error if the system does not permit to handle the signals.
pub(crate) fn cancel_on_interrupt(cancel: CancellationToken) -> io::Result<()> {
    let mut interrupts = Interrupts::new()?;
    tokio::spawn(async move {
        interrupts.recv().await;
        cancel.cancel();
        sleep(FORCED_END).await;
        process::exit(INTERRUPTED.into());
    });
    Ok(())
}
