//! Circuits by key: one circuit for each host, route, tenant or model.
//!
//! | item | |
//! |---|---|
//! | [`KeyedBreakerLayer`], [`KeyedBreaker`], [`KeyedResponseFuture`] | the layer, its services and their futures |
//! | [`KeyedConfig`], [`KeyedConfigBuilder`], [`Overflow`] | the configuration: limits of each circuit, number of keys, behavior when the map is full |
//! | [`KeyedCircuits`], [`KeyedCircuit`], [`KeyedPermit`] | handles to the circuits: status, manual control, permits |
//! | [`ByValue`], [`ByRef`], [`ExtensionFirst`], [`PickCircuit`] | how a layer obtains the key of a request |
//! | [`WeakKeyedCircuits`] | a handle that does not keep the circuits alive |
//! | [`KeyedSnapshot`] | the snapshot of the circuit of one key |
//! | [`Shared`] | how handles and permits refer to a keyed circuit |
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
//!
//! fn host(request: &http::Request<()>) -> &str {
//!     request.uri().host().unwrap_or_default()
//! }
//!
//! let service = ServiceBuilder::new()
//!     .layer(KeyedBreakerLayer::by_ref(KeyedConfig::default(), host))
//!     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(http::Response::new(()))));
//! # fn check<R, S: tower::Service<R>>(_: &S) {}
//! # check::<http::Request<()>, _>(&service);
//! ```
//!
//! A worker can wait for the circuit of its key before it calls the service (feature `tokio`):
//!
//! ```
//! # #[cfg(feature = "tokio")] {
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
//!
//! # async fn answer(tenant: u64) -> Result<http::Response<u64>, std::io::Error> { Ok(http::Response::new(tenant)) }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), |tenant: &u64| *tenant);
//! let circuits = layer.circuits();
//! let mut service = layer.layer(service_fn(answer));
//!
//! circuits.circuit(&7).ready().await;
//! let response = service.ready().await?.call(7).await?;
//! # assert_eq!(response.body(), &7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`KeyedCircuits`] also works without a layer, and changes circuits while they run:
//!
//! | method | |
//! |---|---|
//! | [`circuit`](KeyedCircuits::circuit), [`try_acquire`](KeyedCircuits::try_acquire) | the circuit of a key, and a permit for one call |
//! | [`reconfigure`](KeyedCircuits::reconfigure) | a new configuration of all circuits |
//! | [`configure`](KeyedCircuits::configure), [`unconfigure`](KeyedCircuits::unconfigure) | a configuration of one key |
//! | [`remove`](KeyedCircuits::remove), [`clear`](KeyedCircuits::clear) | removal of circuits |
//! | [`on_create`](KeyedCircuits::on_create), [`on_signal`](KeyedCircuits::on_signal), [`on_key_transition`](KeyedCircuits::on_key_transition) | listeners for code that [decides for several circuits](crate::control) |
//! | [`snapshots`](KeyedCircuits::snapshots), [`restore`](KeyedCircuits::restore) | circuits that keep their state over a restart of the process |

mod core;
mod creation;
mod future;
mod key;
mod layer;
mod lease;
mod listeners;
mod map;
mod reconfigure;
mod service;
mod snapshot;
mod table;
mod weak;

pub use self::core::Shared;
pub use crate::config::{KeyedConfig, KeyedConfigBuilder, Overflow};
pub use future::KeyedResponseFuture;
pub use key::{ByRef, ByValue, ExtensionFirst, PickCircuit};
pub use layer::KeyedBreakerLayer;
pub use map::{KeyedCircuit, KeyedCircuits, KeyedPermit};
pub use service::KeyedBreaker;
pub use snapshot::KeyedSnapshot;
pub use weak::WeakKeyedCircuits;
