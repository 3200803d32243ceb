//! The handle of the circuit, with and without a stack, over typed and boxed errors.

use std::io;
use std::sync::Arc;

use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Circuit};

async fn typed(_: u32) -> Result<u32, io::Error> {
    Ok(7)
}

type SharedError = Arc<dyn std::error::Error + Send + Sync>;

async fn shared(_: u32) -> Result<u32, SharedError> {
    Ok(7)
}

async fn boxed(_: u32) -> Result<u32, BoxError> {
    Ok(7)
}

fn check<Request, Error, S: Service<Request, Error = Error>>(_: &S) {}

fn typed_stack() {
    let layer = BreakerLayer::new(BreakerConfig::default());
    let before = layer.circuit();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(typed));
    check::<u32, BreakerError<io::Error>, _>(&service);
    assert_eq!(before.status().circuit, service.circuit().status().circuit);
}

fn boxed_stack() {
    let layer = BreakerLayer::new(BreakerConfig::default());
    let before = layer.circuit();
    let service = ServiceBuilder::new().layer(&layer).service(service_fn(boxed));
    check::<u32, BoxError, _>(&service);
    assert_eq!(before.status().circuit, layer.circuit().status().circuit);
}

/// The circuit first: it has no markers.
fn circuit_first() {
    let circuit = Circuit::new(BreakerConfig::default());
    println!("{}", circuit.status().circuit);
    let service =
        ServiceBuilder::new().layer(BreakerLayer::with_circuit(circuit.clone())).service(service_fn(boxed));
    check::<u32, BoxError, _>(&service);
}

/// The name of the type stands for a typed error.
fn typed_layer() {
    let layer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    println!("{}", layer.circuit().status().circuit);
}

/// The error is a typed and a boxed one.
fn shared_error() {
    let layer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shared));
    check::<u32, BreakerError<SharedError>, _>(&service);
}

fn main() {
    shared_error();
    typed_stack();
    boxed_stack();
    circuit_first();
    typed_layer();
}
