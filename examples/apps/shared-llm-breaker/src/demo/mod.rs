//! The demo: two worker processes share a circuit through files, and an API fails.

mod story;
mod workers;

use std::io::{self, Write};

use tower_fault_classify::ErrorChain;

use crate::commands::{FAILED, INTERRUPTED, SUCCESS};

/// Plays the demo, and returns the exit code.
pub(crate) async fn run() -> u8 {
    let played = tokio::select! {
        played = story::play() => played,
        // An error: there is no signal to wait for.
        Ok(()) = tokio::signal::ctrl_c() => return INTERRUPTED,
    };
    match played {
        Ok(()) => SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: the demo has failed: {}", ErrorChain(&*error));
            FAILED
        }
    }
}
