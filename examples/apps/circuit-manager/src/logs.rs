//! Logs on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// The level without `RUST_LOG`.
const DEFAULT_FILTER: &str = "info";

/// How many lines wait for the reader of standard error.
const MAX_WAITING: usize = 4_096;

/// How long the program waits at its end until the lines are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Prints the log events that `RUST_LOG` selects, as text or as lines of JSON.
///
/// The lines are written when the returned value is dropped.
pub(crate) fn init(json: bool) -> io::Result<Flush> {
    let (sender, lines) = sync_channel(MAX_WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let (written, ended) = channel();
    let counter = Arc::clone(&lost);
    thread::Builder::new().name("logs".to_owned()).spawn(move || {
        write_lines(&lines, &counter);
        // It fails if the program no longer waits.
        let _ = written.send(());
    })?;
    let (end, queue) = (sender.clone(), Queue { sender, lost });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || queue.clone());
    if json {
        logs.json().init();
    } else {
        logs.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(Flush { end, ended })
}

/// A line, or the end of the logs.
enum Entry {
    Line(Vec<u8>),
    End,
}

/// Queues lines. A call that logs must not wait for the reader of standard error.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Write for Queue {
    /// `tracing_subscriber` writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Entry::Line(line.to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until the end of the logs. Standard error may be closed.
fn write_lines(lines: &Receiver<Entry>, lost: &AtomicU64) {
    let mut stderr = io::stderr();
    while let Ok(Entry::Line(line)) = lines.recv() {
        let _ = stderr.write_all(&line);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(stderr, "{{\"lost_log_lines\":{lost}}}");
        }
    }
}

/// Waits at its drop until the lines are written.
pub(crate) struct Flush {
    end: SyncSender<Entry>,
    ended: Receiver<()>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        // The queue is full if nothing reads standard error. Then the lines are lost.
        if self.end.try_send(Entry::End).is_ok() {
            let _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}
