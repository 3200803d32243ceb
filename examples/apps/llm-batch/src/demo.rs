//! The demo: a job whose API fails, whose key is revoked, and whose process is killed.
//!
//! The API runs on loopback, and the files are in a temporary folder. The demo starts this program
//! with the commands that a person would type, and explains what happens.

mod agents;
mod api;
mod story;
mod summary;

use tokio_util::sync::CancellationToken;
use tower_fault_classify::ErrorChain;

use self::story::Story;
use crate::commands::INTERRUPTED;
use crate::console::Console;

/// Plays the demo, and returns the exit code of the program: 0 if no result was lost.
pub async fn run(interrupted: CancellationToken) -> u8 {
    let console = Console::new(false);
    // Dropping the story ends its processes and removes its folder.
    match interrupted.run_until_cancelled(Story::play(console)).await {
        None => INTERRUPTED,
        Some(Ok(true)) => 0,
        Some(Ok(false)) => 1,
        Some(Err(error)) => {
            console.error(format_args!("the demo failed: {}", ErrorChain(&*error)));
            1
        }
    }
}
