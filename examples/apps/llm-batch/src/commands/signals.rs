//! The signals that end the program.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a program that a signal has interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// Returns a token that is cancelled by the first SIGINT or SIGTERM. The second one ends the
/// process immediately.
///
/// If the system refuses to notify of a signal, the signal ends the process, as without this
/// function.
pub(super) fn cancel_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    if let Ok((mut interrupt, mut terminate)) = signals {
        let interrupted = token.clone();
        tokio::spawn(async move {
            wait_for(&mut interrupt, &mut terminate).await;
            interrupted.cancel();
            wait_for(&mut interrupt, &mut terminate).await;
            process::exit(INTERRUPTED.into());
        });
    }
    token
}

async fn wait_for(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
