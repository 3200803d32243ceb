//! A Prometheus server.

use std::fs::write;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::program::{Process, Program};

/// The line that the server prints when it answers queries.
const READY: &str = "Server is ready to receive web requests";

/// A real Prometheus on a loopback port that the system picks, with its data in a temporary folder.
///
/// It needs `prometheus` and `promtool` of Debian's package `prometheus` in `PATH`.
///
/// Starting and ending the server blocks the thread. Dropping the handle kills the server and
/// removes the folder.
#[derive(Debug)]
pub struct Prometheus {
    // Dropped before the folder and the port.
    _process: Process,
    _folder: TempDir,
    port: ReservedPort,
}

impl Prometheus {
    /// Starts a server with the content of `prometheus.yml`. Its paths must be absolute.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or rejects the configuration. The text names the package,
    /// and has what the program printed.
    pub fn start(configuration: &str) -> Self {
        let folder = TempDir::with_prefix("prometheus-").expect("a temporary folder can be created");
        let port = ReservedPort::new();
        let file = folder.path().join("prometheus.yml");
        write(&file, configuration).expect("the folder is writable");
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={}", port.address()),
        ];
        let process = Process::start(&program("prometheus"), &arguments, READY);
        Self { _process: process, _folder: folder, port }
    }

    /// Returns the address of the port.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns `http://` and the address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Runs `promtool`, and returns what it printed, such as for `["check", "rules", PATH]`.
    ///
    /// Blocks the thread until the program ends.
    ///
    /// # Errors
    ///
    /// Returns what the program printed if it fails.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing. The text names the package.
    pub fn promtool(arguments: &[&str]) -> Result<String, String> {
        let program = program("promtool");
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let output = program.command(&arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{}", program.failed(&error.to_string())));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(program.failed(&text)) }
    }
}

fn program(name: &str) -> Program {
    Program { path: PathBuf::from(name), package: "prometheus", user: None }
}
