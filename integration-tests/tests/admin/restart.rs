//! The page while its server is killed and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use tokio::net::TcpSocket;

use crate::page::Page;
use crate::server::{OPERATOR, builder, registry, serve};

/// The address of the child process.
const ADDRESS: &str = "ADMIN_TEST_ADDRESS";
/// The names of its circuits, separated by commas. Those that begin with `!` are open.
const CIRCUITS: &str = "ADMIN_TEST_CIRCUITS";

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

#[tokio::test]
#[ignore = "another test starts it as a process of its own"]
async fn server_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let registry = registry(&[]);
    for name in std::env::var(CIRCUITS).unwrap().leak().split(',') {
        let circuit = registry.circuit(name.trim_start_matches('!'));
        if name.starts_with('!') {
            circuit.trip_for(std::time::Duration::from_secs(600)).unwrap();
        }
    }
    let listener = bound(address.parse().unwrap()).listen(64).unwrap();
    // The process ends with its input, and thus with the test.
    std::thread::spawn(|| {
        let _ = std::io::stdin().lines().count();
        std::process::exit(0);
    });
    serve(listener, builder(&registry).build().unwrap()).await;
}

/// A process with a server. Dropping it kills it.
struct Process(Child);

impl Process {
    fn start(address: SocketAddr, circuits: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "restart::server_process", "--ignored"]);
        command.env(ADDRESS, address.to_string()).env(CIRCUITS, circuits);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_shows_that_the_server_was_killed_and_reconnects() {
    // The socket does not listen. It keeps the port for the processes.
    let port = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = port.local_addr().unwrap();
    let process = Process::start(address, "billing,search");
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    let page = Page::log_in(&format!("http://{address}/breakers"), OPERATOR).await;
    page.wait_for_state("billing", "closed").await;
    page.wait_for_state("search", "closed").await;

    drop(process);
    page.wait_for_text("#connection", "Disconnected").await;
    page.wait_for_text("[role=alert]", "Disconnected since").await;
    // The last known state stays, and no action can be sent.
    assert!(page.has("billing").await);
    page.browser
        .wait_for(
            "return [...document.querySelectorAll('[data-action]')]
                .every((button) => button.ariaDisabled === 'true')",
            &[],
        )
        .await;
    page.save("disconnected").await;

    let _process = Process::start(address, "inventory,!search");
    page.wait_until_live().await;
    page.wait_for_state("search", "open").await;
    page.wait_for_state("inventory", "closed").await;
    page.browser.wait_for("return document.querySelectorAll('.card').length === 2", &[]).await;
    assert!(!page.has("billing").await);
    page.wait_for_text("#connection", "Live").await;
    assert_eq!(page.value("document.querySelector('#offline').checkVisibility()").await, false);
    page.act("Reset", "search", "the server was restarted").await;
    page.wait_for_state("search", "closed").await;
    assert_eq!(page.errors().await, []);
}
