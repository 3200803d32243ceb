//! Standard error, written by a thread.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the end of a run waits for the reader of standard error.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Writes to standard error, above the progress bar. Clones write to the same thread.
///
/// A write blocks while standard error is not read. On a thread, it does not delay the time limits
/// and the signals of the run.
#[derive(Clone)]
pub(crate) struct Stderr {
    messages: Sender<Message>,
    bars: MultiProgress,
}

enum Message {
    Text(Vec<u8>),
    /// Everything before has been written.
    Written(oneshot::Sender<()>),
}

impl Stderr {
    /// Starts the thread, which ends with the process.
    pub(crate) fn start() -> io::Result<Self> {
        let (messages, received) = channel();
        let bars = MultiProgress::new();
        let stderr = Self { messages, bars: bars.clone() };
        thread::Builder::new().name("stderr".to_owned()).spawn(move || write_all(&received, &bars))?;
        Ok(stderr)
    }

    /// Returns the progress bars, which are hidden during a write.
    pub(crate) const fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: &str) {
        self.send(format!("{line}\n").into_bytes());
    }

    fn send(&self, text: Vec<u8>) {
        // The thread ends with the process.
        let _ = self.messages.send(Message::Text(text));
    }

    /// Waits until everything has been written, unless standard error is not read.
    pub(crate) async fn written(&self) {
        let (sender, written) = oneshot::channel();
        if self.messages.send(Message::Written(sender)).is_ok() {
            let _ = timeout(MAX_WAIT, written).await;
        }
    }
}

fn write_all(messages: &Receiver<Message>, bars: &MultiProgress) {
    for message in messages {
        match message {
            // Standard error may be closed. The report has the results, too.
            Message::Text(text) => drop(bars.suspend(|| io::stderr().write_all(&text))),
            // The receiver does not wait any more.
            Message::Written(sender) => drop(sender.send(())),
        }
    }
}

impl Write for Stderr {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.send(buffer.to_vec());
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
