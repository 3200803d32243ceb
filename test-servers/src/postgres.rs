//! A PostgreSQL server.

use std::fs::{Permissions, read_dir, set_permissions, write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::{Process, Program};

/// The line that the server prints when it accepts connections.
const READY: &str = "database system is ready to accept connections";

/// The password of the superuser `postgres`.
pub(crate) const PASSWORD: &str = "secret";

/// The name of the Unix socket in its folder. It has the default port, so that URLs need none.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";

/// A real PostgreSQL server, with its data and its Unix socket in a temporary folder.
///
/// It needs the programs of Debian's package `postgresql`: in `/usr/lib/postgresql`, or in `PATH`.
/// If the test runs as root, they run as the user `postgres`, because PostgreSQL refuses to run as
/// root.
///
/// It accepts at most 10 sessions, so that a test can open all of them, and does not sync files.
///
/// Starting and ending the server blocks the thread. Dropping the handle ends the server and
/// removes the folder.
#[derive(Debug)]
pub struct Postgres {
    // Dropped before the folder.
    process: Process,
    settings: Vec<String>,
    folder: TempDir,
}

impl Postgres {
    /// Creates a database and starts a server for it.
    ///
    /// # Panics
    ///
    /// Panics if the programs are missing or fail. The text names the package, and has what the
    /// program printed.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`start`](Self::start), with settings of postgresql.conf: `"idle_session_timeout=1s"`.
    ///
    /// # Panics
    ///
    /// Panics if the programs are missing or fail.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = TempDir::with_prefix("postgres-").expect("a temporary folder can be created");
        // The user `postgres` creates the data and the socket in it.
        let path = folder.path();
        set_permissions(path, Permissions::from_mode(0o777)).expect("the folder belongs to this user");
        let password = path.join("password");
        write(&password, PASSWORD).expect("the folder is writable");

        let initdb = program("initdb");
        let arguments = [
            format!("--pgdata={}", data(path)),
            format!("--pwfile={}", password.display()),
            "--username=postgres".to_owned(),
            "--auth=scram-sha-256".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--no-locale".to_owned(),
            "--no-sync".to_owned(),
        ];
        let output = initdb.command(&arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{}", initdb.failed(&error.to_string())));
        assert!(output.status.success(), "{}", initdb.failed(&String::from_utf8_lossy(&output.stderr)));

        let defaults = [
            "max_connections=10",
            "superuser_reserved_connections=0",
            "fsync=off",
            "dynamic_shared_memory_type=mmap",
        ];
        let settings: Vec<_> = defaults.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        Self { process: run(path, &settings), settings, folder }
    }

    /// Returns the URL of the database `postgres`, with the superuser `postgres` and its password.
    pub fn url(&self) -> String {
        self.url_as("postgres", PASSWORD)
    }

    /// Returns the URL of the database `postgres`, with another user and password.
    ///
    /// The server does not check whether they exist.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("postgresql://{user}:{password}@{}/postgres", url_host(self.folder.path()))
    }

    /// Returns the URL with another host and port, such as the address of a
    /// [`FaultyProxy`](crate::FaultyProxy).
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("postgresql://postgres:{PASSWORD}@{address}/postgres")
    }

    /// Returns the path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// Stops the server and all its sessions (SIGSTOP): they keep their connections and answer
    /// nothing.
    ///
    /// # Panics
    ///
    /// Panics if the system is not Linux.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Continues a paused server (SIGCONT): it answers what it has received in the meantime.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Refuses new sessions, and ends the server when all sessions have ended (SIGTERM).
    ///
    /// Does not wait for the end.
    ///
    /// # Panics
    ///
    /// Panics if the server has ended.
    pub fn stop_when_idle(&mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait_for_line("received smart shutdown request"), "the server runs");
    }

    /// Ends all sessions and the server (SIGINT), and waits for the end.
    pub fn stop(&mut self) {
        self.process.end(Signal::INT);
    }

    /// Kills the server (SIGKILL), and waits until its sessions have ended.
    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Stops the server if it runs, and starts it with the same data and settings.
    ///
    /// # Panics
    ///
    /// Panics if the server fails.
    pub fn restart(&mut self) {
        self.stop();
        self.process = run(self.folder.path(), &self.settings);
    }
}

impl Drop for Postgres {
    /// Ends the server at once (SIGQUIT).
    ///
    /// Unlike SIGKILL, this removes the server's shared memory.
    fn drop(&mut self) {
        self.process.end(Signal::QUIT);
    }
}

/// Starts the server for the data in `folder`.
fn run(folder: &Path, settings: &[String]) -> Process {
    let mut arguments = vec![
        "-D".to_owned(),
        data(folder),
        "-k".to_owned(),
        folder.display().to_string(),
        "-h".to_owned(),
        String::new(),
    ];
    arguments.extend(settings.iter().flat_map(|setting| ["-c".to_owned(), setting.clone()]));
    Process::start(&program("postgres"), &arguments, READY)
}

/// Returns the host of a URL for the Unix socket in `folder`.
pub(crate) fn url_host(folder: &Path) -> String {
    folder.display().to_string().replace('/', "%2F")
}

/// Returns the folder of the database files.
fn data(folder: &Path) -> String {
    folder.join("data").display().to_string()
}

/// Returns a program of the newest version that Debian's packages have installed, or of `PATH`.
fn program(name: &str) -> Program {
    let path = newest(Path::new("/usr/lib/postgresql"), name).unwrap_or_else(|| PathBuf::from(name));
    Program { path, package: "postgresql", user: Some("postgres") }
}

/// Returns a program of the newest version in `folder` that has it.
///
/// A version may have only the clients.
fn newest(folder: &Path, name: &str) -> Option<PathBuf> {
    let versions = read_dir(folder).into_iter().flatten().flatten();
    let versions = versions.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok());
    let path = |version: u32| folder.join(format!("{version}/bin/{name}"));
    versions.filter(|&version| path(version).exists()).max().map(path)
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    #[test]
    fn newest_version_without_server_is_skipped() {
        let folder = TempDir::with_prefix("versions-").unwrap();
        for (version, name) in [(9, "postgres"), (15, "postgres"), (16, "psql")] {
            let programs = folder.path().join(format!("{version}/bin"));
            create_dir_all(&programs).unwrap();
            write(programs.join(name), "").unwrap();
        }
        let found = newest(folder.path(), "postgres");
        assert_eq!(found, Some(folder.path().join("15/bin/postgres")));
        assert_eq!(newest(folder.path(), "initdb"), None);
        assert_eq!(newest(&folder.path().join("missing"), "postgres"), None);
    }
}
