//! The demo: two worker processes share a circuit through files, and an API fails.

mod story;
mod workers;

use std::io::{self, Write};

use tower_fault_classify::ErrorChain;

use crate::commands::{FAILED, INTERRUPTED, SUCCESS};
use crate::signals::Signals;

/// Plays the demo, and returns the exit code.
pub(crate) async fn run() -> u8 {
    let mut signals = Signals::new();
    let played = tokio::select! {
        played = story::play() => played,
        // The end of the story drops the workers, which kills them, and removes the folder.
        () = signals.next() => return INTERRUPTED,
    };
    match played {
        Ok(()) => SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: the demo has failed: {}", ErrorChain(&*error));
            FAILED
        }
    }
}
