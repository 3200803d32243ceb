//! A PgBouncer in front of a PostgreSQL server.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::postgres::{PASSWORD, Postgres, SOCKET, url_host};
use crate::program::{Process, Program};

/// The line that the program prints when it accepts connections.
const READY: &str = "process up";

/// A real PgBouncer that pools transactions, on a Unix socket in a temporary folder.
///
/// It needs `pgbouncer` of Debian's package `pgbouncer`: in `/usr/sbin`, or in `PATH`. If the test
/// runs as root, it runs as the user `postgres`, because PgBouncer refuses to run as root.
///
/// Each transaction may run in another session of the server, so nothing that belongs to a session
/// works: `LISTEN`, `SET`, session locks. It opens at most 5 sessions at the server.
///
/// Starting and ending the program blocks the thread. Dropping the handle ends the program and
/// removes the folder.
#[derive(Debug)]
pub struct PgBouncer {
    // Dropped before the folder.
    process: Process,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts a pool for the database `postgres` of `server`.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails. The text names the package, and has what the
    /// program printed.
    pub fn start(server: &Postgres) -> Self {
        let folder = TempDir::with_prefix("pgbouncer-").expect("a temporary folder can be created");
        // The user `postgres` creates the socket in it.
        set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("the folder is this user's");
        let users = folder.path().join("users.txt");
        write(&users, format!("\"postgres\" \"{PASSWORD}\"\n")).expect("the folder is writable");
        let server = server.socket();
        let server = server.parent().expect("a socket is in a folder").display();
        let lines = [
            "[databases]".to_owned(),
            format!("postgres = host={server} port=5432"),
            "[pgbouncer]".to_owned(),
            format!("unix_socket_dir = {}", folder.path().display()),
            // Only part of the name of the socket: there is no `listen_addr`.
            "listen_port = 5432".to_owned(),
            "auth_type = scram-sha-256".to_owned(),
            format!("auth_file = {}", users.display()),
            "pool_mode = transaction".to_owned(),
            "default_pool_size = 5".to_owned(),
            "max_client_conn = 2500".to_owned(),
        ];
        write(settings(folder.path()), lines.join("\n")).expect("the folder is writable");
        Self { process: start(folder.path()), folder }
    }

    /// Returns the URL of the database `postgres`, with the superuser `postgres` and its password.
    pub fn url(&self) -> String {
        format!("postgresql://postgres:{PASSWORD}@{}/postgres", url_host(self.folder.path()))
    }

    /// Returns the path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// Stops the process (SIGSTOP): it keeps its connections and forwards nothing.
    ///
    /// # Panics
    ///
    /// Panics if the system is not Linux.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Continues a paused process (SIGCONT).
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Kills the program (SIGKILL), and waits for the end.
    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Kills the program if it runs, and starts it with the same settings.
    ///
    /// # Panics
    ///
    /// Panics if the program fails.
    pub fn restart(&mut self) {
        self.kill();
        self.process = start(self.folder.path());
    }
}

/// Starts the program with the settings in `folder`.
fn start(folder: &Path) -> Process {
    // Debian's folder for it is not in every user's PATH.
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    let path = if debian.exists() { debian } else { PathBuf::from("pgbouncer") };
    let program = Program { path, package: "pgbouncer", user: Some("postgres") };
    Process::start(&program, &[settings(folder).display().to_string()], READY)
}

/// Returns the file of the settings.
fn settings(folder: &Path) -> PathBuf {
    folder.join("pgbouncer.ini")
}
