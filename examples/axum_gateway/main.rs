//! An axum gateway whose settings are in a file, which it reloads while it runs.
//!
//! The program shows:
//!
//! - a client for all upstreams, with a circuit for each of them, and limits of their own
//!   (`gateway.rs`);
//! - all settings in a TOML file (`settings.rs`, `settings.toml`);
//! - the reload of the file: open circuits, the retry budget and running requests stay
//!   (`reload.rs`);
//! - an operator's pages: status, readiness and maintenance (`admin.rs`);
//! - a graceful shutdown that completes the running requests.
//!
//! It runs a demonstration (`demo.rs`), which takes the parts of the clients, of the upstreams, one
//! of which is down, and of the operator.
//!
//! ```text
//! cargo run --example axum_gateway
//! ```

mod admin;
mod demo;
mod gateway;
mod reload;
mod settings;

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::BoxError;
use tower_fault_classify::ErrorChain;

use self::gateway::Gateway;
use self::reload::watch_settings;
use self::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    match demo::run().await {
        Ok(()) => ExitCode::SUCCESS,
        // An invalid settings file has an error of several lines. A `Result` would be printed as
        // its `Debug` text, on one.
        Err(error) => {
            eprintln!("{}", ErrorChain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// A gateway that serves requests.
pub(crate) struct RunningGateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    stop: Arc<Notify>,
    server: JoinHandle<io::Result<()>>,
}

impl RunningGateway {
    /// Starts a gateway with the settings in a file, and reloads the file when it changes.
    pub(crate) async fn start(settings_file: &Path) -> Result<Self, BoxError> {
        let text = reload::read(settings_file)?;
        let settings = Settings::parse(&text)?;
        let listener = TcpListener::bind(settings.listen).await?;
        let admin_listener = TcpListener::bind(settings.admin_listen).await?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);

        let gateway = Gateway::new(settings);
        let reload = watch_settings(settings_file, text, gateway.clone())?;
        let stop = Arc::new(Notify::new());
        let server = serve(listener, gateway.router(), Arc::clone(&stop));
        // The operator's pages answer until the program ends.
        serve(admin_listener, admin::router(gateway, reload), Arc::default());
        Ok(Self { address, admin_address, stop, server })
    }

    /// Completes the running requests, and accepts no new ones.
    pub(crate) async fn shut_down(self) -> Result<(), BoxError> {
        self.stop.notify_one();
        Ok(self.server.await??)
    }
}

/// Serves until `stop` is notified, and then completes the running requests.
fn serve(listener: TcpListener, router: Router, stop: Arc<Notify>) -> JoinHandle<io::Result<()>> {
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stop.notified().await });
    tokio::spawn(server.into_future())
}
