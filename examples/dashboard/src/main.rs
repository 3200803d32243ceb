//! Simulated services with incidents behind circuit breakers, and the administration page.
//!
//! The program simulates several processes that call a dozen servers, share their circuits, and
//! meet incidents that repeat every three minutes. It serves the page of `tower-breaker-admin` for
//! the first of them.
//!
//! ```text
//! cargo run --release -p dashboard
//! ```

mod incidents;
mod operator;
mod options;
mod services;
mod traffic;

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower_breaker::CircuitRegistry;
use tower_breaker::telemetry::register_metrics;
use tower_breaker_admin::{Admin, User};
use tower_breaker_fleet::{Fleet, MemoryStore};

use self::options::Options;
use self::services::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    // Before the first circuit is created, because a circuit registers its metrics then.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    register_metrics();

    let started = Instant::now();
    let servers = services::servers(options.circuits.into());
    let store = MemoryStore::new();
    let mut processes = Vec::new();
    for number in 1..=options.processes {
        processes.push(start_process(&store, number, &servers, started, options.processes)?);
    }
    let (tenants, client) = services::tenants(started)?;
    tokio::spawn(traffic::call_forever(client, 30.0));

    let token = options.token.clone().unwrap_or_else(random_token);
    let job_token = random_token();
    let (registry, fleet) = processes.swap_remove(0);
    let mut admin = Admin::builder()
        .registry(&registry)
        .keyed(&tenants)
        .fleet(&fleet)
        .bearer(token.clone(), User::operator("you"))
        .bearer(job_token.clone(), User::operator("maintenance job"));
    if options.open_to_read {
        admin = admin.open_to_read();
    }
    let admin = admin.build()?;
    // With few circuits, there is nothing to maintain.
    if registry.get(operator::CIRCUIT).is_some() {
        tokio::spawn(operator::maintain_forever(admin.clone(), job_token));
    }

    let listener = TcpListener::bind(options.listen).await?;
    let path = options.prefix.trim_end_matches('/');
    println!("http://{}{path}/#token={token}", listener.local_addr()?);
    let server = axum::serve(listener, router(admin, path, metrics));
    tokio::select! {
        result = async { server.await } => result?,
        () = stop(options.seconds) => {}
    }
    Ok(())
}

/// Starts one simulated process: its circuits, its agent and its calls.
fn start_process(
    store: &MemoryStore,
    number: u8,
    servers: &[Server],
    started: Instant,
    processes: u8,
) -> Result<(CircuitRegistry, Fleet), Box<dyn Error>> {
    let registry = services::registry()?;
    let instance = format!("process-{number}");
    let (fleet, agent) = Fleet::builder(store.clone()).namespace("shop").instance(instance).build()?;
    tokio::spawn(agent);
    fleet.share_registry(&registry)?;
    for server in servers {
        let client = services::client(&registry, server, started);
        tokio::spawn(traffic::call_forever(client, server.rate / f64::from(processes)));
    }
    Ok((registry, fleet))
}

fn router(admin: Admin, prefix: &str, metrics: PrometheusHandle) -> Router {
    let router = Router::new().route("/metrics", get(async move || metrics.render()));
    if prefix.is_empty() {
        // `nest_service` does not accept `/`.
        router.fallback_service(admin)
    } else {
        router.nest_service(prefix, admin)
    }
}

/// Waits for Ctrl+C, or until the time is over.
async fn stop(seconds: Option<u64>) {
    let time_over = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = time_over => {}
    }
}

/// Returns 128 random bits, in hexadecimal digits.
fn random_token() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
