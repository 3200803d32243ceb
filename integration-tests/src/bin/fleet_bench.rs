//! Measures circuits that processes share: `cargo run --release -p integration-tests --bin
//! fleet_bench`.
//!
//! It starts the store, a backend and worker processes, prints one Markdown table, and exits with
//! 1 if a target is missed. Each client in a worker simulates a process of a fleet: it has a
//! circuit, an agent and connections of its own. All of them share the cores of one machine, and
//! all traffic is over loopback or Unix sockets.

#[cfg(unix)]
#[path = "../fleet_bench/mod.rs"]
mod fleet_bench;

#[cfg(unix)]
fn main() -> anyhow::Result<std::process::ExitCode> {
    fleet_bench::main()
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("the benchmark starts servers that need Unix");
    std::process::ExitCode::FAILURE
}
