//! The simulated servers, and the clients' stacks in front of them.

use std::io;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitRegistry, ConfigError};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::incidents::{Incident, Schedule, answer};

/// A client of a simulated server.
pub(crate) type Client = BoxCloneSyncService<Request<()>, Response<()>, BoxError>;

/// A server that the processes call.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) schedule: Option<Schedule>,
    /// The calls per second of all processes.
    pub(crate) rate: f64,
}

/// The tenants, each of which has a circuit of its own. The backend of the second one fails.
pub(crate) const TENANTS: [&str; 6] = ["acme", "globex", "initech", "umbrella", "stark", "wayne"];
const FAILING_TENANT: &str = "globex";

/// Returns `count` servers. The first ones have incidents.
pub(crate) fn servers(count: usize) -> Vec<Server> {
    let errors = |rate, status| Incident::Errors { rate, status };
    let known = [
        ("billing", 40.0, Some((Incident::Outage, 25, 75))),
        ("geocoder", 25.0, Some((Incident::Slow, 50, 85))),
        ("image-resizer", 30.0, Some((errors(0.3, StatusCode::SERVICE_UNAVAILABLE), 10, 120))),
        ("inventory", 15.0, None),
        ("ledger", 10.0, Some((Incident::Flapping, 95, 155))),
        ("llm", 5.0, Some((errors(0.8, StatusCode::TOO_MANY_REQUESTS), 60, 110))),
        ("mailer", 2.0, Some((errors(0.9, StatusCode::BAD_GATEWAY), 120, 150))),
        ("payments-gateway", 20.0, None),
        ("recommendations", 50.0, Some((errors(0.7, StatusCode::INTERNAL_SERVER_ERROR), 5, 20))),
        ("search", 80.0, None),
        ("session-store", 60.0, None),
        ("tax-rates", 0.5, Some((Incident::Outage, 0, 40))),
    ];
    let known = known.into_iter().map(|(name, rate, incident)| Server {
        name: name.to_owned(),
        rate,
        schedule: incident.map(|(incident, begins, ends)| Schedule { incident, begins, ends }),
    });
    let more = (1..).map(|number| Server { name: format!("service-{number:03}"), rate: 2.0, schedule: None });
    known.chain(more).take(count).collect()
}

/// Returns the client of one server, with a circuit of the registry.
pub(crate) fn client(registry: &CircuitRegistry, server: &Server, started: Instant) -> Client {
    let schedule = server.schedule;
    let respond = move |_: Request<()>| respond(schedule, started);
    // The retry layer is outside of the circuit, so each attempt asks the circuit. The timeout is
    // inside, so the circuit counts a call that takes too long as a failure.
    let service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(BreakerLayer::with_circuit(registry.circuit(server.name.clone())).keep_last_failure("GET /"))
        .timeout(Duration::from_secs(1))
        .service(service_fn(respond));
    BoxCloneSyncService::new(ServiceBuilder::new().map_err(BoxError::from).service(service))
}

/// Returns the circuits of the tenants, and a client that picks one by the request's tenant.
pub(crate) fn tenants(started: Instant) -> Result<(KeyedCircuits<&'static str>, Client), ConfigError> {
    let each = BreakerConfig::builder().name("tenants").build()?;
    let key = |request: &Request<()>| *request.extensions().get::<&'static str>().unwrap_or(&TENANTS[0]);
    let layer =
        KeyedBreakerLayer::new(KeyedConfig::builder(each).build()?, key).keep_last_failure("GET /price");
    let circuits = layer.circuits();
    let outage = Schedule { incident: Incident::Outage, begins: 30, ends: 100 };
    let respond = move |request: Request<()>| {
        let fails = request.extensions().get() == Some(&FAILING_TENANT);
        respond(fails.then_some(outage), started)
    };
    let service = ServiceBuilder::new().layer(layer).service(service_fn(respond));
    Ok((circuits, BoxCloneSyncService::new(ServiceBuilder::new().map_err(BoxError::from).service(service))))
}

/// The server: waits for the latency, and answers.
async fn respond(schedule: Option<Schedule>, started: Instant) -> io::Result<Response<()>> {
    let answer = answer(schedule.as_ref(), started.elapsed(), fastrand::f64());
    tokio::time::sleep(answer.after).await;
    match answer.status {
        Some(status) => {
            let mut response = Response::new(());
            *response.status_mut() = status;
            Ok(response)
        }
        None => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// The circuits of one process.
pub(crate) fn registry() -> Result<CircuitRegistry, ConfigError> {
    let config = BreakerConfig::builder().open_for(Duration::from_secs(8)).build()?;
    Ok(CircuitRegistry::new(config))
}
