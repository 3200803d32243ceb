//! The demonstration: the clients, the upstreams and the operator of the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, io, process};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::any;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::BoxError;

use super::{RunningGateway, serve};

const SETTINGS: &str = include_str!("settings.toml");

pub(crate) async fn run() -> Result<(), BoxError> {
    let upstreams = Upstreams::start().await?;
    let file = SettingsFile::create(&upstreams.settings())?;
    let running = RunningGateway::start(&file.path).await?;
    let client = DemoClient { gateway: running.address, admin: running.admin_address };

    println!("\nthe prices are down");
    client.put("/orders/1").await?;
    // The gateway sends a PUT to the prices three times, and passes the last response on. Their
    // circuit counts the first of the three attempts, and opens at the third failure in a row.
    for _ in 0..4 {
        client.put("/prices/1").await?;
    }
    client.get("/ready").await?;
    client.print_last_failure().await?;

    println!("\nthe settings change while the gateway runs");
    file.write(&upstreams.settings().replace("max_attempts = 3", "max_attempts = 2"))?;
    client.status_when(|status| status["reload"]["applied"] == 1).await?;
    client.put("/prices/1").await?;

    println!("\nan invalid file changes nothing");
    file.write(&upstreams.settings().replace("open_for = \"10s\"", "open_for = \"10\""))?;
    let status = client.status_when(|status| !status["reload"]["error"].is_null()).await?;
    println!("{}", status["reload"]["error"].as_str().unwrap_or_default());
    println!("max_attempts is {}", status["max_attempts"]);

    println!("\nthe prices are back, and the operator does not wait for the end of the open time");
    upstreams.prices_down.store(false, Ordering::Relaxed);
    client.post("/upstreams/prices/probe_now").await?;
    client.put("/prices/1").await?;
    client.put("/prices/1").await?;

    println!("\nthe operator takes the orders out of service");
    client.post("/upstreams/orders/force_open?for=10m").await?;
    client.put("/orders/1").await?;
    client.get("/ready").await?;
    client.post("/upstreams/orders/release").await?;

    println!("\nthe gateway shuts down while a request is running");
    let request = tokio::spawn(async move { client.put("/orders/slow").await });
    upstreams.slow_order_received.notified().await;
    let shutdown = tokio::spawn(running.shut_down());
    upstreams.finish_slow_order.notify_one();
    request.await??;
    shutdown.await?
}

/// Two services on loopback ports that the system picks. They are never stopped.
struct Upstreams {
    orders: SocketAddr,
    prices: SocketAddr,
    prices_down: Arc<AtomicBool>,
    slow_order_received: Arc<Notify>,
    finish_slow_order: Arc<Notify>,
}

impl Upstreams {
    async fn start() -> io::Result<Self> {
        let slow_order_received = Arc::new(Notify::new());
        let finish_slow_order = Arc::new(Notify::new());
        let prices_down = Arc::new(AtomicBool::new(true));
        let orders = orders_service(Arc::clone(&slow_order_received), Arc::clone(&finish_slow_order));
        let prices = prices_service(Arc::clone(&prices_down));
        let (orders, prices) = (serve_on_loopback(orders).await?, serve_on_loopback(prices).await?);
        Ok(Self { orders, prices, prices_down, slow_order_received, finish_slow_order })
    }

    /// Returns the text of the settings file, with the addresses of these services.
    fn settings(&self) -> String {
        let with_orders = SETTINGS.replace("127.0.0.1:8081", &self.orders.to_string());
        with_orders.replace("127.0.0.1:8082", &self.prices.to_string())
    }
}

async fn serve_on_loopback(router: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    serve(listener, router, Arc::default());
    Ok(address)
}

fn orders_service(slow_order_received: Arc<Notify>, finish_slow_order: Arc<Notify>) -> Router {
    let slow = async move || {
        slow_order_received.notify_one();
        finish_slow_order.notified().await;
        "slow order accepted"
    };
    let order = async |body: Bytes| format!("order of {} bytes accepted", body.len());
    Router::new().route("/slow", any(slow)).fallback(order)
}

fn prices_service(down: Arc<AtomicBool>) -> Router {
    let price = async move || {
        if down.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    Router::new().fallback(price)
}

/// A settings file in a temporary folder, which is removed with it.
struct SettingsFile {
    path: PathBuf,
}

impl SettingsFile {
    fn create(text: &str) -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("axum_gateway_{}", process::id()));
        fs::create_dir_all(&folder)?;
        let file = Self { path: folder.join("settings.toml") };
        file.write(text)?;
        Ok(file)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        fs::write(&self.path, text)
    }
}

impl Drop for SettingsFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().unwrap_or(Path::new("")));
    }
}

/// A client of the gateway, which is also the operator.
#[derive(Clone, Copy)]
struct DemoClient {
    gateway: SocketAddr,
    admin: SocketAddr,
}

impl DemoClient {
    /// Sends a request of a remote client, and prints the response.
    async fn put(self, path: &str) -> Result<(), BoxError> {
        let (status, retry_after, text) = send(Method::PUT, self.gateway, path).await?;
        let note = if retry_after { " with Retry-After" } else { "" };
        println!("PUT {path}: {status}{note} {text:?}");
        Ok(())
    }

    /// Reads one of the operator's pages, and prints it.
    async fn get(self, path: &str) -> Result<(), BoxError> {
        let (status, _, text) = send(Method::GET, self.admin, path).await?;
        println!("GET {path}: {status} {text:?}");
        Ok(())
    }

    /// Requests an operation, and prints the state of the circuit.
    async fn post(self, path: &str) -> Result<(), BoxError> {
        let (status, _, text) = send(Method::POST, self.admin, path).await?;
        let circuit: Value = serde_json::from_str(&text)?;
        println!("POST {path}: {status}, the circuit is {}", circuit["state"]);
        Ok(())
    }

    /// Reads the status page, and prints which request failed last.
    async fn print_last_failure(self) -> Result<(), BoxError> {
        let status = self.status_when(|_| true).await?;
        for circuit in status["circuits"].as_array().into_iter().flatten() {
            if let Some(subject) = circuit["last_failure"]["subject"].as_str() {
                println!("{} is {}, last failure: {subject}", circuit["key"], circuit["state"]);
            }
        }
        Ok(())
    }

    /// Waits until the status page fulfils a condition, and returns the page.
    async fn status_when(self, condition: impl Fn(&Value) -> bool) -> Result<Value, BoxError> {
        loop {
            let (_, _, text) = send(Method::GET, self.admin, "/status").await?;
            let status = serde_json::from_str(&text)?;
            if condition(&status) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a request. Returns the status, whether there is a `Retry-After`, and the text.
async fn send(method: Method, to: SocketAddr, path: &str) -> Result<(StatusCode, bool, String), BoxError> {
    let request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    let request = request.body(Body::from("order"))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status();
    let retry_after = response.headers().contains_key(header::RETRY_AFTER);
    let body = to_bytes(Body::new(response.into_body()), 65_536).await?;
    Ok((status, retry_after, String::from_utf8_lossy(&body).into_owned()))
}
