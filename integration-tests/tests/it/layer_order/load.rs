//! Every service passes on the load that a service below measures, for a balancer above.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::{TIMEOUT, retry_at_once};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Load, PendingRequests};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, Clock};
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::classifiers::Auto;
use tower_fault_classify::upload::UploadLayer;
use tower_jitter_retry::JitterRetryLayer;

type Request = http::Request<()>;

/// An endpoint that counts its calls and responds while its gate is open.
#[derive(Clone)]
struct Endpoint {
    calls: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Endpoint {
    fn new(permits: usize) -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(permits)) }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn service(
        &self,
    ) -> impl Service<Request, Response = (), Error = io::Error, Future: Send> + Send + 'static {
        let Self { calls, gate } = self.clone();
        service_fn(move |_: Request| {
            calls.fetch_add(1, Ordering::Relaxed);
            let gate = Arc::clone(&gate);
            async move {
                let _permit = gate.acquire().await.map_err(io::Error::other)?;
                Ok(())
            }
        })
    }

    /// Returns a stack for a balancer, with its circuit.
    fn stack(
        &self,
    ) -> (
        impl Service<Request, Response = (), Error: std::error::Error + Send + Sync, Future: Send>
        + Load<Metric: PartialOrd + std::fmt::Debug>
        + Send
        + 'static,
        Circuit,
    ) {
        let config = BreakerConfig::builder().clock(Clock::tokio()).build().unwrap();
        let breaker = BreakerLayer::new(config);
        let circuit = breaker.circuit();
        let endpoint = self.service();
        let attempt_timeout = TIMEOUT;
        let stack = ServiceBuilder::new()
            .layer(breaker.not_ready_when_open().without_clone())
            .layer(FaultClassifyLayer::new())
            .layer_fn(|client| PendingRequests::new(client, CompleteOnResponse::default()))
            .timeout(attempt_timeout)
            .service(endpoint);
        (stack, circuit)
    }
}

async fn call<S: Service<Request>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(Request::default()).await
}

#[tokio::test(start_paused = true)]
async fn balancer_prefers_less_loaded_endpoint_with_closed_circuit() {
    let (busy, idle) = (Endpoint::new(0), Endpoint::new(1_000));
    let ((busy_stack, _), (idle_stack, idle_circuit)) = (busy.stack(), idle.stack());
    let mut balance = Balance::new(ServiceList::new([busy_stack, idle_stack]));

    // Calls until one is pending at the busy endpoint.
    let mut pending = Vec::new();
    while busy.calls() == 0 {
        let response = balance.ready().await.unwrap().call(Request::default());
        pending.push(tokio::spawn(response));
        yield_now().await;
    }
    let before = idle.calls();
    for _ in 0..50 {
        call(&mut balance).await.unwrap();
    }
    assert_eq!((busy.calls(), idle.calls()), (1, before + 50), "the idle endpoint has less load");

    idle_circuit.trip().unwrap();
    busy.gate.add_permits(1_000);
    for _ in 0..50 {
        call(&mut balance).await.unwrap();
    }
    assert_eq!((busy.calls(), idle.calls()), (51, before + 50), "the circuit of the idle endpoint is open");
    for task in pending {
        task.await.unwrap().unwrap();
    }
}

/// A service whose load the test sets.
#[derive(Clone)]
struct Measured(usize);

impl Load for Measured {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0
    }
}

#[test]
fn every_service_passes_on_the_load_below() {
    fn load(service: &impl Load<Metric = usize>) -> usize {
        service.load()
    }
    let breaker: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    let keyed: KeyedBreakerLayer<_, _> =
        KeyedBreakerLayer::new(KeyedConfig::default(), |request: &Request| request.method().clone());
    let retry: JitterRetryLayer = JitterRetryLayer::new(retry_at_once().build().unwrap());
    let classify: FaultClassifyLayer<Auto> = FaultClassifyLayer::new();
    assert_eq!(load(&breaker.layer(Measured(1))), 1);
    assert_eq!(load(&keyed.layer(Measured(2))), 2);
    assert_eq!(load(&retry.layer(Measured(3))), 3);
    assert_eq!(load(&classify.layer(Measured(4))), 4);
    assert_eq!(load(&UploadLayer::new().layer(Measured(5))), 5);
    let stack = ServiceBuilder::new().layer(retry).layer(UploadLayer::new()).layer(breaker).layer(classify);
    assert_eq!(load(&stack.service(Measured(6))), 6);
}

/// A balancer may change the service below, for example the weight of an endpoint.
#[test]
fn every_service_lends_the_service_below() {
    let breaker: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    let keyed: KeyedBreakerLayer<_, _> =
        KeyedBreakerLayer::new(KeyedConfig::default(), |request: &Request| request.method().clone());
    let mut service = UploadLayer::new().layer(keyed.layer(breaker.layer(Measured(1))));
    service.get_mut().get_mut().get_mut().0 = 2;
    assert_eq!(service.get_ref().get_ref().get_ref().0, 2);
    assert_eq!(service.into_inner().into_inner().into_inner().0, 2);
}
