//! Reloads the settings file while the gateway runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tower::BoxError;

use super::gateway::Gateway;
use super::settings::Settings;

/// The time to wait after a change, because an editor writes a file in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// How the last change of the file ended, for the status page.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ReloadStatus {
    /// How many changes of the file were applied.
    pub(crate) applied: u64,
    /// Why the last change was not applied. `None`: it was.
    pub(crate) error: Option<String>,
}

/// Starts to watch the file, and applies each change to the gateway.
pub(crate) fn watch_settings(
    path: &Path,
    text: String,
    gateway: Gateway,
) -> Result<watch::Receiver<ReloadStatus>, BoxError> {
    let changed = Arc::new(Notify::new());
    // The file may have changed since `text` was read.
    changed.notify_one();
    let watcher = watch_folder_of(path, Arc::clone(&changed))?;
    let (status, receiver) = watch::channel(ReloadStatus::default());
    let reloader = Reloader { path: path.to_owned(), text, gateway, status, _watcher: watcher };
    tokio::spawn(reloader.run(changed));
    Ok(receiver)
}

/// Watches the folder, because editors and Kubernetes replace a file instead of writing to it.
fn watch_folder_of(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| match event {
        // The gateway itself reads the file.
        Ok(event) if event.kind.is_access() => {}
        Ok(_) => changed.notify_one(),
        Err(error) => eprintln!("the settings file may not be watched any more: {error}"),
    };
    let mut watcher = notify::recommended_watcher(on_event)?;
    watcher.watch(path.parent().unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

struct Reloader {
    path: PathBuf,
    /// The text that was read last.
    text: String,
    gateway: Gateway,
    status: watch::Sender<ReloadStatus>,
    /// It watches until it is dropped.
    _watcher: RecommendedWatcher,
}

impl Reloader {
    async fn run(mut self, changed: Arc<Notify>) {
        loop {
            changed.notified().await;
            tokio::time::sleep(SETTLE_TIME).await;
            match self.reload() {
                Ok(false) => {}
                Ok(true) => {
                    println!("# the settings were reloaded");
                    self.status.send_modify(|status| {
                        status.applied += 1;
                        status.error = None;
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

    /// Applies the file if its text has changed. Returns whether it has.
    fn reload(&mut self) -> Result<bool, BoxError> {
        // An unreadable file is not the applied one, even if it comes back unchanged.
        let text = fs::read_to_string(&self.path).inspect_err(|_| self.text.clear())?;
        if text == self.text {
            return Ok(false);
        }
        self.text.clone_from(&text);
        let settings = Settings::parse(&text)?;
        for name in settings.changes_that_need_restart(&self.gateway.settings.borrow()) {
            eprintln!("`{name}` has changed, and applies after a restart");
        }
        self.gateway.apply(settings)?;
        Ok(true)
    }
}
