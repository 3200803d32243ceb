//! A Redis server.

use std::fs::write;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::{Process, Program};

/// The line that the server prints when it accepts connections, before it loads its data.
const READY: &str = "Server initialized";

/// A real Redis server, with its data and its Unix socket in a temporary folder.
///
/// It needs `redis-server` of Debian's package `redis-server` in `PATH`. It listens on no port, and
/// saves its data only if a client asks for it.
///
/// Starting and ending the server blocks the thread. Dropping the handle ends the server and
/// removes the folder.
#[derive(Debug)]
pub struct Redis {
    // Dropped before the folder.
    process: Process,
    settings: Vec<String>,
    folder: TempDir,
}

impl Redis {
    /// Starts a server without data.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails. The text names the package, and has what the
    /// program printed.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`start`](Self::start), with settings of redis.conf: `"maxmemory 1mb"`.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
        Self::start_in(folder, settings)
    }

    /// Like [`start_with`](Self::start_with), with the files of `folder`, such as `nodes.conf`.
    ///
    /// Dropping the handle removes the folder.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails.
    pub fn start_in(folder: TempDir, settings: &[&str]) -> Self {
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { process: run(folder.path(), &settings), settings, folder }
    }

    /// Returns the URL of the Unix socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket(self.folder.path()))
    }

    /// Returns the folder of the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server (SIGTERM), and waits for the end.
    pub fn stop(&mut self) {
        self.process.end(Signal::TERM);
    }

    /// Kills the server (SIGKILL), and waits for the end.
    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Stops the server if it runs, and starts it with the same files and more settings.
    ///
    /// The server may still load its data when this returns.
    ///
    /// # Panics
    ///
    /// Panics if the program fails.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.stop();
        self.settings.extend(settings.iter().map(|&setting| setting.to_owned()));
        self.process = run(self.folder.path(), &self.settings);
    }
}

/// Starts the server with the files in `folder`.
fn run(folder: &Path, settings: &[String]) -> Process {
    let own = [
        "port 0".to_owned(),
        format!("unixsocket {}", socket(folder)),
        format!("dir {}", folder.display()),
        "save \"\"".to_owned(),
    ];
    // If a setting is repeated, the last line decides.
    let lines: Vec<_> = own.iter().chain(settings).map(String::as_str).collect();
    let file = folder.join("redis.conf");
    write(&file, lines.join("\n")).expect("the folder is writable");
    let program = Program { path: PathBuf::from("redis-server"), package: "redis-server", user: None };
    Process::start(&program, &[file.display().to_string()], READY)
}

/// Returns the path of the Unix socket.
fn socket(folder: &Path) -> String {
    folder.join("redis.sock").display().to_string()
}
