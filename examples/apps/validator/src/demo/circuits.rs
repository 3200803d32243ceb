//! The pushes of the demo: retries, an open circuit, and its recovery.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use test_servers::RefusedPort;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use validator::external::{Delivery, External, PROMETHEUS, QUESTDB};
use validator::result::Report;

use super::services::Services;
use super::{Row, say, title};
use crate::output::delivery_line;

/// The `reset_timeout` of the configuration, and some more.
const RESET_TIMEOUT: Duration = Duration::from_millis(3_100);

/// Sends the report four times.
pub(super) async fn play(external: &External, report: &Report, services: &mut Services) -> Result<Vec<Row>> {
    title("3. The report is sent, and both services are down");
    say("The push gateway breaks the first two connections. Nothing listens on the port of QuestDB.");
    let mut rows = Vec::new();
    let first = push(external, report).await;
    say(format_args!("The push gateway received {} requests.", services.prometheus.requests().len()));
    rows.push(row("push 1", PROMETHEUS, &first, "Two connections broke. The third attempt succeeded."));
    rows.push(row("push 1", QUESTDB, &first, "3 attempts failed. The circuit counts each of them."));

    title("4. The next reports are sent");
    let second = push(external, report).await;
    rows.push(row(
        "push 2",
        QUESTDB,
        &second,
        "The fifth failure opened the circuit, which ended the retries.",
    ));
    let third = push(external, report).await;
    rows.push(row(
        "push 3",
        QUESTDB,
        &third,
        "The circuit is open: the push failed at once, and nothing was sent.",
    ));
    say("The push gateway works, and receives each report.");

    title("5. QuestDB recovers");
    say("QuestDB is started. The circuit stays open for 3 s.");
    let received = start_questdb(&mut services.questdb).await?;
    sleep(RESET_TIMEOUT).await;
    let fourth = push(external, report).await;
    if is_delivered(QUESTDB, &fourth) {
        let lines = received.await.context("the QuestDB of the demo panicked; report this as a bug")??;
        say(format_args!("QuestDB received {} rows.", lines.lines().count()));
    }
    rows.push(row(
        "push 4",
        QUESTDB,
        &fourth,
        "The push was the probe of the circuit. Its success closed the circuit.",
    ));
    Ok(rows)
}

/// Sends the report, and shows the outcome, the time, and the circuits.
async fn push(external: &External, report: &Report) -> Vec<Delivery> {
    let start = Instant::now();
    let deliveries = external.push(report).await;
    say(format_args!("\nA push ended after {} ms:", start.elapsed().as_millis()));
    for delivery in &deliveries {
        say(format_args!("  {}", delivery_line(delivery)));
    }
    say(format_args!("  {}", external.resilience().get_breaker(QUESTDB)));
    deliveries
}

fn row(push: &str, service: &str, deliveries: &[Delivery], explanation: &'static str) -> Row {
    let delivered = deliveries.iter().any(|delivery| delivery.service == service && delivery.error.is_none());
    let result = if delivered { "delivered" } else { "not delivered" };
    Row { subject: format!("{push}, {service}"), result: result.to_owned(), explanation }
}

fn is_delivered(service: &str, deliveries: &[Delivery]) -> bool {
    deliveries.iter().any(|delivery| delivery.service == service && delivery.error.is_none())
}

/// Listens on the port that refused connections, and returns what its first connection receives.
async fn start_questdb(port: &mut RefusedPort) -> Result<JoinHandle<io::Result<String>>> {
    let address = port.address();
    // Dropping the old port frees its address.
    *port = RefusedPort::bind();
    let listener = TcpListener::bind(address).await.context("the port is in use; run the demo again")?;
    Ok(tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut lines = String::new();
        stream.read_to_string(&mut lines).await?;
        Ok(lines)
    }))
}
