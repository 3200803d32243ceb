//! What the admin costs: without a page, with 100 pages, and with 1,000 idle pages.
//!
//! The server has a thread of its own, whose CPU time is measured (on Linux). It serves the pages
//! with axum over the loopback interface. Another thread changes the circuits and reads the pages.

use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, interval, sleep};
use tower_breaker::{BreakerConfig, CircuitRegistry, Verdict};
use tower_breaker_admin::Admin;

const MEASURED: Duration = Duration::from_secs(20);

fn main() {
    println!("{:52} {:>8} {:>12} {:>12}", "", "CPU", "bytes/s", "RSS/page");
    for circuits in [20, 500] {
        let idle = Load { circuits, pages: 0, busy: false, transitions: 0 };
        run(&format!("{circuits} idle circuits, no page"), &idle);
    }
    let busy = Load { circuits: 500, pages: 0, busy: true, transitions: 50 };
    run("500 busy circuits, 50 transitions/s, no page", &busy);
    run("500 busy circuits, 50 transitions/s, 1 page", &Load { pages: 1, ..busy });
    run("500 busy circuits, 50 transitions/s, 100 pages", &Load { pages: 100, ..busy });
    run("20 idle circuits, 1,000 pages", &Load { circuits: 20, pages: 1_000, busy: false, transitions: 0 });
    observers();
}

/// What happens while the server is measured.
#[derive(Clone, Copy)]
struct Load {
    circuits: usize,
    pages: usize,
    /// Each circuit has calls every second.
    busy: bool,
    /// The transitions of all circuits per second.
    transitions: u32,
}

fn run(name: &str, load: &Load) {
    let registry = registry(load.circuits);
    let server = Server::start(&registry);
    let received = Arc::new(AtomicU64::new(0));
    let runtime = runtime();
    let (cpu, bytes, memory) = runtime.block_on(async {
        tokio::spawn(change(registry, *load));
        sleep(Duration::from_secs(1)).await;
        let before = resident_bytes();
        for _ in 0..load.pages {
            tokio::spawn(read_page(server.address, Arc::clone(&received)));
        }
        sleep(Duration::from_secs(3)).await;
        let memory = resident_bytes().saturating_sub(before);
        let (cpu, bytes) = (server.cpu_time(), received.load(Ordering::Relaxed));
        sleep(MEASURED).await;
        (server.cpu_time().saturating_sub(cpu), received.load(Ordering::Relaxed) - bytes, memory)
    });
    let cpu = 100.0 * cpu.as_secs_f64() / MEASURED.as_secs_f64();
    let bytes = bytes / MEASURED.as_secs();
    let memory = memory.checked_div(load.pages as u64).map_or_else(String::new, |bytes| bytes.to_string());
    println!("{name:52} {cpu:>6.2} % {bytes:>12} {memory:>12}");
}

fn registry(circuits: usize) -> CircuitRegistry {
    let registry = CircuitRegistry::new(BreakerConfig::default());
    for number in 0..circuits {
        registry.circuit(format!("service-{number}"));
    }
    registry
}

/// Makes the calls and the transitions.
async fn change(registry: CircuitRegistry, load: Load) {
    let circuits = registry.circuits();
    if load.busy {
        let circuits = circuits.clone();
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                for circuit in &circuits {
                    circuit.record(Verdict::Success);
                }
            }
        });
    }
    if load.transitions > 0 {
        let mut ticks = interval(Duration::from_secs(1) / load.transitions);
        // Each circuit is opened and closed in turn.
        for circuit in circuits.iter().flat_map(|circuit| [(circuit, true), (circuit, false)]).cycle() {
            ticks.tick().await;
            let (circuit, is_trip) = circuit;
            if is_trip { circuit.trip() } else { circuit.reset() }.unwrap();
        }
    }
}

async fn read_page(address: SocketAddr, received: Arc<AtomicU64>) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /breakers/api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 1 << 10];
    loop {
        let read = connection.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the stream has ended");
        received.fetch_add(read as u64, Ordering::Relaxed);
    }
}

struct Server {
    address: SocketAddr,
    /// The number of the server's thread, by which Linux shows its CPU time.
    thread: String,
}

impl Server {
    /// Starts a server, which runs until the program ends.
    fn start(registry: &CircuitRegistry) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let registry = registry.clone();
        std::thread::spawn(move || {
            let thread = fs::read_link("/proc/thread-self");
            let thread = thread.map_or_else(|_| String::new(), |path| path.display().to_string());
            runtime().block_on(async {
                // Within the runtime, so that the history begins now.
                let admin = Admin::builder().registry(&registry).open_to_read().build().unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(Self { address: listener.local_addr().unwrap(), thread }).unwrap();
                let app = axum::Router::new().nest_service("/breakers", admin);
                axum::serve(listener, app).await.unwrap();
            });
        });
        receiver.recv().unwrap()
    }

    fn cpu_time(&self) -> Duration {
        let times = fs::read_to_string(format!("/proc/{}/schedstat", self.thread)).unwrap_or_default();
        let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}

/// Compares the time of a transition with and without an admin.
fn observers() {
    let alone = registry(1);
    let observed = registry(1);
    let _server = Server::start(&observed);
    for (name, registry) in [("without an admin", alone), ("with an admin", observed)] {
        let circuit = registry.circuit("service-0");
        let start = Instant::now();
        for _ in 0..100_000 {
            black_box(&circuit).trip().unwrap();
            black_box(&circuit).reset().unwrap();
        }
        println!("a transition {name}: {} ns", start.elapsed().as_nanos() / 200_000);
    }
}
