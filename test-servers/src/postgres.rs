//! A PostgreSQL server.

use std::fs::{Permissions, read_dir, set_permissions, write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::program::{Process, Program};
use crate::tls::Tls;

/// The line that the server prints when it accepts connections.
const READY: &str = "database system is ready to accept connections";

/// The line that a replica prints when it accepts connections.
const REPLICA_READY: &str = "database system is ready to accept read-only connections";

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
    port: Option<ReservedPort>,
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
        Self::create(folder(), None, settings)
    }

    /// Starts a server that also listens on a loopback port, which the system picks. A restarted
    /// server has the same port, and [`address`](Self::address) returns it.
    ///
    /// # Panics
    ///
    /// Panics if the programs are missing or fail, or if loopback cannot be bound.
    pub fn start_tcp_with(settings: &[&str]) -> Self {
        Self::create(folder(), Some(ReservedPort::new()), settings)
    }

    /// Like [`start_tcp_with`](Self::start_tcp_with), with TLS for the clients on the port that
    /// ask for it.
    ///
    /// The settings of `tls` that a file can express apply: authority, names, validity.
    ///
    /// # Panics
    ///
    /// Panics if the programs are missing or fail, or if loopback cannot be bound.
    pub fn start_tls(tls: &Tls) -> Self {
        let folder = folder();
        let (certificate, key) = tls.server_pem();
        let file = |name: &str, content: String| {
            let file = folder.path().join(name);
            write(&file, content).expect("the folder is writable");
            file.display().to_string()
        };
        let (certificate, key) = (file("certificate.pem", certificate), file("key.pem", key));
        // The server refuses a key that others can read, and runs as another user than the tests.
        let private = folder.path().join("private.pem").display().to_string();
        let install = Program { path: "install".into(), package: "coreutils", user: Some("postgres") };
        install.run(&["--mode=600".to_owned(), key, private.clone()]);
        let settings =
            ["ssl=on".to_owned(), format!("ssl_cert_file={certificate}"), format!("ssl_key_file={private}")];
        Self::create(folder, Some(ReservedPort::new()), &settings.each_ref().map(String::as_str))
    }

    /// Starts a replica, which follows `primary` and is read-only until it is
    /// [promoted](Self::promote).
    ///
    /// # Panics
    ///
    /// Panics if the programs are missing or fail.
    pub fn start_replica_of(primary: &Self) -> Self {
        let folder = folder();
        program("pg_basebackup").run(&[
            format!("--pgdata={}", data(folder.path())),
            format!("--dbname={}", primary.url()),
            "--write-recovery-conf".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--no-sync".to_owned(),
        ]);
        let settings = primary.settings.clone();
        let process = run(folder.path(), None, &settings, REPLICA_READY);
        Self { process, settings, folder, port: None }
    }

    /// Makes a replica a primary, and waits until it is one.
    ///
    /// # Panics
    ///
    /// Panics if the program fails.
    pub fn promote(&mut self) {
        program("pg_ctl").run(&["promote".to_owned(), format!("--pgdata={}", data(self.folder.path()))]);
    }

    fn create(folder: TempDir, port: Option<ReservedPort>, settings: &[&str]) -> Self {
        let path = folder.path();
        let password = path.join("password");
        write(&password, PASSWORD).expect("the folder is writable");
        program("initdb").run(&[
            format!("--pgdata={}", data(path)),
            format!("--pwfile={}", password.display()),
            "--username=postgres".to_owned(),
            "--auth=scram-sha-256".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--no-locale".to_owned(),
            "--no-sync".to_owned(),
        ]);
        let defaults = [
            "max_connections=10",
            "superuser_reserved_connections=0",
            "fsync=off",
            "dynamic_shared_memory_type=mmap",
        ];
        let settings: Vec<_> = defaults.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        Self { process: run(path, port.as_ref(), &settings, READY), settings, folder, port }
    }

    /// Returns the URL of the database `postgres`, with the superuser `postgres` and its password.
    pub fn url(&self) -> String {
        self.url_as("postgres", PASSWORD)
    }

    /// Returns the URL of the database `postgres`, with another user and password.
    ///
    /// The server does not check whether they exist.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let port = self.port.as_ref().map_or_else(String::new, |port| format!(":{}", port.address().port()));
        format!("postgresql://{user}:{password}@{}{port}/postgres", url_host(self.folder.path()))
    }

    /// Returns the URL with another host and port, such as the address of a
    /// [`FaultyProxy`](crate::FaultyProxy).
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("postgresql://postgres:{PASSWORD}@{address}/postgres")
    }

    /// Returns the address of the loopback port.
    ///
    /// # Panics
    ///
    /// Panics if the server listens on no port.
    pub fn address(&self) -> SocketAddr {
        self.port.as_ref().expect("`start_tcp_with` starts a server that listens on a port").address()
    }

    /// Returns the path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        match &self.port {
            None => self.folder.path().join(SOCKET),
            Some(port) => self.folder.path().join(format!(".s.PGSQL.{}", port.address().port())),
        }
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
        self.process = run(self.folder.path(), self.port.as_ref(), &self.settings, READY);
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

/// Returns a folder in which the user `postgres` can create the data and the socket.
fn folder() -> TempDir {
    let folder = TempDir::with_prefix("postgres-").expect("a temporary folder can be created");
    set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("the folder belongs to this user");
    folder
}

/// Starts the server for the data in `folder`.
fn run(folder: &Path, port: Option<&ReservedPort>, settings: &[String], ready: &str) -> Process {
    let mut arguments = vec!["-D".to_owned(), data(folder)];
    let mut set = |setting: String| arguments.extend(["-c".to_owned(), setting]);
    match port.map(ReservedPort::address) {
        None => set("listen_addresses=".to_owned()),
        Some(address) => {
            set(format!("listen_addresses={}", address.ip()));
            set(format!("port={}", address.port()));
        }
    }
    set(format!("unix_socket_directories={}", folder.display()));
    settings.iter().cloned().for_each(set);
    Process::start(&program("postgres"), &arguments, ready)
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
