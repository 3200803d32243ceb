//! The subcommand `serve`.

use anyhow::{Context, Result};
use circuit_manager::agents::Agents;
use circuit_manager::audit::Audit;
use circuit_manager::auth::Users;
use circuit_manager::events::Events;
use circuit_manager::health::{HealthMonitor, setup_health_integration};
use circuit_manager::manager::Manager;
use circuit_manager::server::{self, AppState};
use circuit_manager::store::Store;
use reqwest::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::NO_THREADS;
use crate::cli::{ServeSettings, StoreSetting};
use crate::logs;
use crate::output::print;
use crate::signals::cancel_at_signal;

/// A server whose settings are valid.
pub(crate) struct Prepared {
    settings: ServeSettings,
    users: Users,
    audit: Audit,
    monitor: HealthMonitor,
    store: Store,
    manager: Manager,
}

/// Reads the users, opens the audit file, and checks the other settings.
pub(crate) fn prepare(settings: ServeSettings) -> Result<Prepared> {
    let users = Users::read(&settings.token_file)?;
    let audit = match &settings.audit_file {
        Some(path) => Audit::append_to(path)
            .with_context(|| format!("audit file `{}` cannot be opened; check the path", path.display()))?,
        None => Audit::default(),
    };
    let monitor = HealthMonitor::new(settings.health.clone())?;
    let store = match &settings.store {
        StoreSetting::Database(url) => Store::postgres(url.as_str())?,
        StoreSetting::Embedded(path) => Store::file(path),
    };
    let own = settings.agents.by_name.iter().map(|(name, agent)| (name.clone(), agent.circuit.clone()));
    let manager = Manager::new(settings.agents.default.clone(), own.collect())?;
    Ok(Prepared { settings, users, audit, monitor, store, manager })
}

/// Runs the server until a signal stops it.
pub(crate) fn run(server: Prepared) -> Result<()> {
    let _flush = logs::init(server.settings.json).context(NO_THREADS)?;
    let runtime = Runtime::new().context(NO_THREADS)?;
    let result = runtime.block_on(server.serve());
    // A connection whose client does nothing may still be open.
    runtime.shutdown_background();
    result
}

impl Prepared {
    async fn serve(self) -> Result<()> {
        let Self { settings, users, audit, monitor, store, manager } = self;
        let listener = server::bind(settings.listen)
            .with_context(|| format!("address {} cannot be bound; choose another one", settings.listen))?;
        let stopping = CancellationToken::new();
        cancel_at_signal(stopping.clone()).context("signals cannot be handled")?;

        let loading = manager.persist(store, settings.writer);
        let Some(loaded) = stopping.run_until_cancelled(loading).await else { return Ok(()) };
        let (manager, writer) = loaded?;
        for name in settings.agents.by_name.keys() {
            manager.get_or_create(name)?;
        }
        let events = Events::new(settings.ping, stopping.clone());
        let forward = tokio::spawn(events.forward(&manager));
        integrate_health(&manager, &monitor, &events);
        let mut agents = Agents::new(manager.clone(), monitor, stopping.clone());
        agents.add_configured(&settings.agents.by_name, &client()?);
        agents.add_simulated(settings.simulate);
        let agents = agents.run()?;
        let state = AppState::new(manager, users, audit, events, stopping.clone());
        let router = server::router(state.clone())?;

        // After the other tasks, so that their last changes are written.
        let flush = CancellationToken::new();
        let writer = tokio::spawn(writer.run(flush.clone()));
        let agents = tokio::spawn(agents);
        print_address(&listener, settings.json)?;
        let result = server::serve(listener, router, state).await;
        // If the server has failed, the other tasks do not know it.
        stopping.cancel();
        let (agents, forward) = (agents.await, forward.await);
        // Also if one of the tasks has panicked.
        flush.cancel();
        writer.await?;
        agents?;
        forward?;
        result.context("the server has failed")
    }
}

/// Sends the changes of the health of agents to the clients and to the circuits.
fn integrate_health(manager: &Manager, monitor: &HealthMonitor, events: &Events) {
    let (events, of_events) = (events.clone(), manager.clone());
    // Before the circuit changes, so that clients receive the cause first.
    monitor.on_transition(move |change| events.send_health(&of_events, &change.agent_id, change.to));
    setup_health_integration(manager, monitor);
}

fn print_address(listener: &TcpListener, json: bool) -> Result<()> {
    let url = format!("http://{}", listener.local_addr()?);
    if json {
        print(json!({ "event": "listening", "url": url }))
    } else {
        print(format_args!("listening on {url}"))
    }
}

/// Returns the client of agents.
pub(crate) fn client() -> Result<Client> {
    // An error says that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().build().context("the HTTP client cannot be created; check its proxy variables")
}
