//! A simulated backend, which is up or down for all processes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

/// A backend that is down while a file exists, so that two processes see the same outage.
pub(crate) struct Backend {
    file: PathBuf,
}

impl Backend {
    pub(crate) fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Sends a request. Fails like a client whose server is down.
    pub(crate) async fn request(&self) -> io::Result<()> {
        sleep(Duration::from_millis(5)).await;
        if self.file.exists() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    /// Stops or starts the backend.
    pub(crate) fn set_down(&self, down: bool) {
        let result = if down {
            std::fs::write(&self.file, "")
        } else {
            std::fs::remove_file(&self.file).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        };
        match result {
            Ok(()) => println!("* the backend is {}", if down { "down" } else { "up" }),
            Err(error) => println!("* {}: {error}", self.file.display()),
        }
    }
}
