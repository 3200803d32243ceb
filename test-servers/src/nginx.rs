//! An nginx server.

use std::fs::{Permissions, set_permissions, write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::program::{Process, Program};

/// A line that nginx prints when it listens.
const READY: &str = "OS: ";

/// A real nginx with one server, on a loopback port that the system picks.
///
/// It needs `nginx` of Debian's package `nginx-light`: in `/usr/sbin`, or in `PATH`. If the test
/// runs as root, it runs as the user `www-data`. Its files are in a temporary folder.
///
/// Starting and ending the server blocks the thread. Dropping the handle kills the server and
/// removes the folder.
#[derive(Debug)]
pub struct Nginx {
    // Dropped before the folder and the port.
    _process: Process,
    _folder: TempDir,
    port: ReservedPort,
}

impl Nginx {
    /// Starts nginx. `server` is the content of the block `server`, without `listen`.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing or rejects the configuration. The text names the package,
    /// and has what the program printed.
    pub fn start(server: &str) -> Self {
        let folder = TempDir::with_prefix("nginx-").expect("a temporary folder can be created");
        // The user `www-data` writes into it.
        set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("the folder is this user's");
        let port = ReservedPort::new();
        let listen = port.address();
        // One process, because workers would stay after a killed master.
        let configuration = format!(
            "daemon off;
            master_process off;
            pid nginx.pid;
            error_log stderr notice;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path body;
                proxy_temp_path proxy;
                fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi;
                scgi_temp_path scgi;
                server {{
                    listen {listen};
                    {server}
                }}
            }}"
        );
        let file = folder.path().join("nginx.conf");
        write(&file, configuration).expect("the folder is writable");
        // Debian's folder for it is not in every user's PATH.
        let debian = PathBuf::from("/usr/sbin/nginx");
        let path = if debian.exists() { debian } else { PathBuf::from("nginx") };
        let program = Program { path, package: "nginx-light", user: Some("www-data") };
        let arguments =
            ["-p", &folder.path().display().to_string(), "-c", &file.display().to_string(), "-e", "stderr"];
        let process = Process::start(&program, &arguments.map(str::to_owned), READY);
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
}
