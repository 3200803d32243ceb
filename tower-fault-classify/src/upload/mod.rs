//! Streaming uploads: request bodies that fail, or that wait for their source.
//!
//! A streaming body depends on its source. If the source fails, or sends nothing until a timeout
//! ends the call, the server is not at fault. Neither is a server at fault that closes the
//! connection because of its own limit on the duration of a request:
//!
//! | state of the request's body | event | verdict |
//! |---|---|---|
//! | failed | the body returns an error ([`UploadError`], or hyper's error for a failed body), or any error follows that | kind `client`, never retried, neutral |
//! | waits for its source | a timeout ends the call | kind `timeout`, never retried, neutral |
//! | waits for its source | the connection is lost, or its HTTP/2 stream is reset, before the response | kind `transient`, never retried, neutral |
//! | waits for its source | the call is dropped | none; a breaker does not count the call |
//! | waits for its source | the peer is gone: an HTTP/2 ping is not answered, the operating system times out the connection, a proxy responds with 522 | kind `timeout`, a failure of the server |
//! | complete, or not read by the client | a timeout ends the call, or the connection is lost | a failure of the server |
//!
//! A failed body is recognised by its error. Whether a body *waits* has to be tracked while the
//! body is sent:
//!
//! - The retry layer tracks each streaming body that it may send again.
//! - [`UploadLayer`] tracks every streaming body, with or without a retry layer. With
//!   [`track_body`](crate::FaultClassifyLayer::track_body), it also tracks the request's body after
//!   the response's head has arrived. The retry layer does not.
//! - **If neither of them tracks a streaming body, its waiting is not noticed.** A timeout or a
//!   lost connection then counts as a failure of the server.
//!
//! A server that crashes while an upload waits cannot be distinguished from a server that closes
//! the connection. The breaker still notices the crash soon: the next connection to the server is
//! refused, and that counts.
//!
//! # Gateways
//!
//! A gateway forwards the bodies of clients that it does not control. It needs an [`UploadLayer`]:
//! without it, a few stalled uploads open the circuit for all callers.
//!
//! # Bidirectional streams
//!
//! A body waits if its last `poll_frame` returned `Pending`. In a call in which both sides send in
//! turn, the client's stream is also pending while the client waits for the server. If the server
//! hangs in such a call, a timeout over a tracked upload does not count as a failure of the server.
//!
//! Do not track such calls: leave out the [`UploadLayer`], and turn off `track_uploads` in the
//! retry policy.
//!
//! # Several calls in one future
//!
//! A call is classified while it is polled. So the note that its body waits applies to everything
//! that is polled in the same future.
//!
//! A service may send an upload and make another call in the same future (`join!`, `select!`). A
//! timeout of the other call then does not count against its server while the upload waits. Spawn a
//! task for the other call (`tokio::spawn`), or make it above the layer that tracks the upload.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder, service_fn};
//! use tower_fault_classify::{FaultClassifyLayer, upload::{UploadBody, UploadLayer}};
//!
//! type Body = Full<bytes::Bytes>;
//!
//! let service = ServiceBuilder::new()
//!     // Above each layer that classifies, and below a retry layer.
//!     .layer(UploadLayer::new())
//!     .layer(FaultClassifyLayer::new())
//!     .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)))
//!     .service(service_fn(async |_: http::Request<UploadBody<Body>>| {
//!         Ok::<_, BoxError>(http::Response::new(()))
//!     }));
//! # fn check<R, S: tower::Service<R>>(_: &S) {}
//! # check::<http::Request<Body>, _>(&service);
//! ```

mod body;
mod error;
mod layer;
mod progress;

pub use body::{TrackUpload, UploadBody};
pub use error::UploadError;
pub use layer::{ResponseFuture, Upload, UploadLayer};
#[doc(hidden)]
pub use progress::UploadGuard;
pub(crate) use progress::{
    UploadSource, current_source, excuse_stalled_disconnect, excuse_stalled_timeout, upload_failed,
};
