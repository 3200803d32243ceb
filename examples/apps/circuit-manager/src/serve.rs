//! The subcommand `serve`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use circuit_manager::agents::Agents;
use circuit_manager::audit::Audit;
use circuit_manager::auth::Users;
use circuit_manager::events::Events;
use circuit_manager::health::{HealthMonitor, setup_health_integration};
use circuit_manager::manager::Manager;
use circuit_manager::server::{self, AppState};
use reqwest::Client;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cli::ServeSettings;
use crate::logs;
use crate::output::print;
use crate::signals::cancel_at_signal;

const NO_THREADS: &str = "the threads cannot be started; check the limits of the system";

/// A server whose settings are valid.
pub(crate) struct Prepared {
    settings: ServeSettings,
    users: Users,
    audit: Audit,
    monitor: HealthMonitor,
}

/// Reads the users, and opens the audit file.
pub(crate) fn prepare(settings: ServeSettings) -> Result<Prepared> {
    let users = Users::read(&settings.token_file)?;
    let audit = match &settings.audit_file {
        Some(path) => Audit::append_to(path)
            .with_context(|| format!("audit file `{}` cannot be opened; check the path", path.display()))?,
        None => Audit::default(),
    };
    let monitor = HealthMonitor::new(settings.health.clone())?;
    Ok(Prepared { settings, users, audit, monitor })
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
        let Self { settings, users, audit, monitor } = self;
        let stopping = CancellationToken::new();
        let agents = settings.agents;
        let own: BTreeMap<_, _> =
            agents.by_name.iter().map(|(name, agent)| (name.clone(), agent.circuit.clone())).collect();
        tracing::warn!(store = ?settings.store, "the states of circuits are kept in memory only");
        let manager = Manager::new(agents.default, own)?;
        for name in agents.by_name.keys() {
            manager.get_or_create(name)?;
        }
        let events = Events::new(settings.ping, stopping.clone());
        let forward = tokio::spawn(events.forward(&manager));
        let (of_health, by_id) = (events.clone(), manager.clone());
        // Before the circuit changes, so that clients receive the cause first.
        monitor.on_transition(move |change| of_health.send_health(&by_id, &change.agent_id, change.to));
        setup_health_integration(&manager, &monitor);
        let mut called = Agents::new(manager.clone(), monitor, stopping.clone());
        called.add_configured(&agents.by_name, &client()?);
        called.add_simulated(settings.simulate);
        let calls = tokio::spawn(called.run()?);
        let state = AppState::new(manager, users, audit, events, stopping.clone());
        let router = server::router(state.clone())?;
        let listener = server::bind(settings.listen)
            .with_context(|| format!("address {} cannot be bound; choose another one", settings.listen))?;
        cancel_at_signal(stopping.clone()).context("signals cannot be handled")?;
        let url = format!("http://{}", listener.local_addr()?);
        if settings.json {
            print(json!({ "event": "listening", "url": url }))?;
        } else {
            print(format_args!("listening on {url}"))?;
        }
        server::serve(listener, router, state).await?;
        calls.await?;
        forward.await?;
        Ok(())
    }
}

/// Returns the client of agents.
fn client() -> Result<Client> {
    // An error says that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().build().context("the HTTP client cannot be created; check its proxy variables")
}
