//! The signals that end a run.

use std::io;

use subprocess::Interrupts;
use tokio_util::sync::CancellationToken;

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
    });
    Ok(())
}
