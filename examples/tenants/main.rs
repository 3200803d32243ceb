//! A circuit for each tenant: one whose backend is dead is answered from the last known prices, and
//! the others do not notice.
//!
//! `cargo run --release --example tenants`

use std::collections::BTreeMap;
use std::io;

use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, HealthReport, Rejection};

/// What a tenant asks for.
struct Order {
    tenant: &'static str,
    amount: u32,
}

/// The prices of each tenant's backend; that of `globex` is down.
async fn price(order: Order) -> Result<String, io::Error> {
    match order.tenant {
        "globex" => Err(io::ErrorKind::ConnectionRefused.into()),
        tenant => Ok(format!("{tenant} pays {}", order.amount * 3)),
    }
}

fn tell(change: &Transition) {
    let tenant = change.key.as_deref().unwrap_or("?");
    println!("# {tenant}: {} -> {} ({})", change.from, change.to, change.reason);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let each =
        BreakerConfig::builder().name("tenants").consecutive_failures(3).successes_to_close(1).build()?;
    let layer =
        KeyedBreakerLayer::by_ref(KeyedConfig::builder(each).max_keys(1_000).build()?, |order: &Order| {
            order.tenant
        })
        .on_transition(tell)
        .fallback(|order: Order, rejection: &Rejection| {
            format!(
                "{} paid {} yesterday (its circuit is {})",
                order.tenant,
                order.amount * 2,
                rejection.state()
            )
        });
    let circuits = layer.circuits();
    let mut prices = ServiceBuilder::new().layer(layer).service(service_fn(price));

    let mut answers: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
    for amount in 1..=6 {
        for tenant in ["acme", "globex", "initech"] {
            let answer = prices.ready().await?.call(Order { tenant, amount }).await;
            let [answered, failed] = answers.entry(tenant).or_default();
            match answer {
                Ok(text) => {
                    *answered += 1;
                    println!("{text}");
                }
                Err(error) => {
                    *failed += 1;
                    println!("{tenant}: {error}");
                }
            }
        }
    }
    // A health checker has seen the backend again: the next order is a probe. It is not back, and
    // the circuit opens again.
    let globex = circuits.get("globex").ok_or("it has ordered")?;
    globex.report(HealthReport::Recovered);
    if let Err(error) = prices.ready().await?.call(Order { tenant: "globex", amount: 7 }).await {
        println!("globex: {error}");
    }
    for (tenant, [answered, failed]) in answers {
        let state = circuits.get(tenant).ok_or("it has ordered")?.status().state;
        println!("{tenant}: {answered} answered, {failed} failed, its circuit is {state}");
    }
    Ok(())
}
