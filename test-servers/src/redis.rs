//! A Redis server.

use std::fs::write;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::program::{Process, Program};
use crate::tls::Tls;

/// The line that the server prints when it accepts connections, before it loads its data.
const READY: &str = "Server initialized";

/// The line that a node of a cluster prints when it serves its slots.
const CLUSTER_READY: &str = "Cluster state changed: ok";

/// The settings of a node of a cluster.
const CLUSTER: [&str; 2] = ["cluster-enabled yes", "cluster-announce-ip 127.0.0.1"];

/// The line that a replica prints when it has the data of its primary.
const REPLICA_READY: &str = "sync: Finished with success";

/// The slots of a cluster.
const SLOTS: usize = 16384;

/// A real Redis server, with its data and its Unix socket in a temporary folder.
///
/// It needs `redis-server` of Debian's package `redis-server` in `PATH`. It listens on a loopback
/// port only if a constructor says so, and saves its data only if a client asks for it.
///
/// Starting and ending the server blocks the thread. Dropping the handle ends the server and
/// removes the folder.
#[derive(Debug)]
pub struct Redis {
    // Dropped before the folder and the ports.
    process: Process,
    settings: Vec<String>,
    folder: TempDir,
    /// The port for clients, and the port that the nodes of a cluster use among themselves.
    ports: Vec<ReservedPort>,
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
        Self::run(folder, Vec::new(), settings)
    }

    /// Starts a server that also listens on a loopback port, which the system picks. A restarted
    /// server has the same port.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails, or if loopback cannot be bound.
    pub fn start_tcp() -> Self {
        Self::start_tcp_with(&[])
    }

    /// Like [`start_tcp`](Self::start_tcp), with settings of redis.conf.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails, or if loopback cannot be bound.
    pub fn start_tcp_with(settings: &[&str]) -> Self {
        let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
        Self::run(folder, vec![ReservedPort::new()], settings)
    }

    /// Starts a server that listens on a loopback port with TLS only. [`tcp_url`](Self::tcp_url) is
    /// then a URL with `rediss`.
    ///
    /// The settings of `tls` that a file can express apply: authority, names, validity.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing, fails or has no TLS, or if loopback cannot be bound.
    pub fn start_tls(tls: &Tls) -> Self {
        let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
        let ports = vec![ReservedPort::new()];
        let settings = tls_settings(tls, folder.path(), ports[0].address().port());
        Self::run(folder, ports, &settings.each_ref().map(String::as_str))
    }

    /// Like [`start_cluster`](Self::start_cluster), with TLS as [`start_tls`](Self::start_tls).
    ///
    /// # Panics
    ///
    /// Panics if the program is missing, fails or has no TLS, or if loopback cannot be bound.
    pub fn start_cluster_tls(tls: &Tls) -> Self {
        let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
        let ports = vec![ReservedPort::new(), ReservedPort::new()];
        let settings = tls_settings(tls, folder.path(), ports[0].address().port());
        let settings = settings.each_ref().map(String::as_str);
        let settings = [&settings[..], &CLUSTER, &["tls-cluster yes"]].concat();
        Self::run(folder, ports, &settings).with_all_slots()
    }

    /// Starts a cluster of one node on a loopback port. The node has all slots, and the cluster is
    /// ready when this returns. A client connects to it with [`tcp_url`](Self::tcp_url).
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails, or if loopback cannot be bound. The program must
    /// be Redis 7.0 or newer.
    pub fn start_cluster() -> Self {
        let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
        Self::run(folder, vec![ReservedPort::new(), ReservedPort::new()], &CLUSTER).with_all_slots()
    }

    /// Starts a cluster: some primaries, which share the slots evenly, and replicas of the first
    /// ones. The cluster is ready when this returns. A client knows it from any node.
    ///
    /// A node that does not answer for 1 s has failed; its replica then becomes a primary.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails, or if loopback cannot be bound.
    pub fn start_cluster_of(primaries: usize, replicas: usize) -> Vec<Self> {
        let settings = [&CLUSTER[..], &["cluster-node-timeout 1000"]].concat();
        let start = |_| {
            let folder = TempDir::with_prefix("redis-").expect("a temporary folder can be created");
            Self::run(folder, vec![ReservedPort::new(), ReservedPort::new()], &settings)
        };
        let mut nodes: Vec<_> = (0..primaries + replicas).map(start).collect();
        for (index, node) in nodes.iter().take(primaries).enumerate() {
            let [first, next] = [index, index + 1].map(|index| SLOTS * index / primaries);
            node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {}", next - 1));
            // Two primaries with one epoch would have to agree first, which takes seconds.
            node.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        }
        for other in &nodes[1..] {
            let [client, bus] = [0, 1].map(|index| other.ports[index].address().port());
            nodes[0].command(&format!("CLUSTER MEET 127.0.0.1 {client} {bus}"));
        }
        for node in &mut nodes {
            node.wait_for_line(CLUSTER_READY);
        }
        for replica in primaries..nodes.len() {
            let primary = nodes[replica - primaries].command("CLUSTER MYID");
            nodes[replica].command(&format!("CLUSTER REPLICATE {primary}"));
            nodes[replica].wait_for_line(REPLICA_READY);
        }
        nodes
    }

    /// Starts a replica, also on a loopback port. It has the data of `primary` when this returns.
    ///
    /// A command is replicated after the primary has answered it. Pause the replica to lose the
    /// last writes at a [promotion](Self::promote).
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or fails, or if the primary listens on no port.
    pub fn start_replica_of(primary: &Self) -> Self {
        let address = primary.address();
        let setting = format!("replicaof {} {}", address.ip(), address.port());
        let mut server = Self::start_tcp_with(&[&setting]);
        server.wait_for_line(REPLICA_READY);
        server
    }

    /// Makes a replica a primary. It keeps the data that it has.
    ///
    /// # Panics
    ///
    /// Panics if the server does not answer.
    pub fn promote(&mut self) {
        self.settings.retain(|setting| !setting.starts_with("replicaof "));
        self.command("REPLICAOF NO ONE");
    }

    /// Returns the URL of the Unix socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Returns the path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// Returns the URL of the loopback port.
    ///
    /// # Panics
    ///
    /// Panics if the server listens on no port.
    pub fn tcp_url(&self) -> String {
        let has_tls = self.settings.iter().any(|setting| setting.starts_with("tls-port "));
        format!("{}://{}", if has_tls { "rediss" } else { "redis" }, self.address())
    }

    /// Returns the address of the loopback port.
    ///
    /// # Panics
    ///
    /// Panics if the server listens on no port.
    pub fn address(&self) -> SocketAddr {
        self.ports.first().expect("`start_tcp` starts a server that listens on a port").address()
    }

    /// Returns the folder of the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends one command over a connection of its own, and returns the text of the reply. Words
    /// are separated by spaces.
    ///
    /// # Panics
    ///
    /// Panics if the server does not answer, or answers with an error or an array.
    pub fn command(&self, command: &str) -> String {
        let reply = exchange(&self.socket(), command);
        reply.unwrap_or_else(|error| panic!("the command `{command}` failed: {error}"))
    }

    /// Stops the process (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Panics
    ///
    /// Panics if the system is not Linux.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Continues a paused process (SIGCONT): it answers what it has received in the meantime.
    pub fn resume(&mut self) {
        self.process.resume();
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
    /// The server may still load its data when this returns. The node of a cluster is ready, which
    /// takes 2 s.
    ///
    /// # Panics
    ///
    /// Panics if the program fails.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.stop();
        self.settings.extend(settings.iter().map(|&setting| setting.to_owned()));
        self.process = start(self.folder.path(), &self.settings);
        if self.ports.len() > 1 {
            self.wait_for_line(CLUSTER_READY);
        }
    }

    fn run(folder: TempDir, ports: Vec<ReservedPort>, more: &[&str]) -> Self {
        let port = |index| ports.get(index).map(|port: &ReservedPort| port.address().port());
        let mut settings = vec![
            format!("port {}", port(0).unwrap_or(0)),
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", socket(folder.path()).display()),
            format!("dir {}", folder.path().display()),
            "save \"\"".to_owned(),
            // Otherwise a primary waits 5 s for more replicas before it sends its data.
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        settings.extend(port(1).map(|bus| format!("cluster-port {bus}")));
        // If a setting is repeated, the last line decides.
        settings.extend(more.iter().map(|&setting| setting.to_owned()));
        Self { process: start(folder.path(), &settings), settings, folder, ports }
    }

    fn with_all_slots(mut self) -> Self {
        self.command(&format!("CLUSTER ADDSLOTSRANGE 0 {}", SLOTS - 1));
        self.wait_for_line(CLUSTER_READY);
        self
    }

    fn wait_for_line(&mut self, text: &str) {
        assert!(self.process.wait_for_line(text), "the server has ended before it printed `{text}`");
    }
}

/// Starts the server with the files in `folder`.
fn start(folder: &Path, settings: &[String]) -> Process {
    let file = folder.join("redis.conf");
    write(&file, settings.join("\n")).expect("the folder is writable");
    let program = Program { path: PathBuf::from("redis-server"), package: "redis-server", user: None };
    Process::start(&program, &[file.display().to_string()], READY)
}

/// Writes the certificate of a server, and returns the settings for a port with TLS only.
fn tls_settings(tls: &Tls, folder: &Path, port: u16) -> [String; 6] {
    let (certificate, key) = tls.server_pem();
    let file = |name: &str, content: String| {
        let file = folder.join(name);
        write(&file, content).expect("the folder is writable");
        file.display().to_string()
    };
    [
        "port 0".to_owned(),
        format!("tls-port {port}"),
        format!("tls-cert-file {}", file("certificate.pem", certificate)),
        format!("tls-key-file {}", file("key.pem", key)),
        format!("tls-ca-cert-file {}", file("authority.pem", tls.ca_pem())),
        "tls-auth-clients no".to_owned(),
    ]
}

/// Returns the path of the Unix socket.
fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

/// Sends an inline command, and reads a reply of one text or number.
fn exchange(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("$", length)) => {
            let length = length.parse().map_err(std::io::Error::other)?;
            let mut text = vec![0; length];
            stream.read_exact(&mut text)?;
            String::from_utf8(text).map_err(std::io::Error::other)
        }
        _ => Err(std::io::Error::other(line.to_owned())),
    }
}
