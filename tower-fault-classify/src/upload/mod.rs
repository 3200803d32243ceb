//! Streaming uploads: bodies of requests that fail, or that wait for their source.
//!
//! A request with a streaming body is only as good as the source of that body. If the source fails,
//! or sends nothing for so long that a timeout ends the call, the server is not to blame. Nor is a
//! server to blame that closes the connection by its own limit on the time of a request:
//!
//! | what happens to the request's body | verdict |
//! |---|---|
//! | it fails ([`UploadError`], what hyper's clients make of its error, or any error after that) | kind `client`, never retried, neutral |
//! | it waits for its source when a timeout ends the call | kind `timeout`, never retried, neutral |
//! | it waits for its source when the connection is lost, or its HTTP/2 stream is reset, before the response | kind `transient`, never retried, neutral |
//! | it waits for its source when the call is dropped | none; a breaker does not count the call |
//! | it is complete, or the client does not read it, when a timeout ends the call or the connection is lost | a failure of the server |
//! | it waits, and the peer is gone: no ping of HTTP/2 is answered, the operating system gives the connection up, a proxy answers 522 | kind `timeout`, a failure of the server |
//!
//! A failed body is recognised by its error. Whether a body *waits* has to be tracked while it is
//! sent:
//!
//! - The retry layer tracks each streaming body that it may send again.
//! - [`UploadLayer`] tracks every streaming body, with or without a retry layer. With
//!   [`track_body`](crate::FaultClassifyLayer::track_body), it also tracks the body after the
//!   response's head has come; the retry layer does not.
//! - **A streaming body that neither of them tracks is not known to wait.** A timeout, or a lost
//!   connection, then counts as a failure of the server.
//!
//! A server that crashes while an upload waits looks like one that closes the connection. It is not
//! excused for long: the next connection to it is refused, and that counts.
//!
//! A gateway passes on the bodies of clients that it does not control. It needs an [`UploadLayer`]:
//! without one, a few uploads that stall open the circuit for everybody.
//!
//! A body that waits is one whose last `poll_frame` returned `Pending`. In a call in which both
//! sides send in turn, the client's stream is also pending while its caller waits for the server.
//! If the server hangs in such a call, a timeout over a tracked upload does not count as its
//! failure. Track no such calls: leave the [`UploadLayer`] out, and turn `track_uploads` off in the
//! policy of the retry.
//!
//! The verdict on a call is found while that call is polled, and so the note that its body waits
//! holds for everything that is polled by it. If a service sends an upload and, in the same future
//! (`join!`, `select!`), makes another call, then a timeout of the other call is not charged to its
//! server either while the upload waits. Give the other call a task of its own (`tokio::spawn`), or
//! make it above the layer that tracks the upload.
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
//!     // Above each layer that judges, and beneath a retry.
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
