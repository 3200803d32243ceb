//! A circuit for each tenant, with a fallback.
//!
//! One tenant's backend is down. After five failures, which span more than a second, its circuit
//! opens. The fallback then answers with the price of yesterday. The calls of the other tenants are
//! not affected.
//!
//! ```text
//! cargo run --example tenants
//! ```

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, ConfigError, HealthReport, Rejection};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// The pause between two orders of a tenant.
const ORDER_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
struct Order {
    tenant: &'static str,
    amount: u32,
}

/// Calls the tenant's pricing backend. The backend of `globex` is down.
async fn current_price(order: Order) -> io::Result<String> {
    if order.tenant == "globex" {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(format!("{} pays {}", order.tenant, order.amount * 3))
}

/// Answers an order whose tenant's circuit rejects it.
fn yesterdays_price(order: Order, rejection: &Rejection) -> String {
    let price = order.amount * 2;
    format!("{} paid {price} yesterday (its circuit is {})", order.tenant, rejection.state())
}

fn print_transition(transition: &Transition) {
    let tenant = transition.key.as_deref().unwrap_or("?");
    println!("# {tenant}: {} -> {} ({})", transition.from, transition.to, transition.reason);
}

fn circuit_config() -> Result<KeyedConfig, ConfigError> {
    let each_circuit = BreakerConfig::builder().name("tenants").build()?;
    // Bounds the memory. When the map is full, an idle circuit is evicted for a new tenant.
    KeyedConfig::builder(each_circuit).max_keys(1_000).build()
}

/// How the orders of one tenant ended.
#[derive(Default)]
struct Counts {
    answered: u32,
    failed: u32,
}

/// Places seven orders for each tenant, and counts how they end.
///
/// The error is that of the backend. With a fallback the breaker returns no error of its own.
async fn place_orders<S>(prices: &mut S) -> io::Result<BTreeMap<&'static str, Counts>>
where
    S: Service<Order, Response = String, Error = io::Error>,
{
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for amount in 1..=7 {
        for tenant in TENANTS {
            let count = counts.entry(tenant).or_default();
            match prices.ready().await?.call(Order { tenant, amount }).await {
                Ok(answer) => {
                    count.answered += 1;
                    println!("{answer}");
                }
                Err(error) => {
                    count.failed += 1;
                    println!("{tenant}: {error}");
                }
            }
        }
        tokio::time::sleep(ORDER_INTERVAL).await;
    }
    Ok(counts)
}

/// Reports that a tenant's backend is up again, as a health checker would.
///
/// Its circuit becomes half-open: the next order is a probe, before the open time is over.
fn report_recovered(circuits: &KeyedCircuits<String>, tenant: &str) {
    // A tenant without a circuit has placed no order: there is nothing to report.
    if let Some(circuit) = circuits.get(tenant) {
        circuit.report(HealthReport::Recovered);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `by_ref` borrows the key from the request: no allocation for a tenant that has a circuit.
    let breaker = KeyedBreakerLayer::by_ref(circuit_config()?, |order: &Order| order.tenant)
        .on_transition(print_transition)
        .fallback(yesterdays_price);
    // A handle to the circuits, for reports and status. The layer is moved into the stack below.
    let circuits = breaker.circuits();
    let mut prices = ServiceBuilder::new().layer(breaker).service(service_fn(current_price));

    let counts = place_orders(&mut prices).await?;

    // The health checker is wrong: the backend is still down. The probe fails, and the circuit
    // opens again.
    report_recovered(&circuits, "globex");
    let probe = Order { tenant: "globex", amount: 8 };
    if let Err(error) = prices.ready().await?.call(probe).await {
        println!("globex: {error}");
    }

    for (tenant, count) in counts {
        let state = circuits.get(tenant).map(|circuit| circuit.status().state);
        let state = state.map_or_else(|| "unused".to_owned(), |state| state.to_string());
        println!("{tenant}: {} answered, {} failed, its circuit is {state}", count.answered, count.failed);
    }
    Ok(())
}
