//! Reloads the settings file while the gateway runs.

use std::fs;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower::BoxError;

use super::gateway::Gateway;
use super::settings::Settings;

/// Two reads with this time between them return the same text when the writer has finished.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// How often the file is read without an event. A watch does not report every change: it ends with
/// its folder, and it does not see the target of a link, or another machine's write to a network
/// file system.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How the last change of the file ended, for the status page.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ReloadStatus {
    /// How many changes of the file were applied.
    pub(crate) applied: u64,
    /// Why the last change was not applied. `None`: it was.
    pub(crate) error: Option<String>,
    /// The settings of the file that apply after a restart only.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// Starts to watch the file, and applies each change to the gateway.
pub(crate) fn watch_settings(
    path: &Path,
    text: String,
    gateway: Gateway,
) -> Result<watch::Receiver<ReloadStatus>, BoxError> {
    // An absolute path has a parent, also if the file is in the working directory.
    let path = path::absolute(path)?;
    let changed = Arc::new(Notify::new());
    // The file may have changed since `text` was read.
    changed.notify_one();
    let watcher = watch_folder_of(&path, Arc::clone(&changed))?;
    let (status, receiver) = watch::channel(ReloadStatus::default());
    let started_with = gateway.settings.borrow().clone();
    let last_read = Ok(text);
    let reloader = Reloader { path, last_read, started_with, gateway, status, _watcher: watcher };
    tokio::spawn(reloader.run(changed));
    Ok(receiver)
}

/// Watches the folder, because editors and Kubernetes replace a file instead of writing to it.
fn watch_folder_of(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| match event {
        // The gateway itself reads the file.
        Ok(event) if event.kind.is_access() => {}
        Ok(_) => changed.notify_one(),
        Err(error) => eprintln!("cannot watch the settings file, which is still polled: {error}"),
    };
    let mut watcher = notify::recommended_watcher(on_event)?;
    watcher.watch(path.parent().unwrap_or(path), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

struct Reloader {
    path: PathBuf,
    /// The text that was read last, or the error.
    last_read: Result<String, String>,
    started_with: Settings,
    gateway: Gateway,
    status: watch::Sender<ReloadStatus>,
    /// It watches until it is dropped.
    _watcher: RecommendedWatcher,
}

impl Reloader {
    async fn run(mut self, changed: Arc<Notify>) {
        loop {
            // After an event or the interval.
            let _ = timeout(POLL_INTERVAL, changed.notified()).await;
            let read = read_settled(&self.path).await;
            if read == self.last_read {
                continue;
            }
            self.last_read.clone_from(&read);
            match self.apply(read) {
                Ok(needs_restart) => {
                    println!("# the settings were reloaded");
                    for name in &needs_restart {
                        eprintln!("the new value of `{name}` applies after a restart");
                    }
                    self.status.send_modify(|status| {
                        let applied = status.applied + 1;
                        *status = ReloadStatus { applied, error: None, needs_restart };
                    });
                }
                // The former settings stay.
                Err(error) => {
                    eprintln!("the settings were not reloaded: {error}");
                    self.status.send_modify(|status| status.error = Some(error.to_string()));
                }
            }
        }
    }

    /// Applies the text of the file. Returns the settings that apply after a restart only.
    fn apply(&self, read: Result<String, String>) -> Result<Vec<&'static str>, BoxError> {
        let settings = Settings::parse(&read?)?;
        let needs_restart = settings.changes_that_need_restart(&self.started_with);
        self.gateway.apply(settings)?;
        Ok(needs_restart)
    }
}

/// Reads the file when it does not change any more. A file that is half written can be valid.
async fn read_settled(path: &Path) -> Result<String, String> {
    let mut last = read(path);
    loop {
        tokio::time::sleep(SETTLE_TIME).await;
        let current = read(path);
        if current == last {
            return current;
        }
        last = current;
    }
}

/// Reads the file. The error names it.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
